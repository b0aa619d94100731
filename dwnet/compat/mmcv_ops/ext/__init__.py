"""What is imported as ``mmcv._ext`` where mmcv is not compiled.

The functions have the names and the arguments of mmcv 2.1.0's ``pybind.cpp``, and write into the tensors that
they are given for it. ``mmcv.ops`` wraps them into modules and autograd functions, as it does the compiled ones.
Where the compiled operator has its own convention (the order of ties, what lies outside a map), it is kept.

===================  ====================================================================
``boxes``            NMS in its forms, overlaps
``rois``             RoI align and pool, deformable RoI pool
``deform``           deformable convolution (1 and 2), multi-scale deformable attention
``focal_loss``       sigmoid and softmax focal loss
``resampling``       masked convolution, CARAFE, PSA's masks
``sync_bn``          batch normalisation over several processes
``precision``        16-bit floats, which most of the libraries' operators do not take
===================  ====================================================================
"""
from collections.abc import Callable

from . import boxes, deform, focal_loss, resampling, rois, sync_bn

COVERED: dict[str, Callable] = {function.__name__: function for function in (
    boxes.nms, boxes.softnms, boxes.nms_match, boxes.bbox_overlaps,
    rois.roi_align_forward, rois.roi_align_backward, rois.roi_pool_forward, rois.roi_pool_backward,
    rois.deform_roi_pool_forward, rois.deform_roi_pool_backward,
    deform.deform_conv_forward, deform.deform_conv_backward_input, deform.deform_conv_backward_parameters,
    deform.modulated_deform_conv_forward, deform.modulated_deform_conv_backward,
    deform.ms_deform_attn_forward, deform.ms_deform_attn_backward,
    focal_loss.sigmoid_focal_loss_forward, focal_loss.sigmoid_focal_loss_backward,
    focal_loss.softmax_focal_loss_forward, focal_loss.softmax_focal_loss_backward,
    resampling.masked_im2col_forward, resampling.masked_col2im_forward,
    resampling.carafe_forward, resampling.carafe_backward,
    resampling.carafe_naive_forward, resampling.carafe_naive_backward,
    resampling.psamask_forward, resampling.psamask_backward,
    sync_bn.sync_bn_forward_mean, sync_bn.sync_bn_forward_var, sync_bn.sync_bn_forward_output,
    sync_bn.sync_bn_backward_param, sync_bn.sync_bn_backward_data)}

globals().update(COVERED)


def get_compiler_version() -> str:
    """Asked for by ``mmcv.utils.collect_env``, which reports it."""
    return 'n/a'


def get_compiling_cuda_version() -> str:
    """Asked for by ``mmcv.utils.collect_env``, which reports it."""
    return 'n/a'


def __getattr__(name: str) -> Callable:
    """Every other operator is there, so that ``mmcv.ops`` can be imported, and says what it needs when called."""
    if name.startswith('__'):
        raise AttributeError(name)

    def operator(*args, **kwargs):
        raise NotImplementedError(
            f'mmcv operator {name} needs a compiled mmcv, and this one is mmcv-lite; get it by `pip '
            'uninstall mmcv-lite`, then `MMCV_WITH_OPS=1 pip install mmcv==2.1.0 --no-build-isolation` '
            '(10 minutes and a C++ compiler)')

    return operator
