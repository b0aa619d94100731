"""Command-line options as changes of a config.

A command has a table of options, in the order in which they change the config; :func:`apply_options` applies those that
the user has given. After that the config alone says what happens.

===============  ================================================================================
``weights``      the weights with which a training or a test starts
``balance``      rare classes, drawn more often
``fine_tuning``  a user's own data; length and learning rate of a training, frozen and averaged weights
``running``      precision, speed and processes; what a training or a test writes
===============  ================================================================================
"""
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS

from dwnet.errors import UserError
from dwnet.models import DWNet
from dwnet.registry import is_a


@dataclass(frozen=True)
class Option:
    """A row of a command's table.

    Attributes:
        flag: The flag as a user types it: ``'--freeze'``. A flag with choices includes the choice that has an effect:
            ``'--strategy fsdp'``.
        change: Changes the config. Called with the config, the flag's value (unless the flag is a switch or includes
            a choice), and the values of ``with_values_of``.
        conflicts: Flags that cannot be combined with this one.
        with_values_of: Other flags whose values ``change`` needs, given or not.
    """
    flag: str
    change: Callable[..., None]
    conflicts: tuple[str, ...] = ()
    with_values_of: tuple[str, ...] = ()


def apply_options(options: Sequence[Option], cfg: Config, args: Namespace) -> None:
    """Applies the given options to ``cfg``, in the order of the table.

    Raises:
        UserError: If two given options conflict; ``cfg`` is unchanged then.
    """
    given = [option for option in options if _is_given(option.flag, args)]
    for option in given:
        for other in option.conflicts:
            if _is_given(other, args):
                raise UserError(f'{option.flag} cannot be combined with {other}; choose one')
    for option in given:
        value = _value(option.flag, args)
        values = [] if value is True or ' ' in option.flag else [value]
        option.change(cfg, *values, *(_value(flag, args) for flag in option.with_values_of))


def refuse_given(flags: Sequence[str], args: Namespace, reason: str) -> None:
    """Refuses options that have no effect here.

    Raises:
        UserError: If one of ``flags`` is given; the message is the flag and ``reason``.
    """
    for flag in flags:
        if _is_given(flag, args):
            raise UserError(f'{flag} {reason}; leave it out')


def _is_given(flag: str, args: Namespace) -> bool:
    value, choice = _value(flag, args), flag.partition(' ')[2]
    return value == choice if choice else value is not False and value not in (None, '')


def _value(flag: str, args: Namespace) -> Any:
    return getattr(args, flag.partition(' ')[0].removeprefix('--').replace('-', '_'))


def add_hook(cfg: Config, name: str, **arguments: Any) -> None:
    """Appends a hook to the config's ``custom_hooks``."""
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), dict(type=name, **arguments)]


def has_dwnet(cfg: Config) -> bool:
    """Whether the backbone is a DWNet."""
    return is_a(cfg.model.get('backbone') or {}, DWNet, MODELS, cfg.get('default_scope'))
