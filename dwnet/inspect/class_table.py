"""The classes of a training: how many images and objects each part has of them, and how well each is predicted."""
from collections.abc import Iterable
from typing import Any

from dwnet.engine.scores import remark
from dwnet.inspect.page import Table
from dwnet.toolboxes.base import Toolbox

HINT = ('Few: fewer than 10, so that chance decides the score. None: the part cannot train or score the class. '
        'The scores are those of the best validation.')


def class_table(toolbox: Toolbox, parts: dict[str, Any], of_classes: dict[str, list]) -> Table | None:
    """A line for each class; None if the toolbox does not count the classes of these data.

    Args:
        toolbox: The toolbox of the data.
        parts: ``'train'``, ``'val'`` and so on → the data set.
        of_classes: Scores of the validation, see :meth:`dwnet.toolboxes.base.Toolbox.class_scores`; may be empty.
    """
    counts = {part: toolbox.count_classes(dataset) for part, dataset in parts.items()}
    if not all(counts.values()):
        return None
    names = [str(name) for name in parts['train'].metainfo['classes']]
    columns = {f'{part} {what}': numbers for part, found in counts.items() for what, numbers in found.items()}
    columns |= dict(list(of_classes.items())[2:])  # behind the names and the numbers of the validation
    deciding = {part: list(found.values())[-1] for part, found in counts.items()}  # objects, or else images
    remarks = [_remarks(zip(deciding, numbers)) for numbers in zip(*deciding.values())]
    return Table(['class', *columns, ''], zip(names, *columns.values(), remarks))


def _remarks(numbers: Iterable[tuple[str, int]]) -> str:
    return ', '.join(filter(None, (remark(part, number) for part, number in numbers)))
