"""Validates segmentors in memory that does not grow with the number of classes × pixels.

mmseg resizes an image's logits, one map a class, to the network's input size and then to the image's size, keeps the
resized logits in the result, and moves the counts to the CPU image by image (mmsegmentation#2015, #2108). For 150
classes and 2000×1500 pixels the logits take 1.8 GB, and as much again during the resizing. A score only needs the best
class of each pixel. So this module resizes a few classes at a time and remembers the best class so far. The result is
exact, since interpolation never mixes classes. Pairs of prediction and ground truth are counted on the prediction's
device.
"""
import types
from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmengine.registry import METRICS
from mmengine.structures import PixelData
from mmseg.evaluation.metrics import IoUMetric
from mmseg.models import BaseSegmentor, EncoderDecoder
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from mmseg.structures import SegDataSample
from torch import Tensor, nn

# Maps resized at a time; at least as many as a SIMD vector holds, so that all classes are computed alike
_CLASSES_AT_A_TIME = 16
_COLUMNS = {'Acc': 'recall', 'Recall': 'recall', 'Precision': 'precision'}  # mmseg's name of a score → ours


def make_lean(model: nn.Module) -> None:
    """Makes a segmentor keep no logits, if its class computes results as mmseg's base classes do.

    mmseg has no setting for it, so methods of this model object are replaced: ``postprocess_result``, and, if whole
    images go through an ordinary head, ``decode_head.predict_by_feat``.
    """
    if not isinstance(model, BaseSegmentor) or type(model).postprocess_result is not BaseSegmentor.postprocess_result:
        return
    model.postprocess_result = types.MethodType(_postprocess_result, model)
    head = getattr(model, 'decode_head', None)
    whole = (model.test_cfg or {}).get('mode', 'whole') == 'whole'
    if (whole and isinstance(head, BaseDecodeHead) and isinstance(model, EncoderDecoder)
            and type(model).predict is EncoderDecoder.predict
            and type(model).encode_decode is EncoderDecoder.encode_decode
            and type(head).predict is BaseDecodeHead.predict
            and type(head).predict_by_feat is BaseDecodeHead.predict_by_feat):
        head.predict_by_feat = types.MethodType(_predict_by_feat, head)


class _Unresized(NamedTuple):
    """Logits of a head, (B, C, h, w), and the size to which mmseg's ``predict_by_feat`` would resize them."""
    logits: Tensor
    size: tuple[int, int]


def _predict_by_feat(self: BaseDecodeHead, seg_logits: Tensor, batch_img_metas: list[dict]) -> _Unresized:
    meta = batch_img_metas[0]
    return _Unresized(seg_logits, tuple(meta['pad_shape' if 'pad_shape' in meta else 'img_shape'][:2]))


def _postprocess_result(self: BaseSegmentor, seg_logits: Tensor | _Unresized,
                        data_samples: list[SegDataSample] | None = None) -> list[SegDataSample]:
    """mmseg's, without ``seg_logits``: ``pred_sem_seg``, (1, H, W), int64; a head with one output gives 0. and 1."""
    if not isinstance(seg_logits, _Unresized):
        seg_logits = _Unresized(seg_logits, tuple(seg_logits.shape[-2:]))
    of_image = data_samples is not None
    data_samples = data_samples or [SegDataSample() for _ in seg_logits.logits]
    for logits, sample in zip(seg_logits.logits, data_samples):
        to_image = _ToImage(sample.metainfo if of_image else None, seg_logits.size, self.align_corners)
        if len(logits) == 1:
            prediction = to_image(logits).sigmoid()
            prediction = (prediction > self.decode_head.threshold).to(prediction)
        else:
            prediction = _best_class(logits, to_image)
        sample.set_data(dict(pred_sem_seg=PixelData(data=prediction)))
    return data_samples


class _ToImage:
    """What mmseg does to the logits of an image, class by class: resize, crop the padding, mirror back, resize."""

    def __init__(self, meta: dict | None, size: tuple[int, int], align_corners: bool) -> None:
        self.meta, self.size, self.align_corners = meta, size, align_corners

    def __call__(self, logits: Tensor) -> Tensor:
        """(C, h, w) → (C, H, W)."""
        x, meta = self._resized(logits[None], self.size), self.meta
        if meta is not None:
            left, right, top, bottom = meta.get('img_padding_size', meta.get('padding_size', [0] * 4))
            x = x[:, :, top:x.shape[2] - bottom, left:x.shape[3] - right]
            if meta.get('flip'):
                x = x.flip(dims=(3 if meta['flip_direction'] == 'horizontal' else 2, ))
            x = self._resized(x, meta['ori_shape'])
        return x[0]

    def _resized(self, x: Tensor, size: Sequence[int]) -> Tensor:
        if x.shape[-2:] == tuple(size):
            return x
        return resize(x, size=tuple(size), mode='bilinear', align_corners=self.align_corners, warning=False)


def _best_class(logits: Tensor, to_image: _ToImage) -> Tensor:
    """The class with the largest resized logit at each pixel, (1, H, W); of equal ones the first, as in ``argmax``."""
    best = index = None
    for first in range(0, len(logits), _CLASSES_AT_A_TIME):
        largest, where = to_image(logits[first:first + _CLASSES_AT_A_TIME]).max(dim=0, keepdim=True)
        if best is None:
            best, index = largest, where
        else:
            better = largest > best
            best = torch.where(better, largest, best)
            index = torch.where(better, where + first, index)
    return index


@METRICS.register_module(name='LeanIoUMetric')
class LeanIoUMetric(IoUMetric):
    """mmseg's ``IoUMetric``, counted in one pass over each image on the device, and moved to the CPU at the end.

    The counts are integers. mmseg counts in float32, which cannot tell 16,777,217 pixels from 16,777,216.

    Attributes:
        of_classes: See :meth:`dwnet.toolboxes.base.Toolbox.class_scores`. The scores are those of mmseg's table.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.of_classes: dict[str, list] = {}

    @staticmethod
    def intersect_and_union(pred_label: Tensor, label: Tensor, num_classes: int, ignore_index: int) -> Tensor:
        """Pixels of each class, (4, classes): in both, in either one, predicted, and in truth."""
        valid, number = label != ignore_index, num_classes + 1

        def known(labels: Tensor) -> Tensor:  # a head may have more classes: they count as one extra class
            return torch.where((labels >= 0) & (labels < num_classes), labels.long(), num_classes)

        pairs = known(label[valid]) * number + known(pred_label[valid])
        confusion = torch.bincount(pairs, minlength=number**2).view(number, number)
        both, predicted, true = confusion.diagonal()[:-1], confusion.sum(0)[:-1], confusion.sum(1)[:-1]
        return torch.stack([both, predicted + true - both, predicted, true])

    def evaluate(self, size: int) -> dict[str, float]:
        if self.results:
            self.results = list(torch.stack(self.results).cpu())
        return super().evaluate(size)

    def compute_metrics(self, results: list[Tensor]) -> dict[str, float]:
        if not self.format_only:
            counts = torch.stack(results)
            scores = self.total_area_to_metrics(*counts.sum(0).double(), self.metrics, self.nan_to_num, self.beta)
            del scores['aAcc']  # of all classes together
            self.of_classes = {
                'class': list(self.dataset_meta['classes']), 'images': (counts[:, 3] > 0).sum(0).tolist(),
                **{_COLUMNS.get(name, name): (100 * values).round(2).tolist() for name, values in scores.items()}}
        return super().compute_metrics([tuple(areas.double()) for areas in results])
