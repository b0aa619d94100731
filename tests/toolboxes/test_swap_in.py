"""DWNet in the place of the backbones of stock configs: of each family of configs in the toolboxes' wheels, the first.

The rule is :func:`stock_configs.first_config`; nothing is chosen by what passes. Unfit families are in ``CANNOT``
and have to fail with the message there. ``PYTHONPATH=tests python tests/toolboxes/test_swap_in.py`` prints the lists
as docs/swap_in.md has them.
"""
import copy
import re

import pytest
import torch
from conftest import ROOT
from mmengine.config import Config
from mmengine.hub import get_config
from stock_configs import SMALL, TOOLBOXES, families, first_config, folder_of, train_and_predict

from dwnet.apis import swap_backbone
from dwnet.errors import UserError

# Families without a model that has a backbone: bases of other configs, trackers and semi-supervised models around a
# detector, models of images and text. mmrotate's ConvNeXt imports mmcls, mmpretrain's older name.
ELSEWHERE = {
    *(f'mmdet/{name}' for name in (
        'common', 'deepsort', 'masktrack_rcnn', 'misc', 'ocsort', 'qdtrack', 'soft_teacher')),
    'mmseg/san', 'mmyolo/deploy', 'mmyolo/razor', 'mmrotate/convnext',
    'mmpose/body_2d_keypoint/edpose/coco',
    *(f'mmpose/wholebody_2d_keypoint/dwpose/{name}' for name in ('coco-wholebody', 'ubody')),
    *(f'mmpretrain/{name}' for name in (
        'arcface', 'blip', 'blip2', 'chinese_clip', 'flamingo', 'llava', 'minigpt4', 'ofa', 'otter')),
    *(f'mmaction/{name}' for name in ('localization/bmn', 'localization/bsn', 'localization/drn',
                                      'localization/tcanet', 'multimodal/vindlu', 'retrieval/clip4clip')),
    *(f'mmocr/{name}' for name in ('backbone/oclip', 'textdet/maskrcnn', 'textrecog/svtr')),
}
_TOKENS = 'the head takes tokens of a transformer, too'
_MASKS = 'pre-training that hides patches inside its own transformer'
_HEADLESS = 'weights of others without a head, and without a toolbox in `default_scope`'
_HOURGLASS = 'two maps of stride 4, one behind the other'
_BERT = 'reads text: needs transformers and BERT'
_CLIPS = 'the backbone sees the frames of a clip at once'
_STRIDES = 'a recognizer of text, whose backbone halves the height alone'
_WIDTHS = 'a recognizer of text, whose encoder or decoder has the width of the backbone'
_NUMPY = 'mmocr fills a map with a number that NumPy 2 makes float32, and OpenCV refuses it, whatever the backbone'
_LIFTS = 'takes keypoints, no images'
# family → (why, for people; what the error says)
CANNOT = {
    'mmdet/centripetalnet': (_HOURGLASS, r'maps of strides \[4, 4\]'),
    'mmdet/cornernet': (_HOURGLASS, r'maps of strides \[4, 4\]'),
    'mmdet/detectors': ('the neck has backbones of its own', r'maps of strides \[1, 4, 8, 16, 32\]'),
    'mmdet/glip': (_BERT, 'transformers is not installed'),
    'mmdet/grounding_dino': (_BERT, 'fairscale|transformers is not installed'),
    'mmdet/mm_grounding_dino': (_BERT, 'fairscale|transformers is not installed'),
    'mmdet/mask2former_vis': ('takes videos', 'Only support the 4 dims'),
    'mmdet/nas_fcos': ('BatchNorm with eps=0, which PyTorch refuses now; by hand it works', 'eps must be positive'),
    'mmdet/queryinst': ('trains, but mmdet cannot paste the masks of an untrained model, whose boxes leave the image',
                        'inconsistent with step sign'),
    'mmdet/reid': ('pools images of 256×128 alone; by hand it works', 'nothing behind the backbone'),
    'mmdet/ssd': ('trains, but mmdet 3.3.0 cannot predict by SSD, whatever the backbone', "no attribute 'loss_cls'"),
    'mmdet/tridentnet': ('the head takes the three branches of its ResNet', "no attribute 'num_branch'"),
    'mmpose/body_2d_keypoint/associative_embedding/coco': (
        'mmpose 1.3 does not train it: its training pipeline is empty', "no attribute 'keypoint_indices'"),
    'mmpose/body_2d_keypoint/topdown_heatmap/jhmdb': ('six maps of stride 8, one behind the other', 'gives 6 maps'),
    **dict.fromkeys([f'mmpose/body_3d_keypoint/{name}/h36m' for name in (
        'image_pose_lift', 'motionbert', 'video_pose_lift')], (_LIFTS, 'cannot be run to see what it gives')),
    'mmpose/hand_3d_keypoint/internet/interhand3d': (
        'keypoints in space, and those of the test are flat', 'index 2 is out of bounds for axis 2'),
    'mmseg/bisenetv2': ('five maps', 'gives 5 maps'),
    'mmseg/ddrnet': ('the head takes two maps in training and a bare one in prediction', 'must be Tensor, not tuple'),
    'mmseg/dpt': (_TOKENS, 'does not give feature maps alone'),
    'mmseg/mobilenet_v3': ('LR-ASPP pools windows of 49×49 cells, more than a map of stride 32 has',
                           'Output size is too small'),
    'mmseg/pidnet': ('the head fuses the three branches of the backbone', 'nothing behind the backbone'),
    'mmseg/setr': ('MLA: the head joins maps of one size', 'Sizes of tensors must match'),
    'mmseg/unet': ('five maps, up to stride 1', 'gives 5 maps'),
    'mmseg/vpd': ('the backbone is a diffusion model that reads text', 'To use VPD model'),
    **dict.fromkeys([f'mmpretrain/{name}' for name in ('beit', 'beitv2', 'cae', 'maskfeat', 'simmim')],
                    (_MASKS, "missing 1 required positional argument: 'mask'")),
    'mmpretrain/itpn': (_MASKS, "'bool' object has no attribute 'flatten'"),
    'mmpretrain/milan': (_MASKS, "missing 1 required positional argument: 'importance'"),
    'mmpretrain/spark': (_MASKS, "'NoneType' object has no attribute"),
    **dict.fromkeys([f'mmpretrain/{name}' for name in ('mae', 'mff', 'mixmim')], (_MASKS, 'and no feature maps')),
    **dict.fromkeys([f'mmpretrain/{name}' for name in ('conformer', 'deit')],
                    (_TOKENS, 'does not give feature maps alone')),
    'mmpretrain/efficientformer': (
        'tokens instead of a map; mmpretrain does not train its head', 'and no feature maps'),
    **dict.fromkeys([f'mmpretrain/{name}' for name in ('dinov2', 'eva02', 'glip', 'sam')],
                    (_HEADLESS, 'needs a config of mmpretrain, mmdet, mmseg')),
    'mmpretrain/inception_v3': ('the backbone classifies', 'does not give feature maps alone'),
    'mmpretrain/lenet': ('takes images of one channel', 'channel'),
    'mmpretrain/levit': ('mmpretrain does not train it', "doesn't support training in distillation mode"),
    'mmyolo/rtmdet': ('the first is RTMDet-Ins, which mmyolo does not train; RTMDet works',
                      'RTMDetInsSepBNHead.loss_by_feat'),
    'mmrotate/redet': ('needs e2cnn, and its neck takes the maps of its own backbone alone', 'e2cnn'),
    'mmrotate/sasm_reppoints': ('its loss is computed on a GPU alone, whatever the backbone', 'CUDA|NVIDIA|device'),
    **dict.fromkeys([f'mmaction/{name}' for name in (
        'detection/acrn', 'detection/lfb', 'detection/slowfast', 'detection/slowonly', 'detection/videomae',
        *(f'recognition/{name}' for name in (
            'c3d', 'csn', 'i3d', 'mvit', 'r2plus1d', 'slowfast', 'slowonly', 'swin', 'timesformer', 'tpn',
            'uniformer', 'uniformerv2', 'videomae', 'videomaev2', 'x3d')))],
                    (_CLIPS, 'cannot be run to see what it gives')),
    'mmaction/recognition/omnisource': (_CLIPS, 'must match the size of tensor'),
    'mmaction/recognition/tanet': ('the backbone moves its weights, which the trial leaves out',
                                   'Cannot copy out of meta tensor'),
    **dict.fromkeys(['mmaction/recognition_audio/audioonly', 'mmaction/recognition_audio/resnet'],
                    ('the backbone hears', 'cannot be run to see what it gives')),
    **dict.fromkeys([f'mmaction/skeleton/{name}' for name in ('2s-agcn', 'posec3d', 'stgcn', 'stgcnpp')],
                    ('the backbone sees skeletons', 'cannot be run to see what it gives')),
    'mmocr/kie/sdmgr': ('five maps, up to stride 1', 'gives 5 maps'),
    **dict.fromkeys(['mmocr/textdet/drrg', 'mmocr/textdet/textsnake'], (_NUMPY, 'Scalar value for argument')),
    **dict.fromkeys([f'mmocr/textrecog/{name}' for name in ('abinet', 'aster', 'robust_scanner')],
                    ('a recognizer of text that takes a bare map', 'tuple')),
    **dict.fromkeys([f'mmocr/textrecog/{name}' for name in ('crnn', 'nrtr')],
                    (_STRIDES, 'cannot be run to see what it gives')),
    **dict.fromkeys([f'mmocr/textrecog/{name}' for name in ('master', 'sar', 'satrn')],
                    (_WIDTHS, 'its head is a part of it')),
}
# Every so many of those that can are tried in the everyday suite, all in the long one.
EVERY = dict(mmdet=4, mmseg=4, mmpretrain=10, mmpose=25, mmrotate=10, mmyolo=3, mmaction=2, mmocr=4)
# a matching in Python; 900 queries; 13,000 classes; 1,440 channels of a quarter of 512×512
SLOW = {'mmdet/crowddet', 'mmdet/ddq', 'mmdet/dino', 'mmdet/v3det',
        *(f'mmpose/body_2d_keypoint/{name}' for name in ('cid/coco', 'dekr/coco', 'dekr/crowdpose'))}


