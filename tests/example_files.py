"""The files that the documentation's examples take: ``python tests/example_files.py NAME…`` writes them here.

Weights have the names and the layout of the official release, and random values; data sets are miniatures.
"""
import sys
from pathlib import Path

import oracle
import published_data
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from reference import fill

import dwnet  # noqa: F401  before the toolboxes

DENSE = {
    'cascade_mask_rcnn_dwnet_tiny.pth': 'detection/cascade-mask-rcnn_dwnet-tiny_fpn_3x_coco',
    'upernet_dwnet_tiny.pth': 'segmentation/upernet_dwnet-tiny_160k_ade20k-512x512',
}
DATA = {
    'data/imagenet': published_data.make_imagenet,
    'data/coco': published_data.make_coco_panoptic,
    'data/ade/ADEChallengeData2016': published_data.make_ade20k,
}


def weights(name: str) -> dict:
    """What is in the file of this name."""
    if name not in DENSE:
        return dict(model=fill(oracle.layout(name.removesuffix('_224.pth'), 'classification'), seed=0))
    cfg = Config.fromfile(f'configs/{DENSE[name]}.py')
    init_default_scope(cfg.default_scope)
    heads = {k: v for k, v in MODELS.build(cfg.model).state_dict().items() if not k.startswith('backbone.')}
    backbone = fill(oracle.layout('dwnet_tiny', 'dense'), seed=0)
    return dict(state_dict={f'backbone.{k}': v for k, v in backbone.items()} | heads)


def main() -> None:
    for name in sys.argv[1:]:
        if name in DATA:
            DATA[name](Path(name))
        else:
            torch.save(weights(Path(name).name), name)


if __name__ == '__main__':
    main()
