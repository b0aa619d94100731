"""The rows of CSV, TSV and JSON-lines files."""
import csv
import io
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from dwnet.errors import UserError

from .files import IMAGES


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
    text = path.read_bytes().decode('utf-8-sig', 'replace').lstrip()
    try:
        records = (_of_csv(text, known) if path.suffix.lower() in ('.csv', '.tsv') else _of_json(text))
    except csv.Error as error:
        raise UserError(f'{path} is no table ({error}); save it again, or move it away') from error
    return records


def plain(column: str) -> str:
    """``'File Name'`` → ``'file_name'``."""
    return '_'.join(column.lower().split())


def _of_csv(text: str, known: Collection[str]) -> list[dict[str, Any] | None]:
    for delimiter in ',;\t|':
        lines = csv.reader(io.StringIO(text, newline=''), delimiter=delimiter, skipinitialspace=True)
        head = [cell.strip() for cell in next(lines, [])]
        if any(plain(cell) in known for cell in head):
            rows = []
        elif len(head) == 2 and head[0].lower().endswith(IMAGES):  # no names of columns
            head, rows = ['file', 'label'], [head]
        else:
            continue
        rows += [row for row in lines if any(map(str.strip, row))]
        return [dict(zip(head, row)) if len(row) <= len(head) else None for row in rows]
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