def cases():
    for toolbox in TOOLBOXES:
        names = [f'{toolbox}/{family}' for family in families(toolbox)]
        everyday = [name for name in names if name not in ELSEWHERE | CANNOT.keys()][::EVERY[toolbox]]
        for name in names:
            quick = name in everyday and name not in SLOW
            yield pytest.param(toolbox, name, id=name, marks=[] if quick else pytest.mark.long)


@pytest.mark.parametrize('toolbox, name', cases())
def test_first_config_of_the_family(toolbox, name, monkeypatch):
    path, cfg = first_config(toolbox, name.partition('/')[2])
    assert (path is None) == (name in ELSEWHERE)
    monkeypatch.chdir(folder_of(toolbox).parent)  # one names another by its path there
    if name in CANNOT:
        with pytest.raises(Exception, match=CANNOT[name][1]):
            train_and_predict(swap_backbone(cfg, arch=SMALL))
    elif path is not None:
        train_and_predict(swap_backbone(cfg, arch=SMALL))


BY_HAND = {  # those of CANNOT of which it says so
    'mmdet/nas_fcos': dict(neck=dict(in_channels=[96, 192, 384, 768])),
    'mmdet/reid': dict(backbone=dict(out_indices=3), head=dict(in_channels=768), neck=dict(kernel_size=2)),
}


