"""Every config: builds, takes a training step on inputs of its shape family, and predicts."""
import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData, PixelData

from dwnet.models import DWNet

CONFIGS = sorted(str(p) for p in Path('configs').glob('*/*.py') if not p.parent.name.startswith('_'))
LONG = [c for c in CONFIGS if 'base' in c]


def params(configs):
    return [pytest.param(c, marks=[pytest.mark.long] * (c in LONG)) for c in configs]


def read(config: str) -> Config:
    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    __import__(f'{cfg.default_scope}.models')
    return cfg


def make_batch(cfg: Config, size: tuple[int, int]) -> dict:
    """Two random images with annotations, as the data loader of the config's toolbox collates them."""
    height, width = size
    inputs = [torch.randint(0, 256, (3, height, width), dtype=torch.uint8) for _ in range(2)]
    meta = dict(img_shape=size, ori_shape=size, scale_factor=(1., 1.), img_id=0, img_path='', pad_shape=size)
    samples = []
    for i in range(2):
        if cfg.default_scope == 'mmpretrain':
            from mmpretrain.structures import DataSample
            samples.append(DataSample(metainfo=meta).set_gt_label(i))
        elif cfg.default_scope == 'mmdet':
            from mmdet.structures import DetDataSample
            from mmdet.structures.mask import BitmapMasks
            masks = np.zeros((2, height, width), np.uint8)
            boxes = torch.tensor([[4., 6., width / 2, height / 2], [width / 3, height / 3, width - 3., height - 5.]])
            for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist()):
                mask[y1:y2, x1:x2] = 1
            sample = DetDataSample(metainfo=meta)
            sample.gt_instances = InstanceData(
                bboxes=boxes, labels=torch.tensor([i, 5]), masks=BitmapMasks(masks, height, width))
            samples.append(sample)
        else:
            from mmseg.structures import SegDataSample
            samples.append(SegDataSample(metainfo=meta, gt_sem_seg=PixelData(data=torch.randint(0, 9, (1, *size)))))
    return dict(inputs=inputs, data_samples=samples)


SIZES = dict(mmpretrain=(64, 64), mmdet=(96, 160), mmseg=(64, 64))


@pytest.mark.parametrize('config', params(CONFIGS))
def test_builds_trains_and_predicts(config, device):
    cfg = read(config)
    cfg.model.backbone.init_cfg = None  # the published weights are on the net
    cfg.model.backbone.drop_path_rate = 0.  # a dropped block has no gradient
    if cfg.default_scope == 'mmseg':
        cfg.model.data_preprocessor.size = SIZES['mmseg']
    model = revert_sync_batchnorm(MODELS.build(cfg.model)).to(device)
    model.init_weights()
    model.train()
    assert isinstance(model.backbone, DWNet)
    batch = make_batch(cfg, SIZES[cfg.default_scope])
    data = model.data_preprocessor(copy.deepcopy(batch), training=True)
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=.1)
    loss, _ = model.parse_losses(model(**data, mode='loss'))
    assert loss.isfinite()
    loss.backward()
    assert [n for n, p in model.backbone.named_parameters() if p.grad is None or not p.grad.any()] == []
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.)
    optimizer.step()
    assert sum(not torch.equal(a, b) for a, b in zip(before, model.parameters())) > len(before) / 2

    model.eval()
    height, width = SIZES[cfg.default_scope]
    odd = (height + 3, width - 5)
    with torch.no_grad():
        result = model.test_step(make_batch(cfg, odd))
    assert len(result) == 2
    if cfg.default_scope == 'mmpretrain':
        assert torch.allclose(result[0].pred_score.sum().cpu(), torch.tensor(1.))
    elif cfg.default_scope == 'mmdet':
        predicted = result[0].pred_instances
        assert predicted.masks.shape[1:] == odd and len(predicted.bboxes) == len(predicted.scores)
    else:
        assert result[0].pred_sem_seg.data.shape[1:] == odd


@pytest.mark.parametrize('config', CONFIGS)
def test_says_how_it_is_used(config):
    text = Path(config).read_text()
    assert text.startswith('"""') and config in text.split('"""')[1], 'the docstring gives its command'
    cfg = read(config)
    assert cfg.auto_scale_lr.base_batch_size > 0


RECIPES = {
    'classification/dwnet-tiny': dict(drop_path=.2, batch=1024, decay=.05, lr=1e-3, length=300),
    'classification/dynamic-dwnet-tiny': dict(drop_path=.2, batch=1024, decay=.05, lr=1e-3, length=300),
    'detection/cascade-mask-rcnn_dwnet-tiny': dict(drop_path=.2, batch=16, decay=.05, lr=1e-4, length=36),
    'detection/cascade-mask-rcnn_dynamic-dwnet-tiny': dict(drop_path=.2, batch=16, decay=.05, lr=1e-4, length=36),
    'segmentation/upernet_dwnet-tiny': dict(drop_path=.3, batch=16, decay=.01, lr=6e-5, length=160000),
    'segmentation/upernet_dynamic-dwnet-tiny': dict(drop_path=.3, batch=16, decay=.01, lr=6e-5, length=160000),
}


@pytest.mark.parametrize('config', [c for c in CONFIGS if 'nano' not in c])
def test_recipe(config):
    wanted = next(r for name, r in RECIPES.items() if f'configs/{name}' in config)
    cfg = read(config)
    optimizer = cfg.optim_wrapper.optimizer
    assert cfg.model.backbone.drop_path_rate == wanted['drop_path']
    assert cfg.auto_scale_lr.base_batch_size == wanted['batch']
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', wanted['lr'], wanted['decay'])
    assert cfg.train_cfg.get('max_epochs', cfg.train_cfg.get('max_iters')) == wanted['length']
    gpus = 8
    assert cfg.train_dataloader.batch_size * gpus == wanted['batch']
    assert cfg.model.backbone.get('token_mixer', 'static') == ('dynamic' if 'dynamic' in config else 'static')
    if cfg.default_scope != 'mmpretrain':
        assert cfg.model.backbone.pad_to_window and cfg.model.backbone.out_norm_cfg.type == 'SyncBN'
        assert cfg.model.backbone.init_cfg.checkpoint.endswith('dwnet_tiny_224.pth')


@pytest.mark.parametrize('config, millions', [
    ('configs/detection/cascade-mask-rcnn_dwnet-tiny_fpn_3x_coco.py', 81.5),
    ('configs/detection/cascade-mask-rcnn_dynamic-dwnet-tiny_fpn_3x_coco.py', 108.5),
    ('configs/segmentation/upernet_dwnet-tiny_160k_ade20k-512x512.py', 55.8),
    ('configs/segmentation/upernet_dynamic-dwnet-tiny_160k_ade20k-512x512.py', 82.8),
    ('configs/classification/dwnet-tiny_in1k.py', 24.172744),
    ('configs/classification/dynamic-dwnet-tiny_in1k.py', 51.131752),
])
def test_size_of_the_whole_model(config, millions):
    model = MODELS.build(read(config).model)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=2e-3)
