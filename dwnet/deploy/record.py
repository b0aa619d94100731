"""What an exported file says of itself: the task, the names of the classes, and what the graph does to images.

The record makes a file usable without its config. It is one JSON object under the key ``dwnet``: in the metadata of an
ONNX file, and in the runtime information of an OpenVINO file.
"""
import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from mmengine.config import Config
from torch import nn

from dwnet.errors import UserError
from dwnet.toolboxes import toolbox_of_model
from dwnet.toolboxes.base import innermost
from dwnet.toolboxes.graphs import Backbone, image_channels
from dwnet.toolboxes.pixels import has_own_range
from dwnet.version import __version__

KEY = 'dwnet'
# Output of a graph → what it holds
MEANINGS = {
    'boxes': 'x1, y1, x2, y2 of each object, pixels of the given image, (N, 4)',
    'scores': 'of each object, best first, (N,)',
    'labels': 'number of the class of each object, from 0, (N,)',
    'masks': 'probability of the object at each cell of its box, (N, 28, 28)',
    'image_masks': 'probability of the object at each pixel of the image, (N, height, width)',
    'panoptic': 'class + 1000 × number of the object at each pixel, (height, width); nothing: number of classes',
}


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

    @classmethod
    def of(cls, model: nn.Module, graph: nn.Module, precision: str = 'float32') -> 'Record':
        """The record for the file of a graph.

        Args:
            model: A model of :func:`dwnet.apis.init_model`; without ``cfg`` and ``dataset_meta`` less is known of it.
            graph: What is exported of the model.
            precision: Of most weights.
        """
        cfg, meta = getattr(model, 'cfg', None), getattr(model, 'dataset_meta', None) or {}
        features = isinstance(graph, Backbone)
        colours = [] if features else meta.get('palette') or []
        return cls(
            task='features' if features else toolbox_of_model(model).task,
            labels=() if features else tuple(map(str, meta.get('classes') or ())),
            palette=tuple(tuple(map(int, colour)) for colour in colours if not isinstance(colour, str)),
            outputs={name: MEANINGS.get(name) or _meaning(name, axes) for name, axes in graph.axes.items()},
            normalisation=_normalisation(graph.normalise, image_channels(model), has_own_range(cfg)),
            resizing=_resizing(cfg),
            precision=precision)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    def entries(self) -> dict[str, str]:
        """What an exported file keeps as key and text: the whole record, and parts of it for scripts of others."""
        parts = {name: json.dumps(getattr(self, name)) for name in ('labels', 'normalisation')}
        return {KEY: self.to_json(), 'task': self.task, **parts}

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
            content['palette'] = tuple(map(tuple, content['palette']))
            return cls(**content)
        except (ValueError, TypeError, AttributeError) as error:
            raise UserError(f'{file} has a record that cannot be read; export the model again') from error


def _meaning(name: str, axes: dict[int, str]) -> str:
    if name != 'logits':
        return f'feature map, (batch, channels, {axes.get(2)}, {axes.get(3)})'
    return 'before the softmax, ' + ('(batch, classes, height, width)' if 2 in axes else '(batch, classes)')


def _normalisation(normalise: nn.Module, channels: int, own_range: bool) -> dict[str, Any]:
    """What a graph does to its input."""
    order = {1: 'grey', 3: 'RGB'}.get(channels, f'{channels} channels in the order of the files')
    mean, std = (values.flatten().tolist() for values in (normalise.mean, normalise.std))
    if normalise.to_bgr:  # the record speaks of the input's channels
        mean, std = mean[::-1], std[::-1]
    return dict(input=f"{order}, float32, {'values as in the files' if own_range else '0 to 255'}", mean=mean, std=std,
                padded_to=normalise.divisor)


def _resizing(cfg: Config | None) -> tuple[dict, ...]:
    """The steps of a config's test pipeline between reading and packing, as what JSON can hold."""
    try:
        steps = innermost((cfg or {})['test_dataloader']['dataset'])['pipeline']
    except (KeyError, TypeError, UserError):  # no data, or several data sets
        return ()
    steps = [step for step in steps if not str(step.get('type')).rpartition('.')[2].startswith(
        ('Load', 'Inferencer', 'Pack'))]
    return tuple(json.loads(json.dumps(steps, default=str)))
