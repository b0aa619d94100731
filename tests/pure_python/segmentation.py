"""An FCN head behind DWNet on scenes of digits, every type a class."""
from mmcv.transforms import LoadImageFromFile
from mmengine.config import read_base
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import LoadAnnotations, PackSegInputs
from mmseg.evaluation import IoUMetric
from mmseg.models import CrossEntropyLoss, EncoderDecoder, FCNHead, SegDataPreProcessor
from mmseg.visualization import SegLocalVisualizer
from torch.nn import BatchNorm2d

from dwnet import DWNet

with read_base():
    from .runtime import *

model = dict(
    type=EncoderDecoder,
    data_preprocessor=dict(
        type=SegDataPreProcessor, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True,
        size=(128, 128), seg_pad_val=255),
    backbone=dict(type=DWNet, arch=backbone_arch),
    decode_head=dict(
        type=FCNHead, in_channels=128, in_index=3, channels=16, num_convs=1, num_classes=11, align_corners=False,
        norm_cfg=dict(type=BatchNorm2d), loss_decode=dict(type=CrossEntropyLoss)),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
common = dict(
    type=BaseSegDataset,
    data_root='data/digits',
    img_suffix='.jpg',
    seg_map_suffix='.png',
    metainfo=dict(classes=('ground', *'0123456789'), palette=[[20 * i, 0, 0] for i in range(11)]),
    pipeline=[dict(type=LoadImageFromFile), dict(type=LoadAnnotations), dict(type=PackSegInputs)])
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=train_sampler,
    dataset=dict(**common, indices=8, data_prefix=dict(img_path='scenes/train', seg_map_path='labels/train')))
val_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=test_sampler,
    dataset=dict(**common, data_prefix=dict(img_path='scenes/test', seg_map_path='labels/test')))
test_dataloader = val_dataloader
val_evaluator = dict(type=IoUMetric, iou_metrics=['mIoU'])
test_evaluator = val_evaluator
visualizer = dict(type=SegLocalVisualizer)
