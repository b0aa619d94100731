"""RGB weights in models for other channels: as timm adapts them, and only where a training starts."""
import pytest
import torch
from mmdet.models import ResNet
from mmengine.runner import load_checkpoint
from timm.models import adapt_input_conv
from torch import nn

from dwnet import DWNet
from dwnet.engine.distributed.sharding import shard
from dwnet.errors import UserError
from dwnet.weights.loading import load_backbone, load_pretrained, load_weights
from dwnet.weights.stem import adapted, rgb_weights_fit

NANO = dict(embed_dims=8, depths=(1, 1, 1, 1))
STEM = 'patch_embed.proj.weight'


@pytest.mark.parametrize('channels', [1, 2, 3, 4, 5, 7, 12])
def test_the_rule_is_timms(channels):
    weight = torch.randn(6, 3, 4, 4)
    torch.testing.assert_close(adapted(weight, channels), adapt_input_conv(channels, weight.clone()))


class Classifier(nn.Module):

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.backbone, self.head = DWNet(NANO, in_channels=channels, out_indices=3), nn.Linear(64, classes)


@pytest.mark.parametrize('channels', [1, 5])
def test_weights_to_start_from_fit_other_channels(channels, tmp_path, caplog):
    rgb = Classifier(3, 10)
    torch.save(rgb.state_dict(), tmp_path / 'rgb.pth')
    expected = adapt_input_conv(channels, rgb.backbone.state_dict()[STEM])
    model = Classifier(channels, 2)
    given = load_weights(model, rgb.state_dict(), 'rgb.pth', new_heads=True)
    torch.testing.assert_close(model.backbone.state_dict()[STEM], expected)
    torch.testing.assert_close(given[f'backbone.{STEM}'], expected)
    backbone = DWNet(NANO, in_channels=channels, out_indices=3)
    load_pretrained(backbone, str(tmp_path / 'rgb.pth'))
    assert all((backbone.state_dict()[name] == tensor).all()
               for name, tensor in rgb.backbone.state_dict().items() if name != STEM)
    torch.testing.assert_close(backbone.state_dict()[STEM], expected)
    backbone.init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'rgb.pth'))
    nn.init.zeros_(backbone.patch_embed.proj.weight)
    backbone.init_weights()
    torch.testing.assert_close(backbone.state_dict()[STEM], expected)


def test_weights_to_test_have_to_fit():
    """A test of RGB weights in a model for other channels would be another model's."""
    for given, own in ((3, 5), (5, 3)):
        with pytest.raises(UserError, match=f'{STEM}.*of another shape|of another shape.*{STEM}'):
            load_weights(Classifier(own, 10), Classifier(given, 10).state_dict(), 'x.pth')
    with pytest.raises(UserError, match='of another shape'):  # only RGB weights are adapted
        load_backbone(DWNet(NANO, out_indices=3), DWNet(NANO, in_channels=5, out_indices=3).state_dict(), 'x.pth')


def test_pretrained_backbones_of_the_toolboxes(tmp_path):
    rgb = ResNet(18)
    torch.save(dict(state_dict=rgb.state_dict()), tmp_path / 'rgb.pth')
    model = ResNet(18, in_channels=5, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'rgb.pth')))
    with rgb_weights_fit(model):
        model.init_weights()
    torch.testing.assert_close(model.conv1.weight, adapt_input_conv(5, rgb.conv1.weight))
    assert (model.layer4[0].conv1.weight == rgb.layer4[0].conv1.weight).all()
    nn.init.zeros_(model.conv1.weight)
    load_checkpoint(model, str(tmp_path / 'rgb.pth'))  # behind the context nothing is adapted
    assert not model.conv1.weight.any()


def test_a_sharded_backbone_gets_them_too(tmp_path):
    rgb = ResNet(18)
    torch.save(dict(state_dict=rgb.state_dict()), tmp_path / 'rgb.pth')
    model = ResNet(18, in_channels=5, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'rgb.pth')))
    torch.distributed.init_process_group('gloo', store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        weight = shard(model).state_dict()['conv1.weight']
    finally:
        torch.distributed.destroy_process_group()
    torch.testing.assert_close(weight, adapt_input_conv(5, rgb.conv1.weight), check_device=False)
