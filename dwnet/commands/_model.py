"""The model that a command runs on images: a checkpoint's, or an exported file."""
from argparse import Namespace
from typing import Any

from mmengine.config import Config

from dwnet.apis import inferencer
from dwnet.deploy.exported import with_exported
from dwnet.errors import UserError

from ._arguments import chosen_device
from .options import refuse_given


def check_model(args: Namespace) -> None:
    """Checks ``--checkpoint``, ``--model`` and ``--device``.

    Raises:
        UserError: If there is neither a checkpoint nor an exported file, or the file is given what it has itself.
    """
    if args.checkpoint is None and args.model is None:
        raise UserError('--checkpoint FILE or --model FILE is missing: without weights the predictions would be random')
    if args.model is not None:
        refuse_given(('--checkpoint', '--device'), args, f'is not for --model {args.model}, which has the weights and '
                     'runs on the CPU')


def chosen_inferencer(cfg: Config, args: Namespace) -> Any:
    """The toolbox's inferencer around the model."""
    if args.model is not None:
        return inferencer(with_exported(cfg, args.model))
    return inferencer(cfg, args.checkpoint, chosen_device(args.device))
