"""mmpretrain's accuracy and average precision, which also score each class."""
import torch
from mmengine.registry import METRICS
from mmpretrain.evaluation import Accuracy, AveragePrecision, SingleLabelMetric


@METRICS.register_module()
class AccuracyOfClasses(Accuracy):
    """mmpretrain's ``Accuracy``. The recall and the precision of each class are those of ``SingleLabelMetric``.

    Attributes:
        of_classes: See :meth:`dwnet.toolboxes.base.Toolbox.class_scores`.
    """
    of_classes: dict[str, list]

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        metrics = super().compute_metrics(results)
        true = torch.cat([result['gt_label'] for result in results])
        if 'pred_score' in results[0]:
            predicted = torch.stack([result['pred_score'] for result in results]).argmax(1)
        else:
            predicted = torch.cat([result['pred_label'] for result in results])
        true, predicted = true[true >= 0], predicted[true >= 0]  # images without a label
        names = list((self.dataset_meta or {}).get('classes') or ())
        # the data may have, and the model may predict, more classes than are named
        number = max(1, len(names), *(int(labels.max(initial=-1)) + 1 for labels in (true.numpy(), predicted.numpy())))
        names += map(str, range(len(names), number))
        precision, recall, *_ = SingleLabelMetric.calculate(predicted, true, num_classes=number, average=None)
        images = torch.bincount(true, minlength=number)
        recall[images == 0] = torch.nan
        precision[(images == 0) & (torch.bincount(predicted, minlength=number) == 0)] = torch.nan
        scores = dict(recall=recall, precision=precision)
        self.of_classes = {'class': names, 'images': images.tolist(), **{
            name: values.double().numpy().round(2).tolist() for name, values in scores.items()}}
        return metrics


@METRICS.register_module()
class AveragePrecisionOfClasses(AveragePrecision):
    """mmpretrain's ``AveragePrecision`` of several labels an image; a class without an image counts as 0 in the mean.

    Attributes:
        of_classes: See :meth:`dwnet.toolboxes.base.Toolbox.class_scores`.
    """
    of_classes: dict[str, list]

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        scores, truth = (torch.stack([result[key] for result in results]) for key in ('pred_score', 'gt_score'))
        images, precision = (truth > 0).sum(0), self.calculate(scores, truth, average=None)
        names = list((self.dataset_meta or {}).get('classes') or range(len(images)))
        precision[images == 0] = torch.nan
        self.of_classes = {'class': names, 'images': images.tolist(),
                           'AP': precision.double().numpy().round(2).tolist()}
        return super().compute_metrics(results)
