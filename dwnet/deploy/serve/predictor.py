"""One model behind many requests: predictions one after the other, the last of them kept."""
import base64
import hashlib
import io
import tempfile
import threading
from collections import OrderedDict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from dwnet.data.decoding import size_of
from dwnet.deploy.inference import as_input, frames_of, predict, read_images
from dwnet.deploy.writing import Writer
from dwnet.errors import UserError, one_line
from dwnet.inspect import cam, kernels
from dwnet.inspect.samples import as_picture, draw, make_visualizer, scaled, takes_threshold, to_picture
from dwnet.models import DWNet
from dwnet.registry import TOKEN_MIXERS
from dwnet.toolboxes import toolbox_of_model
from dwnet.toolboxes.pixels import has_own_range

from .limits import Limits, Refusal

SIDE = 1280  # pixels; larger pictures are drawn at this size
KEPT = 8  # predictions whose threshold can be changed without a new one


class Prediction(NamedTuple):
    """What a model says of an image.

    Attributes:
        entry: As in the ``predictions.json`` of ``tools/infer.py``, less the names of files; label images are data
            addresses.
        picture: The image, (H, W, 3), uint8, RGB, with :data:`SIDE` pixels at most.
        sample: The toolbox's data sample, in the pixels of the picture.
    """
    entry: dict
    picture: np.ndarray
    sample: Any


