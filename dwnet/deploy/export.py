"""Writes models as ONNX files for any batch and image size, normalisation included, and compares them with PyTorch.

A file takes RGB images, (B, 3, H, W), float32 of 0 to 255, or what else the model is trained on, and holds only stock
operators of ONNX, so the file runs without this project. torch.jit.trace records the graph; :mod:`dwnet.ops` uses stock
operators while it records.
"""
import copy
import io
import os
import warnings
from contextlib import redirect_stdout, suppress
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from dwnet.errors import UserError, one_line, requires
from dwnet.models import DWNet
from dwnet.models.deploy import switch_to_deploy
from dwnet.toolboxes import toolbox_of_model
from dwnet.toolboxes.graphs import Backbone, image_channels
from dwnet.toolboxes.pixels import has_own_range

OPSET = 17  # the first opset with LayerNormalization
TOLERANCE = 1e-4  # relative to the largest value of an output, or to 1 if that is larger
# (batch, height, width) of the images for the comparison of PyTorch and onnxruntime
SHAPES = ((1, 224, 224), (2, 160, 256), (3, 131, 203))


def export_onnx(model: nn.Module, path: str | os.PathLike, backbone_only: bool = False) -> Path:
    """Writes a model as an ONNX file, and compares the outputs of onnxruntime and PyTorch on photographs.

    Args:
        model: A classifier, segmentor or detector of :func:`dwnet.apis.init_model`, on the CPU. The model is not
            changed; the file holds the model in eval mode.
        path: The file. Its input is ``image``, (B, 3, H, W), RGB of 0 to 255 as float32; for a model of images that are
            not 8-bit colour, (B, C, H, W) with the channels and values of the images' files. Its output is ``logits``;
            for a backbone ``stride4`` … ``stride32``, by its strides; for a detector, whose B is 1, ``boxes``,
            ``scores``, ``labels`` and ``masks``.
        backbone_only: Leave out neck and heads.

    Returns:
        The path.

    Raises:
        UserError: If ONNX or this function does not support a part of the model, the outputs differ by more than 1e-4
            of the largest value, or the file cannot be written. No file is left then.

    Example:
        >>> from dwnet.apis import init_model
        >>> from dwnet.deploy.export import export_onnx
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
        graph = Backbone(model) if backbone_only else toolbox_of_model(model).graph(model)
        photographs = _Photographs(model, graph)
        _write(graph, unfinished, photographs)
        if not _compare(unfinished, graph, reference, photographs):  # no boxes to compare: lower the threshold
            graph.find_more(reference, [photographs.as_read(photographs(1, *size))[0] for _, *size in SHAPES])
            _write(graph, trial, photographs)
            if not _compare(trial, graph, reference, photographs):
                raise UserError(f'{type(reference).__name__} finds nothing on photographs at any threshold, so the '
                                'file cannot be compared; check the weights')
        return unfinished.rename(path)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f'{path} cannot be written: {error.strerror}') from error
    except Exception as error:  # a head that ONNX does not support may raise anything
        raise UserError(f'{type(reference).__name__} cannot be written as ONNX ({one_line(error)[:300]}); its '
                        'backbone alone can, by --backbone') from error
    finally:
        for file in (unfinished, trial):
            with suppress(OSError):
                file.unlink()


def _write(graph: nn.Module, path: Path, photographs: '_Photographs') -> None:
    batch = getattr(graph, 'batch', None)  # None: any
    axes = {2: 'height', 3: 'width'} | ({0: 'batch'} if batch is None else {})
    # tracing warns of every number that becomes a constant, and prints the whole graph if it fails
    with torch.no_grad(), warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter('ignore')
        torch.onnx.export(
            graph, (photographs(batch or 2, 160, 224), ), str(path), dynamo=False, opset_version=OPSET,
            input_names=['image'], output_names=list(graph.axes), dynamic_axes={'image': axes} | graph.axes)


class _Photographs:
    """scikit-learn's two photographs, plain and mirrored, with the channels and values of a model's images."""

    def __init__(self, model: nn.Module, graph: nn.Module) -> None:
        self.channels = image_channels(model)
        self.usual = self.channels == 3 and not has_own_range(getattr(model, 'cfg', None))
        self.mean, self.std = graph.normalise.mean, graph.normalise.std

    def __call__(self, batch: int, height: int, width: int) -> Tensor:
        """(B, C, H, W); usually RGB of 0 to 255, whole numbers."""
        with requires('scikit-learn', 'export', 'trying out the file'):
            from sklearn.datasets import load_sample_images
        pictures = [picture for whole in load_sample_images().images for picture in (whole, whole[:, ::-1])]
        resized = [cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA) for picture in pictures[:batch]]
        images = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float()
        if self.usual:
            return images
        images = images[:, [i % 3 for i in range(self.channels)]]
        return self.mean + self.std * (images - 128) / 64

    def as_read(self, images: Tensor) -> list[Tensor]:
        """Converts images to the toolboxes' input, (C, H, W): colours are BGR, usually uint8."""
        images = images.flip(1) if self.channels == 3 else images
        return list(images.byte() if self.usual else images)


def _compare(path: Path, graph: nn.Module, reference: nn.Module, photographs: _Photographs) -> bool:
    """Compares the file in onnxruntime with the original model and its preprocessor.

    Returns:
        Whether every photograph had outputs to compare; a detector may find nothing.

    Raises:
        UserError: If the outputs differ.
    """
    with requires('onnxruntime', 'export', 'trying out the file'):
        import onnxruntime
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    compared = True
    for batch, height, width in SHAPES:
        images = photographs(getattr(graph, 'batch', batch), height, width)
        outputs = [torch.from_numpy(array) for array in session.run(None, {'image': images.numpy()})]
        with torch.no_grad():
            expected = graph.reference(reference, photographs.as_read(images))
        for name, ours, theirs in zip(graph.axes, outputs, expected, strict=True):
            fits = ours.shape == theirs.shape
            error = float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1)) if fits and ours.numel() else 0
            if not fits or not error <= TOLERANCE:
                how = f'by {error:.1e} of the largest value' if fits else f'{tuple(ours.shape)}, {tuple(theirs.shape)}'
                raise UserError(f'onnxruntime and PyTorch disagree on {name} for images of {tuple(images.shape)}: '
                                f'{how}; no file was written')
            compared &= ours.numel() > 0
    return compared
