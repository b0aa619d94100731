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
from mmengine.config import ConfigDict
from torch import Tensor, nn

from dwnet.errors import UserError, one_line, requires
from dwnet.models import DWNet
from dwnet.models.deploy import switch_to_deploy

from .graphs import Backbone, Classifier, Segmentor

OPSET = 17  # the first with LayerNormalization
TOLERANCE = 1e-4  # of the largest value of an output, or of 1 where that is less
# (batch, height, width) of the images on which PyTorch and onnxruntime are compared
SHAPES = ((1, 224, 224), (2, 160, 256), (3, 131, 203))


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
        from .detection_graph import TwoStageDetector
        return TwoStageDetector(model)
    if hasattr(model, 'decode_head'):
        return Segmentor(model)
    if getattr(model, 'with_head', False):
        return Classifier(model)
    raise UserError(f'{type(model).__name__} cannot be written as ONNX: only classifiers, segmentors and detectors '
                    'with an RPN and RoI heads can; its backbone alone can, by --backbone')


def _photographs(batch: int, height: int, width: int) -> Tensor:
    """scikit-learn's two, whole and mirrored: (B, 3, H, W), RGB of 0 to 255, whole numbers."""
    with requires('scikit-learn', 'export', 'trying out the file'):
        from sklearn.datasets import load_sample_images
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
    with requires('onnxruntime', 'export', 'trying out the file'):
        import onnxruntime
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
