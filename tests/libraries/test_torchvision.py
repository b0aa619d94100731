"""DWNet under torchvision's Faster R-CNN, as docs/libraries.md builds it."""
from collections import OrderedDict

import timm
import torch
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool


class Pyramid(nn.Module):
    """The maps of DWNet through a feature pyramid."""

    def __init__(self, out_channels: int = 64) -> None:
        super().__init__()
        self.body = timm.create_model('dwnet_tiny', features_only=True)
        self.fpn = FeaturePyramidNetwork(self.body.feature_info.channels(), out_channels, LastLevelMaxPool())
        self.out_channels = out_channels

    def forward(self, x: torch.Tensor) -> OrderedDict[str, torch.Tensor]:
        return self.fpn(OrderedDict((str(i), m) for i, m in enumerate(self.body(x))))


def test_faster_rcnn():
    """Losses with a gradient in the first layer, and boxes within the image."""
    anchors = AnchorGenerator(((16, ), (32, ), (64, ), (128, ), (256, )), ((.5, 1., 2.), ) * 5)
    model = FasterRCNN(Pyramid(), num_classes=3, rpn_anchor_generator=anchors, min_size=96, max_size=128)
    images = [torch.rand(3, 96, 96), torch.rand(3, 80, 100)]
    truth = [dict(boxes=torch.tensor([[10., 10., 60., 50.]]), labels=torch.tensor([1])) for _ in images]
    losses = model(images, truth)
    assert set(losses) == {'loss_classifier', 'loss_box_reg', 'loss_objectness', 'loss_rpn_box_reg'}
    sum(losses.values()).backward()
    gradient = model.backbone.body.model.patch_embed.proj.weight.grad
    assert gradient.isfinite().all() and gradient.abs().sum() > 0
    model.roi_heads.score_thresh = 0.
    with torch.no_grad():
        for image, found in zip(images, model.eval()(images)):
            assert len(found['boxes']) == len(found['scores']) == len(found['labels']) > 0
            assert found['boxes'].min() >= 0 and (found['boxes'].amax(0)[2:] <= torch.tensor(image.shape[:0:-1])).all()
