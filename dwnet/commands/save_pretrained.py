"""Writes a trained model as a folder for the Hugging Face Hub: weights, config as data, model card, and no code.

dwnet.apis.init_model(FOLDER) reads the folder; `hf upload` uploads it.
"""
import json
from argparse import ArgumentParser, Namespace
from pathlib import Path

from dwnet.apis import init_model
from dwnet.deploy.hub import save_pretrained
from dwnet.errors import UserError

from ._arguments import add_config_arguments
from ._config import load_config

EXAMPLE = ('configs/classification/dwnet-nano_digits.py work_dirs/dwnet-nano_digits/epoch_10.pth my-dwnet '
           '--results results.json')


def add_arguments(parser: ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument('checkpoint', help='its weights, .pth or .safetensors')
    parser.add_argument('folder', help='what to write; an existing model card is kept')
    parser.add_argument(
        '--results', metavar='FILE.json',
        help='figures for the model card, as in metafile.yml: [{"Dataset": "…", "Provenance": "reported", "converted" '
        'or "retrained", "Metrics": {"…": 0}}]')


def run(args: Namespace) -> None:
    results = []
    if args.results:
        try:
            results = json.loads(Path(args.results).read_text(encoding='utf-8'))
        except (OSError, ValueError) as error:
            raise UserError(f'--results {args.results} cannot be read: {error}') from error
    folder = save_pretrained(init_model(load_config(args), args.checkpoint), args.folder, results)
    print(f'{folder}: ' + ', '.join(sorted(path.name for path in folder.iterdir())))
