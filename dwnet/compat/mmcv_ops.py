"""A stand-in for ``mmcv._ext``, mmcv's compiled operators, made of torchvision's operators.

mmdet and mmseg import ``mmcv.ops`` whether they use it or not, and mmcv ships no compiled operators for
a current PyTorch (mmcv#3310, #3319, #3329, mmdetection#12426). With the stand-in they import, and what
the default models need runs: NMS and RoI align by average.

It does nothing where mmcv is compiled: its finder stands last on ``sys.meta_path``, so it is asked only
when nobody else has found ``mmcv._ext``.
"""
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

import torch
import torchvision  # noqa: F401  registers torch.ops.torchvision
from torch import Tensor

NAME = 'mmcv._ext'


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes that stay, best score first; see ``torchvision.ops.nms``.

    Args:
        boxes: (N, 4) as x1, y1, x2, y2.
        scores: (N,).
        iou_threshold: A box that overlaps a better one by more is dropped.
        offset: 1 if x2 and y2 lie inside the box (width = x2 - x1 + 1), else 0.
    """
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    return torch.ops.torchvision.nms(boxes, scores, iou_threshold)


def roi_align_forward(input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor,
                      aligned_height: int, aligned_width: int, spatial_scale: float,
                      sampling_ratio: int, pool_mode: int, aligned: bool) -> None:
    """Writes into ``output``, (N, C, h, w), what each of ``rois``, (N, 5), sees of ``input``, (B, C, H, W).

    ``pool_mode`` 1 is the average; 0, the maximum, is not covered.
    """
    if pool_mode != 1:
        raise _not_covered("roi_align_forward with pool_mode='max'")
    # in float32: torchvision has no bfloat16
    finite, lost = _split(rois.to(_wide(input).dtype))
    output.copy_(
        torch.ops.torchvision.roi_align(_wide(input), finite, spatial_scale, aligned_height, aligned_width,
                                        sampling_ratio, aligned))
    output.masked_fill_(lost, torch.nan)


def roi_align_backward(grad_output: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor,
                       grad_input: Tensor, aligned_height: int, aligned_width: int,
                       spatial_scale: float, sampling_ratio: int, pool_mode: int,
                       aligned: bool) -> None:
    """Writes into ``grad_input``, (B, C, H, W), the gradient of :func:`roi_align_forward`."""
    grad_output = _wide(grad_output)
    grad_input.copy_(
        torch.ops.torchvision._roi_align_backward(
            grad_output, _split(rois.to(grad_output.dtype))[0], spatial_scale, aligned_height, aligned_width,
            *grad_input.shape, sampling_ratio, aligned))


def _split(rois: Tensor) -> tuple[Tensor, Tensor]:
    """The regions with numbers in the place of NaN and infinity, which crash torchvision; and which had them."""
    return rois.nan_to_num(0, 0, 0), ~rois.isfinite().all(1)[:, None, None, None]


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def get_compiler_version() -> str:
    """Asked for by ``mmcv.utils.collect_env``, which reports it."""
    return 'n/a'


def get_compiling_cuda_version() -> str:
    """Asked for by ``mmcv.utils.collect_env``, which reports it."""
    return 'n/a'


COVERED: dict[str, Callable] = {f.__name__: f for f in (nms, roi_align_forward, roi_align_backward)}


def _not_covered(operator: str) -> NotImplementedError:
    return NotImplementedError(
        f'mmcv operator {operator} needs a compiled mmcv, and this one is mmcv-lite; get it by `pip '
        'uninstall mmcv-lite`, then `MMCV_WITH_OPS=1 pip install mmcv==2.1.0 --no-build-isolation` '
        '(10 minutes and a C++ compiler)')


class _StandIn(ModuleType):
    """Has every operator, so that ``mmcv.ops`` can be imported; only those of ``COVERED`` run."""

    def __getattr__(self, name: str) -> Callable:
        if name.startswith('__'):
            raise AttributeError(name)

        def operator(*args, **kwargs):
            raise _not_covered(name)

        reports = dict(get_compiler_version=get_compiler_version,
                       get_compiling_cuda_version=get_compiling_cuda_version)
        return (COVERED | reports).get(name, operator)


class _Finder(MetaPathFinder, Loader):
    """Finds ``mmcv._ext`` when nobody else does."""

    def find_spec(self, fullname: str, path: Sequence[str] | None,
                  target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(NAME, self) if fullname == NAME else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """The module is complete when it is made."""


def install() -> None:
    """Puts the finder last on ``sys.meta_path``; a second call does nothing."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())


def in_use() -> bool:
    """Whether ``mmcv._ext`` is, or would be, this stand-in."""
    spec = importlib.util.find_spec(NAME)
    return spec is not None and isinstance(spec.loader, _Finder)