@pytest.mark.long
@pytest.mark.parametrize('name', BY_HAND)
def test_by_hand(name):
    assert set(BY_HAND) == {name for name, (reason, _) in CANNOT.items() if 'by hand' in reason}
    _, cfg = first_config(*name.split('/'))
    cfg.model.backbone = dict(type='dwnet.DWNet', arch=SMALL)
    cfg.merge_from_dict(dict(model=BY_HAND[name]))
    train_and_predict(cfg)


CHANNELS = {  # what is set; another config than the first of its family
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py': {'neck.in_channels': [96, 192, 384, 768]},
    'mmdet::yolo/yolov3_d53_8xb8-320-273e_coco.py': {'neck.in_channels': [768, 384, 192]},
    'mmdet::ssd/ssd300_coco.py': {
        'neck.in_channels': (192, 384), 'neck.out_channels': (192, 384, 512, 256, 256, 256),
        'bbox_head.in_channels': (192, 384, 512, 256, 256, 256)},
    'mmdet::detr/detr_r50_8xb2-150e_coco.py': {'neck.in_channels': [768]},
    'mmdet::faster_rcnn/faster-rcnn_r50-caffe-dc5_1x_coco.py': {
        'rpn_head.in_channels': 384, 'roi_head.bbox_roi_extractor.out_channels': 384,
        'roi_head.bbox_head.in_channels': 384},
    'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py': {'panoptic_head.in_channels': [96, 192, 384, 768]},
    'mmseg::deeplabv3plus/deeplabv3plus_r50-d8_4xb4-80k_ade20k-512x512.py': {
        'decode_head.in_channels': 768, 'decode_head.c1_in_channels': 96, 'auxiliary_head.in_channels': 384,
        'pretrained': None},
    'mmseg::knet/knet-s3_r50-d8_upernet_8xb2-adamw-80k_ade20k-512x512.py': {
        'decode_head.kernel_generate_head.in_channels': [96, 192, 384, 768], 'auxiliary_head.in_channels': 384,
        'pretrained': None,
        'decode_head.kernel_update_head.0.in_channels': 512},  # not the backbone's, though ResNet has 512, too
    'mmseg::vit/vit_vit-b16_mln_upernet_8xb2-80k_ade20k-512x512.py': {
        'pretrained': None, 'neck': None,
        'decode_head.in_channels': [96, 192, 384, 768], 'auxiliary_head.in_channels': 768},
    'mmpretrain::convnext/convnext-tiny_32xb128_in1k.py': {
        'neck.0.type': 'GlobalAveragePooling', 'head.in_channels': 768},
    'mmpretrain::resnet/resnet50_8xb32_in1k.py': {'head.in_channels': 768},
    # not neck.projector, which takes the neck's own maps, as wide as the backbone's first
    'mmpose::body_2d_keypoint/rtmo/coco/rtmo-l_16xb16-600e_coco-640x640.py': {'neck.in_channels': [192, 384, 768]},
}
STAGES = {'retinanet': (0, 1, 2, 3), 'yolo': (1, 2, 3), 'ssd': (1, 2), 'detr': (3, ), 'faster_rcnn': (2, ),
          'convnext': (3, ), 'resnet': (3, ), 'body_2d_keypoint': (1, 2, 3)}


