"""Imported as ``mmcv._ext`` where mmcv is not compiled.

The functions have the names and arguments of mmcv 2.1.0's ``pybind.cpp``, and write into output tensors among the
arguments. ``mmcv.ops`` wraps the functions into modules and autograd functions, as it wraps the compiled ones.
The functions keep the conventions of the compiled operators (the order of ties, samples outside a map).

===================  ====================================================================
``boxes``            NMS and its variants, overlaps
``rois``             RoI align and pool, deformable RoI pool
``polygons``         overlaps of point sets and polygons, the smallest rectangle, points in polygons
``rotated``          overlaps and NMS of rotated boxes and quadrilaterals
``sorted_vertices``  the order of corners, for differentiable overlaps of rotated boxes
``rotated_rois``     RoI align of rotated regions
``deform``           deformable convolution (1 and 2), multi-scale deformable attention
``focal_loss``       sigmoid and softmax focal loss
``resampling``       masked convolution, CARAFE, PSA's masks
``sync_bn``          batch normalisation over several processes
``text``             text instances grown from kernels
``curves``           samples along boxes and Bézier curves
``shuffles``         active rotating filters, shifts of frames
``points``           chamfer distance, points in boxes, voxels
``precision``        casts 16-bit floats, which most PyTorch operators here do not take
===================  ====================================================================
"""
from collections.abc import Callable

from . import (
    boxes,
    curves,
    deform,
    focal_loss,
    points,
    polygons,
    resampling,
    rois,
    rotated,
    rotated_rois,
    shuffles,
    sorted_vertices,
    sync_bn,
    text,
)

COVERED: dict[str, Callable] = {function.__name__: function for function in (
    boxes.nms, boxes.softnms, boxes.nms_match, boxes.bbox_overlaps,
    rois.roi_align_forward, rois.roi_align_backward, rois.roi_pool_forward, rois.roi_pool_backward,
    rois.deform_roi_pool_forward, rois.deform_roi_pool_backward,
    rotated.box_iou_rotated, rotated.box_iou_quadri, rotated.nms_rotated, rotated.nms_quadri,
    sorted_vertices.diff_iou_rotated_sort_vertices_forward,
    rotated_rois.roi_align_rotated_forward, rotated_rois.roi_align_rotated_backward,
    rotated_rois.riroi_align_rotated_forward, rotated_rois.riroi_align_rotated_backward,
    polygons.convex_iou, polygons.convex_giou, polygons.min_area_polygons, polygons.points_in_polygons_forward,
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
    sync_bn.sync_bn_backward_param, sync_bn.sync_bn_backward_data,
    text.contour_expand, text.pixel_group,
    curves.rotated_feature_align_forward, curves.rotated_feature_align_backward,
    curves.border_align_forward, curves.border_align_backward,
    curves.bezier_align_forward, curves.bezier_align_backward,
    shuffles.active_rotated_filter_forward, shuffles.active_rotated_filter_backward,
    shuffles.tin_shift_forward, shuffles.tin_shift_backward,
    points.chamfer_distance_forward, points.chamfer_distance_backward,
    points.points_in_boxes_cpu_forward, points.points_in_boxes_part_forward, points.points_in_boxes_all_forward,
    points.dynamic_voxelize_forward, points.hard_voxelize_forward)}

globals().update(COVERED)


def get_compiler_version() -> str:
    """Called and reported by ``mmcv.utils.collect_env``."""
    return 'n/a'


def get_compiling_cuda_version() -> str:
    """Called and reported by ``mmcv.utils.collect_env``."""
    return 'n/a'


def __getattr__(name: str) -> Callable:
    """Gives every other operator a function that raises an error, so that ``mmcv.ops`` can be imported."""
    if name.startswith('__'):
        raise AttributeError(name)

    def operator(*args, **kwargs):
        raise NotImplementedError(
            f'mmcv operator {name} needs a compiled mmcv, and this one is mmcv-lite; get it by `pip '
            'uninstall mmcv-lite`, then `MMCV_WITH_OPS=1 pip install mmcv==2.1.0 --no-build-isolation` '
            '(10 minutes and a C++ compiler)')

    return operator