class Predictor:
    """Predicts, draws and explains images; safe for threads.

    Args:
        inferencer: From :func:`dwnet.apis.inferencer`.
        limits: What is allowed.

    Attributes:
        task: ``Toolbox.task``.
        names: The names of the classes.
        palette: A colour for each class.
        takes_threshold: Whether a threshold changes the pictures.
        shows_cam: Whether there is a class activation to draw.
        mixer: The token mixer, if its kernels depend on the image; otherwise None.
    """

    def __init__(self, inferencer: Any, limits: Limits) -> None:
        model = inferencer.model
        toolbox = toolbox_of_model(model)
        if toolbox.takes_videos:
            raise UserError('the page shows images, and this model predicts videos: take tools/infer.py')
        self.model, self.limits, self.task = model, limits, toolbox.task
        self.names = list(model.dataset_meta.get('classes', ()))
        self.palette = list(model.dataset_meta.get('palette', ()))
        self._inferencer = inferencer
        self._stretch = has_own_range(model.cfg)
        self._visualizer = make_visualizer(model.cfg, model.dataset_meta, 'serve')
        self.takes_threshold = takes_threshold(self._visualizer)
        backbone = next((module for module in model.modules() if isinstance(module, DWNet)), None)
        self.shows_cam = backbone is not None and find_spec('pytorch_grad_cam') is not None
        self.mixer = backbone and _mixer_that_predicts(backbone)
        self._lock, self._waiting = threading.Lock(), threading.BoundedSemaphore(limits.queue)
        self._kept: OrderedDict[str, Prediction] = OrderedDict()

    def predict(self, file: Path) -> Prediction:
        """The prediction for an image file.

        Raises:
            Refusal: If the file is no image that the model takes, or too many requests are waiting.
        """
        self.check(file)
        key = hashlib.sha256(file.read_bytes()).hexdigest()
        if not self._waiting.acquire(blocking=False):
            raise Refusal(503, f'{self.limits.queue} requests are waiting already: try again later')
        try:
            with self._lock:
                if key not in self._kept:
                    self._kept[key] = self._predict(file)
                self._kept.move_to_end(key)
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
                return self._kept[key]
        finally:
            self._waiting.release()

    def check(self, file: Path) -> None:
        """Reads the header of a file.

        Raises:
            Refusal: If the file is empty, too large, unpacks to too many pixels, or is no image.
        """
        size = file.stat().st_size
        if not size:
            raise Refusal(422, 'the file is empty')
        if size > self.limits.bytes:
            raise Refusal(413, f'the file is too large: this server takes {self.limits.megabytes:g} MB')
        try:
            shape = size_of(file)
            if shape is None:
                with Image.open(file) as image:
                    shape = image.size
        except Image.DecompressionBombError as error:
            raise self._too_many_pixels() from error
        except Exception as error:  # Pillow and tifffile raise many kinds
            raise Refusal(422, 'the file is no image, or its header is damaged') from error
        if shape[0] * shape[1] > self.limits.pixels:
            raise self._too_many_pixels()

    def _too_many_pixels(self) -> Refusal:
        return Refusal(413, f'the image is too large: this server takes {self.limits.megapixels:g} million pixels')

    def _predict(self, file: Path) -> Prediction:
        image = self._read(file)
        try:
            sample, = predict(self._inferencer, [image])
        except Exception as error:  # the steps of a pipeline and the layers of a model may raise anything
            raise Refusal(422, f'{image.shape[1]}×{image.shape[0]} pixels cannot be resized or predicted') from error
        with tempfile.TemporaryDirectory() as folder:
            writer = Writer(self._inferencer, [file], Path(folder), 0, pictures=False)
            entry = frames_of(file) | writer.write(file, image, sample)
            for name in ('labels', 'panoptic'):
                if name in entry:
                    entry[name] = _address_of(Path(folder, entry[name]).read_bytes())
        picture = as_picture(image, self._stretch)
        factor = min(1, SIDE / max(picture.shape[:2]))
        if factor < 1:
            height, width = (max(1, round(side * factor)) for side in picture.shape[:2])
            picture = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))
            sample = scaled(sample, factor, (height, width))
        return Prediction(entry, picture, sample)

    def _read(self, file: Path) -> np.ndarray:
        left_out: dict[str, str] = {}
        for _, image in read_images(self.model, [file], left_out):
            return image
        raise Refusal(422, f'the file is not taken: {left_out[str(file)]}')

    def draw(self, prediction: Prediction, threshold: float) -> np.ndarray:
        """The picture with the prediction, (H, W, 3), uint8, RGB; objects of a lower score are not drawn."""
        with self._lock:
            return draw(self._visualizer, prediction.picture, prediction.sample, False, threshold)

    def explain(self, file: Path) -> tuple[list[tuple[np.ndarray, str]], np.ndarray | None]:
        """Where the network looks, and the kernels that it predicts for the image.

        Returns:
            Pictures with captions, one for each stage, which are none without Grad-CAM; and a picture of the kernels,
            or None if they do not depend on the image.

        Raises:
            Refusal: If the file is no image that the model takes.
        """
        self.check(file)
        image = self._read(file)
        maps, found = [], None
        with self._lock:
            try:
                inputs = as_input(self._inferencer, image)
                picture = to_picture(inputs[0], self.model.data_preprocessor, self._stretch)
                if self.shows_cam:
                    heats, shown = cam.class_activation(self.model, inputs)
                    of_class = '' if shown is None else f': class {dict(enumerate(self.names)).get(shown, shown)}'
                    maps = [(_large(cam.lay_over(picture, heat)), f'stage {stage + 1}{of_class}')
                            for stage, heat in enumerate(heats.values())]
                if self.mixer:
                    drawn = kernels.plot([kernels.kernels(self.model, inputs)], [picture], ['image'], self.mixer)
                    found = _as_array(drawn)
            except UserError:
                raise
            except Exception as error:
                raise Refusal(422, f'this image cannot be explained ({one_line(error)[:200]})') from error
        return maps, found


def _mixer_that_predicts(backbone: DWNet) -> str | None:
    """The name of the token mixer, if it predicts its kernels from the image."""
    mixer = backbone.stages[-1].blocks[-1].mixer
    mixer = getattr(mixer, 'spatial', mixer)
    return next((name for name in ('dynamic', 'inhomogeneous') if isinstance(mixer, TOKEN_MIXERS.get(name))), None)


def _address_of(png: bytes) -> str:
    return f'data:image/png;base64,{base64.b64encode(png).decode()}'


def _large(picture: np.ndarray, least: int = 256) -> np.ndarray:
    """Enlarges small pictures by a whole number, so that browsers do not blur them."""
    return picture.repeat(factor := max(1, least // min(picture.shape[:2])), 0).repeat(factor, 1)


def _as_array(figure: Figure) -> np.ndarray:
    file = io.BytesIO()
    figure.savefig(file, format='png')
    return np.asarray(Image.open(file).convert('RGB'))