@pytest.mark.parametrize('name', CHANNELS)
def test_only_channels_are_set(name):
    cfg = get_config(name)
    before, state = copy.deepcopy(cfg), torch.get_rng_state()
    model = swap_backbone(cfg, drop_path_rate=.1).model
    assert cfg.to_dict() == before.to_dict() and torch.equal(torch.get_rng_state(), state)
    stages = STAGES.get(name.split('::')[1].split('/')[0], (0, 1, 2, 3))
    assert model.backbone == dict(type='dwnet.DWNet', drop_path_rate=.1, out_indices=stages)
    was, now = _flat(before.model), _flat(model)
    for key, value in CHANNELS[name].items():
        assert _get(model, key) == value, key
    changed = {key for key in was | now if was.get(key) != now.get(key) and not key.startswith('backbone.')}
    assert all(any(key.startswith(expected.removesuffix('.0.type')) for expected in CHANNELS[name]) for key in changed)


def test_base_is_wider():
    cfg = swap_backbone(get_config('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'), arch='base')
    assert cfg.model.neck.in_channels == [128, 256, 512, 1024]


def test_layer_decay_of_others_is_left_out():
    cfg = swap_backbone(get_config('mmseg::convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py'))
    assert 'constructor' not in cfg.optim_wrapper and cfg.optim_wrapper.paramwise_cfg == {}


@pytest.mark.parametrize('config, arguments, message', [
    ('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', dict(out_indices=(2, 3)), 'out_indices must name 4 stages'),
    ('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', dict(arch='tinny'), "did you mean 'tiny'"),
    ('mmdet::soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py', {},
     'model.backbone is missing: a SoftTeacher keeps its network elsewhere'),
    (Config(dict(model=dict(backbone=dict(type='ResNet', depth=50)))), {},
     'needs a config of mmpretrain, mmdet, mmseg'),
    (Config(dict(default_scope='mmdet')), {}, 'model.backbone is missing'),
])
def test_mistakes(config, arguments, message):
    with pytest.raises(UserError, match=message):
        swap_backbone(get_config(config) if isinstance(config, str) else config, **arguments)


def _flat(part, prefix: str = '') -> dict:
    items = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else None
    if items is None or not part:
        return {prefix: part}
    return {key: value for name, item in items for key, value in _flat(item, f'{prefix}.{name}'.strip('.')).items()}


def _get(part, key: str):
    for name in key.split('.'):
        part = part[int(name)] if isinstance(part, list) else part.get(name)
    return part


def lists() -> str:
    """Which families can be, which cannot and why, and which have no backbone: as in docs/swap_in.md."""
    lines = []
    for toolbox in TOOLBOXES:
        names = [f'{toolbox}/{family}' for family in families(toolbox)]
        works = [name for name in names if name not in ELSEWHERE | CANNOT.keys()]
        lines += [f'**{toolbox}**: {len(works)} of {len(names)} work: '
                  f"{', '.join(name.partition('/')[2] for name in works)}.", '']
    reasons = {}
    for name, (reason, _) in CANNOT.items():
        reasons.setdefault(reason, []).append(name)
    lines += ['| cannot | why |', '| --- | --- |']
    lines += [f"| {', '.join(names)} | {reason} |" for reason, names in reasons.items()]
    lines += ['', f"No model with a backbone, or none that can be read: {', '.join(sorted(ELSEWHERE))}."]
    return '\n'.join(lines)


def test_the_page_lists_what_is_tested():
    page = (ROOT / 'docs/swap_in.md').read_text()
    assert page.endswith(f'\n\n{lists()}\n'), 'this file, run as a program, prints what the page should end with'
    works = sum(map(int, re.findall(r': (\d+) of \d+ work', lists())))
    assert f'that were tried, {works} of which work' in (ROOT / 'README.md').read_text()


if __name__ == '__main__':
    print(lists())
