"""Predicts the classes, boxes or pixels of images and videos, as JSON and as pictures."""
import json
from argparse import ArgumentParser, Namespace
from pathlib import Path

from dwnet.demo.embedded import prepare_if_missing
from dwnet.deploy.inference import find_files, infer
from dwnet.errors import UserError, some

from ._arguments import add_image_arguments, add_slice_arguments, check_writable
from ._config import load_config
from ._model import check_model, chosen_inferencer
from .options import Option, apply_options
from .options.running import check_overlap, enable_slices

EXAMPLE = ('photos/ --config configs/classification/dwnet-nano_digits.py '
           '--checkpoint work_dirs/dwnet-nano_digits/epoch_10.pth')
OPTIONS = (
    Option('--overlap', check_overlap, with_values_of=('--slice', )),
    Option('--slice', enable_slices, with_values_of=('--overlap', )),
)


def add_arguments(parser: ArgumentParser) -> None:
    add_image_arguments(parser)
    parser.add_argument('--model', help='the .onnx or .xml file of tools/export.py, in the place of --checkpoint')
    parser.add_argument('--batch-size', type=int, default=1, help='images that are computed at once (default: 1)')
    parser.add_argument(
        '--threshold', type=float, default=.3,
        help='detections of a lower score are not drawn (default: 0.3); the JSON has them all')
    parser.add_argument('--no-pictures', action='store_true', help='write the JSON (and label images) only')
    parser.add_argument('--track', action='store_true',
                        help='follow the objects of videos: the JSON has identities, and the drawn video shows them')
    add_slice_arguments(parser)


def run(args: Namespace) -> None:
    check_model(args)
    if args.batch_size < 1:
        raise UserError(f'--batch-size {args.batch_size}: it has to be 1 or more')

    cfg = load_config(args)
    if cfg.get('test_dataloader'):
        cfg.test_dataloader.batch_size = args.batch_size  # of tiles
    apply_options(OPTIONS, cfg, args)
    prepare_if_missing(*args.images)
    files = find_files(args.images)
    out = Path(args.out or Path(cfg.work_dir, 'predictions'))
    check_writable('--out', out)
    left_out = infer(chosen_inferencer(cfg, args), files, out, args.batch_size, args.threshold, not args.no_pictures,
                     args.track)
    predicted = json.loads((out / 'predictions.json').read_text())['predictions']
    if animations := [entry['image'] for entry in predicted if 'image' in entry and 'frames' in entry]:
        print(f'of {len(animations)} animations the first frame is predicted: {some(animations)}')
    print(f'{len(predicted)} of {len(files)} files predicted: {out}/predictions.json')
    if left_out:
        raise UserError(f'{len(left_out)} of {len(files)} files could not be read or predicted:',
                        *(f'{name}: {reason}' for name, reason in left_out.items()))
