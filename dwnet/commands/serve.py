"""Serves a model as a page in the browser and as a JSON API.

The page shows predictions, class activation and, for dynamic models, the kernels. The API is POST /predict, with a
schema at /openapi.json. Only this machine reaches the server, unless --host says otherwise.
"""
from argparse import ArgumentParser, Namespace
from contextlib import suppress
from pathlib import Path

from dwnet.demo.embedded import prepare_if_missing
from dwnet.engine.preflight import check_data
from dwnet.errors import UserError, requires

from ._arguments import add_model_arguments
from ._config import load_config
from ._model import check_model, chosen_inferencer

EXAMPLE = ('--config configs/classification/dwnet-nano_digits.py '
           '--checkpoint work_dirs/dwnet-nano_digits/epoch_10.pth')


def add_arguments(parser: ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument('--model', help='the .onnx or .xml file of tools/export.py, in the place of --checkpoint')
    parser.add_argument('--host', default='127.0.0.1', help='address to listen at (default: 127.0.0.1, this machine '
                        'alone); 0.0.0.0 is all of the network, without a password')
    parser.add_argument('--port', type=int, default=7860, help='default: 7860; 0 takes any that is free')
    parser.add_argument('--max-megabytes', type=float, default=20, help='of an uploaded file (default: 20)')
    parser.add_argument('--max-megapixels', type=float, default=50, help='of an image (default: 50)')
    parser.add_argument('--per-minute', type=int, default=240, help='requests from one address (default: 240)')
    parser.add_argument('--queue', type=int, default=32, help='requests that may wait (default: 32)')
    parser.add_argument('--space', metavar='FOLDER', help='serve nothing; write a folder for Hugging Face Spaces')


def run(args: Namespace) -> None:
    check_model(args)
    if args.space and args.model is not None:
        raise UserError('--space needs --checkpoint: a Space is written from the weights')
    for name in ('max_megabytes', 'max_megapixels', 'per_minute', 'queue'):
        if getattr(args, name) <= 0:
            raise UserError(f"--{name.replace('_', '-')} {getattr(args, name)}: it has to be more than 0")
    with requires('gradio', 'serve', 'the page'):
        from dwnet.deploy.serve.app import serve
        from dwnet.deploy.serve.limits import Limits
        from dwnet.deploy.serve.space import find_examples, write_space

    cfg = load_config(args)
    with suppress(UserError):  # without data the page has no examples
        check_data(cfg, 'test', prepare=prepare_if_missing)
    title = Path(args.config).stem
    infer = chosen_inferencer(cfg, args)
    examples = find_examples(cfg)
    if args.space:
        print(f'{write_space(infer.model, args.space, title, examples)}: python app.py serves it')
        return
    limits = Limits(args.max_megabytes, args.max_megapixels, args.per_minute, args.queue)
    serve(infer, title, args.host, args.port, limits, examples)
