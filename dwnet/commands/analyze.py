"""Shows what a checkpoint gets wrong on the test data of its config, as a page of pictures.

classification   confusion matrix, recall and precision, precision-recall curves, the most confident mistakes
detection        precision-recall curves, what is lost where (COCO's parts), confusion matrix, AP of each class
segmentation     confusion matrix of the pixels, IoU and recall of each class
all              predictions beside the ground truth
"""
from argparse import ArgumentParser, Namespace
from pathlib import Path

from dwnet.demo.embedded import prepare_if_missing
from dwnet.engine.preflight import check_data
from dwnet.inspect.analysis import analyze

from ._arguments import add_config_arguments, check_writable
from ._config import load_config
from .options.weights import set_checkpoint

EXAMPLE = 'configs/classification/dwnet-nano_digits.py work_dirs/dwnet-nano_digits/epoch_10.pth'


def add_arguments(parser: ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument('checkpoint', help='.pth file')
    parser.add_argument('--out', help='folder of the pictures (default: analysis in the work dir)')
    parser.add_argument('--number', type=int, default=12, help='images that are shown (default: 12)')
    parser.add_argument(
        '--threshold', type=float, default=.3,
        help='detections of a lower score are not drawn, and not in the confusion matrix (default: 0.3)')


def run(args: Namespace) -> None:
    cfg = load_config(args)
    check_data(cfg, 'test', prepare=prepare_if_missing)
    set_checkpoint(cfg, args.checkpoint)
    out = Path(args.out or Path(cfg.work_dir, 'analysis'))
    check_writable('--out', out)
    print(f'analysis: {analyze(cfg, out, args.number, args.threshold)}')
