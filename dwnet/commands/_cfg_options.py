"""``--cfg-options KEY=VALUE …``: how the values are read, and how they change the config."""
import argparse
import ast
import contextlib
import copy
import re
import warnings
from typing import Any

from mmengine.config import Config

HELP = ("a VALUE is text as typed, unless it is a Python literal, such as 8, 1e-3, True, None, 'text', [1, 2], (1, 2) "
        "or dict(type='ReLU'); 1,2 and [bbox,segm] are lists")
_BOOLEANS = dict(true=True, false=False)  # as users of OpenMMLab may write them
_WORD = re.compile(r"""'[^']*'|"[^"]*"|[^\[\](),'"\s][^\[\](),'"]*""")  # inside brackets


class CfgOptions(argparse.Action):
    """Collects ``KEY=VALUE`` arguments in a dictionary; mmengine's action drops spaces and splits text at commas."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any,
                 option_string: str | None = None) -> None:
        options = dict(getattr(namespace, self.dest) or {})
        for argument in values:
            key, sign, text = argument.partition('=')
            if not sign or not all(key.split('.')):
                parser.error(f'{option_string} {argument}: an option has the form KEY=VALUE')
            try:
                options[key] = read_value(text)
            except ValueError as error:
                parser.error(f'{option_string} {argument}: {error}')
        setattr(namespace, self.dest, options)


def merge_options(cfg: Config, options: dict[str, Any]) -> None:
    """Sets each key of ``options`` to its value; a dictionary replaces what was there.

    Raises:
        Exception: Any kind, if the config has no place for a key.
    """
    options = copy.deepcopy(options)  # the config must not share the dictionaries among them
    for key, value in options.items():
        cfg.merge_from_dict({key: {'_delete_': True} if isinstance(value, dict) else value})
        if isinstance(value, dict):  # mmengine leaves _delete_ in a new dictionary, and merges one in a list
            place: Any = cfg
            for name in key.split('.'):
                place = place[int(name) if isinstance(place, list) else name]
            place.clear()
            place.update(value)


def read_value(text: str) -> Any:
    """The value that a text stands for: a Python literal, a list, or else the text itself.

    A literal may hold ``dict(key=literal)``; nothing else is called. Literals with commas between them are a list.
    Inside brackets the quotes may be missing, as in ``[bbox,segm]``.

    Raises:
        ValueError: If the text begins like a ``dict`` and is none.

    Example:
        >>> read_value('1,2'), read_value('/data/cats, dogs'), read_value("dict(type='ReLU')")
        ([1, 2], '/data/cats, dogs', {'type': 'ReLU'})
    """
    stripped = text.strip()
    if stripped in _BOOLEANS:
        return _BOOLEANS[stripped]
    try:
        return _read_literal(stripped)
    except ValueError as error:
        if stripped.startswith('dict(') and stripped.endswith(')'):
            raise ValueError("a dict looks like dict(type='Pretrained', checkpoint='file.pth'), with text in quotes, "
                             'and the whole option is quoted for the shell') from error
    if stripped[:1] + stripped[-1:] in ('[]', '()'):
        with contextlib.suppress(ValueError):
            value = _read_literal(_WORD.sub(lambda word: repr(_read_word(word[0].strip())), stripped))
            return value if isinstance(value, (list, tuple)) else text
    return text


def _read_word(word: str) -> Any:
    try:
        return _BOOLEANS[word] if word in _BOOLEANS else _read_literal(word)
    except ValueError:
        return word


def _read_literal(text: str) -> Any:
    """The value of a literal.

    Raises:
        ValueError: If the text is none.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # Python warns of backslashes in quotes
            node = ast.parse(text, mode='eval').body
        if isinstance(node, ast.Tuple) and node.elts and node.elts[0].col_offset == node.col_offset:  # no brackets
            return [_value_of(part) for part in node.elts]
        return _value_of(node)
    except (SyntaxError, TypeError, RecursionError, MemoryError) as error:  # TypeError: a list as a key
        raise ValueError('no literal') from error


def _value_of(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=bool() | int() | float() | str() | None):
            return node.value
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=ast.Constant(value=int() | float() as number)):
            return -number if isinstance(node.op, ast.USub) else number
        case ast.List(elts=parts):
            return [_value_of(part) for part in parts]
        case ast.Tuple(elts=parts):
            return tuple(_value_of(part) for part in parts)
        case ast.Dict(keys=keys, values=values) if None not in keys:
            return {_value_of(key): _value_of(value) for key, value in zip(keys, values)}
        case ast.Call(func=ast.Name(id='dict'), args=[], keywords=keywords) if all(k.arg for k in keywords):
            return {keyword.arg: _value_of(keyword.value) for keyword in keywords}
    raise ValueError('no literal')
