"""Looks into a network: class activation, kernels, receptive field.

cam               where an image raises the score of a class (Grad-CAM); where layers of a detector respond (EigenCAM)
kernels           the kernels of each stage: learned, predicted for the image, or predicted for each position
receptive-field   the part of an image on which the features of each stage depend, by gradients
"""
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dwnet.apis import inferencer
from dwnet.demo.embedded import prepare_if_missing
from dwnet.deploy.inference import as_input, find_files, read_images
from dwnet.engine.hooks.progress import ProgressLine
from dwnet.errors import UserError
from dwnet.inspect import cam, kernels, receptive_field
from dwnet.inspect.figure import contact_sheet, save
from dwnet.inspect.samples import to_picture
from dwnet.toolboxes.graphs import image_channels
from dwnet.toolboxes.pixels import has_own_range

from ._arguments import add_image_arguments, chosen_device
from ._config import load_config

EXAMPLE = ("cam 'data/digits/classification/test/3/*.jpg' --config configs/classification/dwnet-nano_digits.py "
           '--checkpoint work_dirs/dwnet-nano_digits/epoch_10.pth')

NUMBER = 6


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument('what', choices=DRAW, help='see above')
    add_image_arguments(parser, '*')
    parser.add_argument('--number', type=int, default=NUMBER, help=f'only the first images (default: {NUMBER})')
    parser.add_argument(
        '--layers', nargs='+', default=[],
        help="cam, receptive-field: such as backbone.stages.2 (default: DWNet's stages)")
    parser.add_argument('--category', help='cam: name or number of the class (default: the predicted one)')
    parser.add_argument(
        '--shape', nargs=2, type=int, default=(224, 224), metavar=('H', 'W'),
        help='receptive-field: size of the noise that is taken where no image is named (default: 224 224)')


def run(args: Namespace) -> None:
    if args.number < 1:
        raise UserError(f'--number {args.number}: it has to be 1 or more')
    if not args.images and args.what != 'receptive-field':
        raise UserError(f'{args.what} needs images: files, folders or patterns')

    cfg = load_config(args)
    prepare_if_missing(*args.images)
    files = find_files(args.images)[:args.number]
    if args.checkpoint is None:
        print('no --checkpoint: the network is as it is initialised')
    infer = inferencer(cfg, args.checkpoint, chosen_device(args.device))
    left_out: dict[str, str] = {}
    figure = DRAW[args.what](args, infer, files, left_out)
    print(f"{args.what}: {save(figure, Path(args.out or cfg.work_dir, args.what.replace('-', '_') + '.png'))}")
    if left_out:
        raise _unread(left_out)


def _inputs(infer, files: list[Path], left_out: dict[str, str]) -> Iterator[tuple[str, Tensor, np.ndarray]]:
    """Each file's name, network input, and the input as a picture; unreadable files go to ``left_out``."""
    for file, image in read_images(infer.model, files, left_out):
        inputs = as_input(infer, image)
        yield file.name, inputs, to_picture(inputs[0], infer.model.data_preprocessor, has_own_range(infer.model.cfg))
    if len(left_out) == len(files):
        raise _unread(left_out)


def _unread(left_out: dict[str, str]) -> UserError:
    return UserError('images could not be read:', *(f'{name}: {reason}' for name, reason in left_out.items()))


def draw_cam(args: Namespace, infer, files: list[Path], left_out: dict[str, str]):
    names = list(infer.model.dataset_meta.get('classes', ()))
    category = None
    if args.category is not None:
        if args.category not in names and not args.category.isdigit():
            raise UserError(f"--category {args.category}: the classes are {', '.join(names)}")
        category = names.index(args.category) if args.category in names else int(args.category)
    pictures, captions = [], []
    with ProgressLine() as progress:
        progress.add('images', len(files))
        for name, inputs, picture in _inputs(infer, files, left_out):
            maps, shown = cam.class_activation(infer.model, inputs, args.layers, category)
            pictures += [picture, *(cam.lay_over(picture, heat) for heat in maps.values())]
            captions += [name, *(layer.removeprefix('backbone.') for layer in maps)]
            if shown is not None:
                captions[-len(maps) - 1] += f': {names[shown] if shown < len(names) else shown}'
            progress.advance('images')
    title = 'EigenCAM' if cam.is_detector(infer.model) else 'Grad-CAM: what speaks for the class'
    return contact_sheet(pictures, captions, len(maps) + 1, title, side=2)


def draw_kernels(args: Namespace, infer, files: list[Path], left_out: dict[str, str]):
    shown = list(_inputs(infer, files, left_out))
    found = [kernels.kernels(infer.model, inputs) for _, inputs, _ in shown]
    mixer = infer.model.cfg.model.backbone.get('token_mixer', 'static')
    return kernels.plot(found, [picture for _, _, picture in shown], [name for name, _, _ in shown], mixer)


def draw_receptive_field(args: Namespace, infer, files: list[Path], left_out: dict[str, str]):
    if files:
        inputs = [inputs for _, inputs, _ in _inputs(infer, files, left_out)]
        if len({image.shape for image in inputs}) > 1:
            raise UserError('these images come to the network in several sizes; take images of one size')
    else:
        torch.manual_seed(0)
        channels = image_channels(infer.model)
        inputs = list(torch.randn(args.number, 1, channels, *args.shape, device=next(infer.model.parameters()).device))
    with ProgressLine() as progress:
        progress.add('images', len(inputs))
        fields = receptive_field.effective_receptive_field(
            infer.model, inputs, args.layers, lambda: progress.advance('images'))
    height, width = inputs[0].shape[-2:]
    kind = 'images' if files else 'noise images'
    return receptive_field.plot({name.removeprefix('backbone.'): field for name, field in fields.items()},
                                f'effective receptive field, {len(inputs)} {kind} of {height}×{width}')


DRAW = {'cam': draw_cam, 'kernels': draw_kernels, 'receptive-field': draw_receptive_field}
