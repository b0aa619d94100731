"""Detectors of mmdet with DWNet-nano for the scenes of digits: mmdet's own configs, made narrow and shallow.

    PYTHONPATH=tests python tests/digits_detectors.py dino work_dirs/dino   # writes work_dirs/dino/config.py
"""
import json
import sys
from pathlib import Path

import numpy as np
from mmengine.config import Config, ConfigDict
from PIL import Image
from stock_configs import folder_of

DIGITS = 'configs/detection/cascade-mask-rcnn_dwnet-nano_fpn_digits.py'
CHANNELS = [32, 64, 128, 256]  # of DWNet-nano's maps
# A name → mmdet's config, and the maps that the detector takes
DETECTORS = dict(
    retinanet=('retinanet/retinanet_r50_fpn_1x_coco.py', (1, 2, 3)),
    fcos=('fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py', (1, 2, 3)),
    atss=('atss/atss_r50_fpn_1x_coco.py', (1, 2, 3)),
    gfl=('gfl/gfl_r50_fpn_1x_coco.py', (1, 2, 3)),
    rtmdet=('rtmdet/rtmdet_tiny_8xb32-300e_coco.py', (1, 2, 3)),
    yolox=('yolox/yolox_tiny_8xb8-300e_coco.py', (1, 2, 3)),
    detr=('detr/detr_r50_8xb2-150e_coco.py', (3, )),
    deformable_detr=('deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py', (1, 2, 3)),
    dino=('dino/dino-4scale_r50_8xb2-12e_coco.py', (1, 2, 3)),
    maskformer=('maskformer/maskformer_r50_ms-16xb1-75e_coco.py', (0, 1, 2, 3)),
    mask2former=('mask2former/mask2former_r50_8xb2-lsj-50e_coco.py', (0, 1, 2, 3)),
    panoptic=('mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py', (0, 1, 2, 3)),
)
SHALLOW = dict(feedforward_channels=128, num_layers=2, num_queries=30, num_dn_queries=20)
NARROW = dict(SHALLOW, embed_dims=64, feat_channels=64, out_channels=64, num_feats=32, channels=64, in_channels=64)
WIDE = ('deformable_detr', 'dino')  # mmdet encodes their boxes in 256 channels, whatever the config says


def digits_detector(name: str) -> Config:
    """The config of a detector of ``DETECTORS`` for the digits."""
    file, indices = DETECTORS[name]
    cfg = Config.fromfile(DIGITS)
    model = Config.fromfile(folder_of('mmdet') / file).model
    channels = [CHANNELS[i] for i in indices]
    backbone = cfg.model.backbone
    backbone.update(out_indices=indices)
    _limit(model, SHALLOW if name in WIDE else NARROW)
    model.backbone = backbone
    model.data_preprocessor.update(batch_augments=None, pad_size_divisor=1)
    head = model.get('bbox_head') or model.panoptic_head
    if name in ('rtmdet', 'yolox'):
        model.neck.update(out_channels=64)
        head.update(in_channels=64)
    elif 'neck' in model and name != 'detr':
        head.update({'in_channels': 64} if 'in_channels' in head else {})
    if 'neck' in model:
        model.neck.in_channels = channels
    if 'panoptic_head' in model:
        stuff = int(name != 'mask2former')
        head.update(in_channels=channels, num_things_classes=10, num_stuff_classes=stuff)
        head.loss_cls.class_weight = [1.] * (10 + stuff) + [.1]
        model.panoptic_fusion_head.update(num_things_classes=10, num_stuff_classes=stuff)
    else:
        head.num_classes = 10
        head.update({'embed_dims': 64} if name == 'detr' else {})
        model.test_cfg.max_per_img = 30
    cfg.model = model
    cfg.optim_wrapper.optimizer.lr = 5e-4
    cfg.train_cfg.update(max_epochs=4, val_interval=4)
    for part in ('train', 'val', 'test'):
        cfg[f'{part}_dataloader'].update(num_workers=0, persistent_workers=False)
    if 'panoptic_head' not in model:
        for part in ('train', 'val', 'test'):
            for step in cfg[f'{part}_dataloader'].dataset.pipeline:
                step.update(dict(with_mask=False) if step.type == 'LoadAnnotations' else {})
        cfg.val_evaluator.metric = cfg.test_evaluator.metric = 'bbox'
    return cfg


