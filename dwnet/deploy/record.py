"""What an exported file says of itself: the task, the names of the classes, and what the graph does to images.

The record makes a file usable without its config. It is one JSON object under the key ``dwnet``: in the metadata of an
ONNX file, and in the runtime information of an OpenVINO file.
"""
import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from dwnet.errors import UserError
from dwnet.version import __version__

KEY = 'dwnet'


@dataclass(frozen=True)
class Record:
    """The record of an exported file.

    Attributes:
        task: ``Toolbox.task``, or ``'features'`` for a backbone.
        labels: The names of the classes, by their number; empty if they are not known.
        palette: A colour for each class, red, green and blue of 0 to 255.
        outputs: Output → what it holds, in words, with its shape.
        normalisation: What the graph does to the image first: ``mean`` and ``std`` of each channel, ``input`` (the
            channels' order and the values' range, in words) and ``padded_to`` (a multiple of pixels).
        resizing: What has to be done to an image in front of the graph: the config's test pipeline, less reading,
            annotations and packing, as dicts.
        precision: Of most weights: ``'float32'``, ``'float16'`` or ``'int8'``.
        version: Of dwnet.
    """
    task: str
    labels: tuple[str, ...] = ()
    palette: tuple[tuple[int, ...], ...] = ()
    outputs: dict[str, str] = field(default_factory=dict)
    normalisation: dict[str, Any] = field(default_factory=dict)
    resizing: tuple[dict, ...] = ()
    precision: str = 'float32'
    version: str = __version__

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str, file: str) -> 'Record':
        """The record that ``file`` holds as ``text``.

        Raises:
            UserError: If ``text`` is no such record.
        """
        try:
            known = {part.name for part in dataclasses.fields(cls)}
            content = {name: value for name, value in json.loads(text).items() if name in known}
            for name in ('labels', 'palette', 'resizing'):
                content[name] = tuple(content.get(name, ()))
            return cls(**content)
        except (ValueError, TypeError, AttributeError) as error:
            raise UserError(f'{file} has a record that cannot be read; export the model again') from error
