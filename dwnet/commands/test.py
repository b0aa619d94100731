"""Scores a checkpoint or an exported file on the test set of its config: top-1 and top-5, box and mask AP, or mIoU."""
from argparse import ArgumentParser, Namespace
from pathlib import Path

from dwnet.demo.embedded import prepare_if_missing
from dwnet.deploy.exported import with_exported
from dwnet.deploy.runtimes import is_exported
from dwnet.engine import Runner
from dwnet.engine.preflight import check_data, check_test_files
from dwnet.engine.scores import report_scores
from dwnet.errors import UserError
from dwnet.toolboxes import toolbox_of

from ._arguments import add_config_arguments, add_slice_arguments, add_speed_arguments, check_writable
from ._config import load_config
from .options import Option, apply_options, refuse_given
from .options.running import (
    check_overlap,
    enable_bf16_testing,
    enable_channels_last,
    enable_compile,
    enable_deploy,
    enable_out,
    enable_show_dir,
    enable_slices,
    enable_tta,
)
from .options.weights import set_checkpoint

EXAMPLE = 'configs/classification/dwnet-nano_digits.py work_dirs/dwnet-nano_digits/epoch_10.pth'
# In the order in which the options change the config; hooks that options add run in the same order
OPTIONS = (
    Option('--show-dir', enable_show_dir),
    Option('--out', enable_out),
    Option('--deploy', enable_deploy),
    Option('--bf16', enable_bf16_testing),
    Option('--channels-last', enable_channels_last),
    Option('--compile', enable_compile),
    Option('--overlap', check_overlap, with_values_of=('--slice', )),
    # these wrap the model, which the options above look at
    Option('--slice', enable_slices, conflicts=('--tta', ), with_values_of=('--overlap', )),
    Option('--tta', enable_tta),
)
OF_CHECKPOINTS = ('--deploy', '--bf16', '--channels-last', '--compile')


def add_arguments(parser: ArgumentParser) -> None:
    add_config_arguments(parser, launched=True)
    parser.add_argument('checkpoint', help='.pth file, or the .onnx or .xml file of tools/export.py')
    parser.add_argument('--show-dir', help='save a picture of each prediction in this folder')
    parser.add_argument(
        '--out', help='save the predictions: a .pkl file (classification, detection) or a folder of '
        'label images (segmentation)')
    parser.add_argument('--deploy', action='store_true', help='fold the BatchNorms: the same scores, faster')
    parser.add_argument(
        '--tta', action='store_true', help="test-time augmentation: the config's, or each image with its mirror image")
    add_slice_arguments(parser)
    add_speed_arguments(parser)


def run(args: Namespace) -> None:
    exported = is_exported(args.checkpoint)
    if exported:
        refuse_given(OF_CHECKPOINTS, args, f'is for PyTorch, which does not run {args.checkpoint}')
    cfg = load_config(args)
    if exported and cfg.launcher != 'none':
        raise UserError(f'{args.checkpoint} is tested in one process, which uses all cores: call tools/test.py')
    check_writable('--work-dir', cfg.work_dir)
    if args.show_dir:
        check_writable('--show-dir', args.show_dir)
    if args.out:
        check_writable('--out', Path(args.out).parent)
    check_data(cfg, 'test', prepare=prepare_if_missing)
    if not exported:
        set_checkpoint(cfg, args.checkpoint)
    apply_options(OPTIONS, cfg, args)
    if exported:  # what the options put around the model stays there
        cfg = with_exported(cfg, args.checkpoint)
    runner = Runner.from_cfg(cfg)
    check_test_files(runner)
    metrics = runner.test()
    report_scores(runner, metrics, toolbox_of(cfg).class_scores(runner.test_loop.evaluator))
