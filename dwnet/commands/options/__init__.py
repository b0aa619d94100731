"""Options as changes of a config.

A command has a table of :class:`Option` s, in the order in which they change the config; :func:`apply_options` goes
through it. After that the config alone says what happens.

===============  ==================================================================
``weights``      what a training or test starts from
``fine_tuning``  a user's own data; length, learning rate and what else is trained how
``running``      precision, speed, processes, and what is written
===============  ==================================================================
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
        flag: As it is typed: ``'--freeze'``, or, of several choices, the one with an effect: ``'--strategy fsdp'``.
        change: The function that changes the config. It gets the config, the value of the flag unless the flag is a
            switch, and the values of ``with_values_of``.
        conflicts: Flags that cannot be given as well.
        with_values_of: Flags whose values ``change`` needs, too, given or not.
    """
    flag: str
    change: Callable[..., None]
    conflicts: tuple[str, ...] = ()
    with_values_of: tuple[str, ...] = ()


def apply_options(options: Sequence[Option], cfg: Config, args: Namespace) -> None:
    """Changes ``cfg`` by every option of the table that ``args`` has, from the first to the last.

    Raises:
        UserError: If two of them conflict; then none has changed ``cfg``.
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


def _is_given(flag: str, args: Namespace) -> bool:
    value, choice = _value(flag, args), flag.partition(' ')[2]
    return value == choice if choice else value is not False and value not in (None, '')


def _value(flag: str, args: Namespace) -> Any:
    return getattr(args, flag.partition(' ')[0].removeprefix('--').replace('-', '_'))


def add_hook(cfg: Config, name: str, **arguments: Any) -> None:
    """Adds a hook behind those of the config."""
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), dict(type=name, **arguments)]


def has_dwnet(cfg: Config) -> bool:
    """Whether the backbone is a DWNet."""
    return is_a(cfg.model.get('backbone') or {}, DWNet, MODELS, cfg.get('default_scope'))
