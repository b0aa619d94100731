"""Models as ONNX files: of any batch and image size, with the normalisation inside, compared with PyTorch when written.

A file takes RGB images, (B, 3, H, W), float32 of 0 to 255, and holds stock operators of ONNX only, so it runs without
this project. It is the graph that torch.jit.trace records, in which :mod:`dwnet.ops` takes forms of stock operators.
"""
import copy
import io
import os
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from sklearn.datasets import load_sample_images
from torch import Tensor, nn

from dwnet.apis import switch_to_deploy
from dwnet.errors import UserError, one_line
from dwnet.models import DWNet
from dwnet.models.layers import pad_to_multiple

OPSET = 17  # the first with LayerNormalization
SIDE = 256  # of the image on which the strides of a backbone are measured
TOLERANCE = 1e-4  # of the largest value of an output, or of 1 where that is less
# (batch, height, width) of the images on which PyTorch and onnxruntime are compared
SHAPES = ((1, 224, 224), (2, 160, 256), (3, 131, 203))


class Normalise(nn.Module):
    """What a toolbox's data preprocessor does to pictures: RGB of 0 to 255 → what the network was trained on."""

    def __init__(self, preprocessor: nn.Module) -> None:
        super().__init__()
        # the toolboxes read BGR; mmdet and mmengine name the switch one way, mmseg and mmpretrain two others
        switches = ('_channel_conversion', 'channel_conversion', 'to_rgb')
        self.to_bgr = not any(getattr(preprocessor, switch, False) for switch in switches)
        mean, std = (getattr(preprocessor, name, None) for name in ('mean', 'std'))
        self.register_buffer('mean', torch.zeros(3, 1, 1) if mean is None else mean.clone())
        self.register_buffer('std', torch.ones(3, 1, 1) if std is None else std.clone())
        self.divisor = getattr(preprocessor, 'pad_size_divisor', 1)

    def forward(self, image: Tensor) -> Tensor:
        image = image.flip(1) if self.to_bgr else image
        image = (image - self.mean) / self.std
        return pad_to_multiple(image, self.divisor) if self.divisor > 1 else image


class Backbone(nn.Module):
    """The feature maps, one an output."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.normalise, self.backbone = Normalise(model.data_preprocessor), model.backbone
        with torch.no_grad():
            maps = model.backbone(torch.zeros(1, 3, SIDE, SIDE))
        strides = [f'stride{SIDE // x.shape[-1]}' for x in ([maps] if isinstance(maps, Tensor) else maps)]
        names = [name if name not in strides[:i] else f'{name}_{strides[:i].count(name) + 1}'
                 for i, name in enumerate(strides)]
        self.axes = {name: {0: 'batch', 2: f'{name}_height', 3: f'{name}_width'} for name in names}

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return self.backbone(self.normalise(image))


class Classifier(nn.Module):
    """Logits, (B, classes)."""
    axes = {'logits': {0: 'batch'}}

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.normalise, self.model = Normalise(model.data_preprocessor), model

    def forward(self, image: Tensor) -> Tensor:
        return self.model(self.normalise(image), mode='tensor')


class Segmentor(nn.Module):
    """Logits of each pixel, (B, classes, H, W), of the whole image, without sliding windows."""
    axes = {'logits': {0: 'batch', 2: 'height', 3: 'width'}}

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.normalise, self.model = Normalise(model.data_preprocessor), model
        for module in model.modules():
            for name, child in module.named_children():
                if isinstance(child, nn.AdaptiveAvgPool2d) and child.output_size not in (1, (1, 1)):
                    setattr(module, name, AdaptiveAvgPool(child.output_size))

    def forward(self, image: Tensor) -> Tensor:
        logits = self.model(self.normalise(image), mode='tensor')
        return F.interpolate(logits, image.shape[2:], mode='bilinear', align_corners=self.model.align_corners)


class AdaptiveAvgPool(nn.Module):
    """``nn.AdaptiveAvgPool2d`` as two matrix products, since ONNX has none for maps of any size."""

    def __init__(self, size: int | Sequence[int]) -> None:
        super().__init__()
        self.size = (size, size) if isinstance(size, int) else tuple(size)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (self._shares(cells, length) for cells, length in zip(self.size, x.shape[2:]))
        return rows @ x @ columns.t()

    @staticmethod
    def _shares(cells: int, length: int) -> Tensor:
        """(cells, length): what each position adds to each mean."""
        cell, position = torch.arange(cells)[:, None], torch.arange(length)
        first, last = cell * length // cells, ((cell + 1) * length + cells - 1) // cells
        return ((position >= first) & (position < last)).float() / (last - first).float()


def export_onnx(model: nn.Module, path: str | os.PathLike, backbone_only: bool = False) -> Path:
    """Writes a model as an ONNX file and compares what onnxruntime and PyTorch make of photographs.

    Args:
        model: A classifier, segmentor or detector of :func:`dwnet.apis.init_model`, on the CPU. It stays as it is;
            what is written is the model in eval mode.
        path: The file. It takes ``image``, (B, 3, H, W), RGB of 0 to 255 as float32, and gives ``logits``; of a
            backbone ``stride4`` … ``stride32``, or what its strides are; of a detector, whose B is 1, ``boxes``,
            ``scores``, ``labels`` and ``masks``.
        backbone_only: Leave out neck and heads.

    Returns:
        The path.

    Raises:
        UserError: If the model has parts that ONNX or this function has no form for, or if the outputs differ by more
            than 1e-4 of the largest, or the file cannot be written; there is none then.

    Example:
        >>> from dwnet.apis import init_model
        >>> from dwnet.export import export_onnx
        >>> export_onnx(init_model('configs/classification/dwnet-tiny_in1k.py'), 'dwnet-tiny.onnx')
    """
    reference = copy.deepcopy(model).eval()
    model = copy.deepcopy(reference)
    if any(isinstance(module, DWNet) for module in model.modules()):
        switch_to_deploy(model)
    path = Path(path)
    unfinished, trial = (path.with_name(f'.{path.name}.{state}') for state in ('unfinished', 'trial'))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        graph = _graph_of(model, backbone_only)
        _write(graph, unfinished)
        if not _compare(unfinished, graph, reference, backbone_only):  # no box to compare: the same graph with boxes
            graph.find_more(reference, [_pictures(_photographs(1, *size))[0] for _, *size in SHAPES])
            _write(graph, trial)
            if not _compare(trial, graph, reference, backbone_only):
                raise UserError(f'{type(reference).__name__} finds nothing on photographs, whatever the threshold, so '
                                'the file cannot be tried out; are the weights whole?')
        return unfinished.rename(path)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f'{path} cannot be written: {error.strerror}') from error
    except Exception as error:  # whatever a head of any toolbox does that ONNX cannot
        raise UserError(f'{type(reference).__name__} cannot be written as ONNX ({one_line(error)[:300]}); its '
                        'backbone alone can, by --backbone') from error
    finally:
        for file in (unfinished, trial):
            with suppress(OSError):
                file.unlink()


def _write(graph: nn.Module, path: Path) -> None:
    batch = getattr(graph, 'batch', None)  # None: any
    axes = {2: 'height', 3: 'width'} | ({0: 'batch'} if batch is None else {})
    # it warns of every number that stays one, and prints the whole graph where it fails
    with torch.no_grad(), warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter('ignore')
        torch.onnx.export(
            graph, (_photographs(batch or 2, 160, 224), ), str(path), dynamo=False, opset_version=OPSET,
            input_names=['image'], output_names=list(graph.axes), dynamic_axes={'image': axes} | graph.axes)


def _graph_of(model: nn.Module, backbone_only: bool) -> nn.Module:
    if backbone_only:
        return Backbone(model)
    if hasattr(model, 'roi_head') and model.with_rpn:
        from .export_detection import TwoStageDetector
        return TwoStageDetector(model)
    if hasattr(model, 'decode_head'):
        return Segmentor(model)
    if getattr(model, 'with_head', False):
        return Classifier(model)
    raise UserError(f'{type(model).__name__} cannot be written as ONNX: only classifiers, segmentors and detectors '
                    'with an RPN and RoI heads can; its backbone alone can, by --backbone')


def _photographs(batch: int, height: int, width: int) -> Tensor:
    """scikit-learn's two, whole and mirrored: (B, 3, H, W), RGB of 0 to 255, whole numbers."""
    pictures = [picture for whole in load_sample_images().images for picture in (whole, whole[:, ::-1])]
    resized = [cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA) for picture in pictures[:batch]]
    return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float()


