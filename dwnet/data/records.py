"""The rows of CSV, TSV and JSON-lines files."""
import csv
import io
import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from dwnet.errors import UserError

from .files import IMAGES, read_text


def read_records(path: Path, known: Collection[str]) -> list[dict[str, Any] | None]:
    """The rows of a file as column → cell.

    Args:
        path: The file; its ending tells the form.
        known: Names of columns, by :func:`plain`. The delimiter of a CSV file is that with which one of these is found.

    Returns:
        The rows; None in the place of a row that is no JSON, or has more cells than columns. A CSV file of two columns
        without names, the first of images, has the columns file and label. A CSV file without a known column has no
        rows.

    Raises:
        UserError: If the file is no table at all.
    """
    text = read_text(path).lstrip()
    try:
        records = (_of_csv(text, known) if path.suffix.lower() in ('.csv', '.tsv') else _of_json(text))
    except csv.Error as error:
        raise UserError(f'{path} is no table ({error}); save it again, or move it away') from error
    return records


def plain(column: str) -> str:
    """``'File Name'`` → ``'file_name'``."""
    return '_'.join(column.lower().split())


def _of_csv(text: str, known: Collection[str]) -> list[dict[str, Any] | None]:
    first = re.split('[\\r\\n]', text, maxsplit=1)[0]
    for delimiter in ',;\t|':
        head = [cell.strip() for cell in next(csv.reader([first], delimiter=delimiter, skipinitialspace=True), [])]
        named = any(plain(cell) in known for cell in head)
        if named or len(head) == 2 and head[0].lower().endswith(IMAGES):
            rows = csv.reader(io.StringIO(text, newline=''), delimiter=delimiter, skipinitialspace=True, strict=True)
            if named:
                next(rows)
            else:
                head = ['file', 'label']
            return [dict(zip(head, row)) if len(row) <= len(head) else None for row in rows if any(map(str.strip, row))]
    return []


def _of_json(text: str) -> list[dict[str, Any] | None]:
    records = []
    for line in filter(None, map(str.strip, text.split('\n'))):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        records.append(record if isinstance(record, dict) else None)
    return records
