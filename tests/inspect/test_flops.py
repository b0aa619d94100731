"""Counting transformer heads: the products are not computed, and the counts are those of a computed run."""
import pytest
import torch
from conftest import read_config
from mmengine.registry import MODELS
from mmengine.structures import BaseDataElement
from torch.utils.flop_counter import FlopCounterMode

from dwnet.inspect.flops import count

SMALL = dict(embed_dims=96, depths=(1, 1, 1, 1))


@pytest.mark.parametrize('config', [
    'detection/dino-4scale_dwnet-tiny_12e_coco', 'detection/mask2former_dwnet-tiny_lsj-50e_coco',
    pytest.param('segmentation/mask2former_dwnet-tiny_160k_ade20k-512x512', marks=pytest.mark.long)])
def test_a_transformer_counts_as_when_it_is_computed(config):
    shape = (192, 320)  # DINO chooses 900 of the cells
    cfg = read_config(f'configs/{config}.py')
    cfg.model.backbone.arch = SMALL
    parts = {part.name: part for part in count(cfg, shape)}
    cfg.model.backbone.update(norm_cfg=dict(type='BN'), out_norm_cfg=dict(type='BN'))
    model = MODELS.build(cfg.model).eval()
    sample = BaseDataElement(metainfo=dict(img_shape=shape, batch_input_shape=shape, ori_shape=shape))
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            maps = model.extract_feat(torch.rand(1, 3, *shape))
            with FlopCounterMode(display=False) as counter:
                if hasattr(model, 'forward_transformer'):
                    model.bbox_head(**model.forward_transformer(maps, [sample]))
                else:
                    getattr(model, 'panoptic_head', getattr(model, 'decode_head', None))(maps, [sample])
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    assert parts['transformer and head'].macs == counter.get_total_flops() // 2 > 1e9
    assert sum(part.parameters for part in parts.values()) == sum(p.numel() for p in model.parameters())