def _pictures(images: Tensor) -> list[Tensor]:
    """As the toolboxes take them: (3, H, W), BGR, uint8."""
    return list(images.flip(1).byte())


def _compare(path: Path, graph: nn.Module, reference: nn.Module, backbone_only: bool) -> bool:
    """The file in onnxruntime against the model as it was, behind its own preprocessor.

    Returns:
        Whether there was something to compare on every photograph: a detector may find nothing.

    Raises:
        UserError: If they differ.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError("onnxruntime is missing, which tries out the file: pip install 'dwnet[export]'") from error
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    compared = True
    for batch, height, width in SHAPES:
        images = _photographs(getattr(graph, 'batch', batch), height, width)
        outputs = [torch.from_numpy(array) for array in session.run(None, {'image': images.numpy()})]
        with torch.no_grad():
            expected = _reference(reference, graph, images, backbone_only)
        for name, ours, theirs in zip(graph.axes, outputs, expected, strict=True):
            fits = ours.shape == theirs.shape
            error = float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1)) if fits and ours.numel() else 0
            if not fits or not error <= TOLERANCE:
                how = f'by {error:.1e} of the largest value' if fits else f'{tuple(ours.shape)}, {tuple(theirs.shape)}'
                raise UserError(f'onnxruntime and PyTorch disagree on {name} for images of {tuple(images.shape)}: '
                                f'{how}; no file was written')
            compared &= ours.numel() > 0
    return compared


def _reference(model: nn.Module, graph: nn.Module, images: Tensor, backbone_only: bool) -> Sequence[Tensor]:
    """What the toolbox's own model gives for the same images, which it takes as BGR."""
    pictures = _pictures(images)
    if backbone_only:
        maps = model.backbone(model.data_preprocessor(dict(inputs=pictures), False)['inputs'])
        return [maps] if isinstance(maps, Tensor) else maps
    if hasattr(graph, 'reference'):
        return graph.reference(model, pictures)
    if isinstance(graph, Classifier):
        return [model(model.data_preprocessor(dict(inputs=pictures), False)['inputs'], mode='tensor')]
    from mmseg.structures import SegDataSample
    shape = tuple(images.shape[2:])
    samples = [SegDataSample(metainfo=dict(ori_shape=shape, img_shape=shape)) for _ in pictures]
    model.test_cfg = ConfigDict(mode='whole')
    return [torch.stack([s.seg_logits.data for s in model.test_step(dict(inputs=pictures, data_samples=samples))])]
