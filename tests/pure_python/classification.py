"""DWNet on single digits, every type a class."""
from mmcv.transforms import LoadImageFromFile
from mmengine.config import read_base
from mmpretrain.datasets import CustomDataset, PackInputs
from mmpretrain.evaluation import Accuracy
from mmpretrain.models import (
    ClsDataPreprocessor,
    CrossEntropyLoss,
    GlobalAveragePooling,
    ImageClassifier,
    LinearClsHead,
)
from mmpretrain.visualization import UniversalVisualizer

from dwnet import DWNet

with read_base():
    from .runtime import *

model = dict(
    type=ImageClassifier,
    data_preprocessor=dict(
        type=ClsDataPreprocessor, num_classes=10, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
        to_rgb=True),
    backbone=dict(type=DWNet, arch=backbone_arch, out_indices=3),
    neck=dict(type=GlobalAveragePooling),
    head=dict(type=LinearClsHead, num_classes=10, in_channels=128, loss=dict(type=CrossEntropyLoss)))
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=train_sampler,
    dataset=dict(
        type=CustomDataset, data_root='data/digits', data_prefix='classification/train', indices=32,
        pipeline=[dict(type=LoadImageFromFile), dict(type=PackInputs)]))
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=test_sampler,
    dataset=dict(
        type=CustomDataset, data_root='data/digits', data_prefix='classification/test', indices=16,
        pipeline=[dict(type=LoadImageFromFile), dict(type=PackInputs)]))
test_dataloader = val_dataloader
val_evaluator = dict(type=Accuracy, topk=(1, 5))
test_evaluator = val_evaluator
visualizer = dict(type=UniversalVisualizer)