def _limit(part, most: dict[str, int]) -> None:
    """Lowers the numbers of these names, in a config and all of its parts."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key == 'num_points' and isinstance(value, int) and value > 1000:
                part[key] = 1024  # of a loss of masks
            elif key in most and isinstance(value, int):
                part[key] = min(value, most[key])
            else:
                _limit(value, most)
    elif isinstance(part, (list, tuple)):
        for item in part:
            _limit(item, most)


def for_panoptic(cfg: Config, root: Path) -> None:
    """Gives the config the digits as panoptic data, of :func:`make_panoptic_digits`."""
    for part, name in (('train', 'train'), ('val', 'test'), ('test', 'test')):
        dataset = cfg[f'{part}_dataloader'].dataset
        dataset.update(type='CocoPanopticDataset', data_root=str(root), ann_file=f'panoptic_{name}.json',
                       data_prefix=dict(img=str(Path('data/digits/scenes').resolve() / name), seg=f'panoptic_{name}/'))
        dataset.metainfo.update(classes=(*dataset.metainfo.classes, 'paper'),
                                thing_classes=dataset.metainfo.classes, stuff_classes=('paper', ))
        dataset.metainfo.palette = [*dataset.metainfo.palette, (128, 128, 128)]
        for step in dataset.pipeline:
            if step.type == 'LoadAnnotations':
                step.update(type='LoadPanopticAnnotations', with_bbox=True, with_mask=True, with_seg=True)
    cfg.val_evaluator = cfg.test_evaluator = ConfigDict(
        type='CocoPanopticMetric', ann_file=str(root / 'panoptic_test.json'), seg_prefix=str(root / 'panoptic_test'))


def make_panoptic_digits(root: Path, scenes: Path = Path('data/digits')) -> None:
    """The scenes of digits as panoptic data: digits are things, and what lies around them is the one stuff."""
    from pycocotools import mask as coco_mask
    for part in ('train', 'test'):
        content = json.loads((scenes / f'annotations/{part}.json').read_text())
        folder = root / f'panoptic_{part}'
        folder.mkdir(parents=True, exist_ok=True)
        of_image: dict[int, list] = {image['id']: [] for image in content['images']}
        for annotation in content['annotations']:
            of_image[annotation['image_id']].append(annotation)
        annotations = []
        for image in content['images']:
            segments = np.ones((image['height'], image['width']), int)
            kinds = {1: 11}
            for number, annotation in enumerate(of_image[image['id']], 2):
                segments[coco_mask.decode(annotation['segmentation']) > 0] = number
                kinds[number] = annotation['category_id']
            infos = []
            for number, kind in kinds.items():
                rows, columns = np.nonzero(segments == number)
                if len(rows):
                    box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
                    infos.append(dict(id=number, category_id=kind, area=len(rows), bbox=[int(x) for x in box],
                                      iscrowd=0))
            name = Path(image['file_name']).stem + '.png'
            Image.fromarray(np.stack([segments, 0 * segments, 0 * segments], 2).astype(np.uint8)).save(folder / name)
            annotations.append(dict(image_id=image['id'], file_name=name, segments_info=infos))
        categories = [dict(category, isthing=1) for category in content['categories']]
        categories.append(dict(id=11, name='paper', isthing=0))
        (root / f'panoptic_{part}.json').write_text(json.dumps(dict(
            images=content['images'], annotations=annotations, categories=categories)))


if __name__ == '__main__':
    name, folder = sys.argv[1], Path(sys.argv[2])
    cfg = digits_detector(name)
    if name in ('panoptic', 'maskformer'):
        make_panoptic_digits(folder / 'data')
        for_panoptic(cfg, (folder / 'data').resolve())
    folder.mkdir(parents=True, exist_ok=True)
    cfg.dump(folder / 'config.py')
