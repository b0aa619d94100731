"""Tables that name images and their labels: CSV, TSV or JSON lines, at the root or in the folder of a part.

An image has one label, or several: ``cat|dog``, ``cat;dog``, a list, or a column for each class with 0 and 1. A column
``split`` tells the part of an image, or the name of the table or of its folder does.
"""
import ast
import contextlib
import json
import posixpath
import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from dwnet.errors import UserError, some

from .files import Files, part_in, part_of, read_text
from .records import plain, read_records
from .table import Entry, Table, leave_out, without_missing

NAME = 'listing'
NEEDS = 'a table (.csv, .tsv or .jsonl) with the columns file and label'
_FILES = ('file', 'filename', 'file_name', 'filepath', 'filepaths', 'file_path', 'image', 'image_path', 'image_name',
          'image_id', 'img', 'img_path', 'img_name', 'path')
_LABELS = ('label', 'labels', 'class', 'classes', 'class_name', 'category', 'categories', 'tag', 'tags')
_PARTS = ('split', 'part', 'set', 'subset', 'partition', 'data_set', 'dataset')
_NUMBERS = {'0': 0, '1': 1, '0.0': 0, '1.0': 1, 'false': 0, 'true': 1, '': 0}  # cells of a column that is a class


class _Row(NamedTuple):
    """An image of a table; ``labels`` is None if the image is not labelled."""
    file: str
    labels: tuple[str, ...] | None
    part: str


def read(files: Files, out: Path) -> Table | None:
    """The images that tables name; None if there is no table of images and labels."""
    notes: list[str] = []
    tables = {name: rows for name in files.ending('.csv', '.tsv', '.jsonl', '.ndjson')
              if 'submission' not in name.lower() and (rows := _rows(files, name, notes)) is not None}  # Kaggle's
    if not tables:
        return None
    rows = [row for its in tables.values() for row in its]
    names = {label: label for row in rows for label in row.labels or ()}
    if all(map(_is_whole, names)):  # pandas writes 3.0 where a column has gaps
        names = {label: label.partition('.')[0] for label in names}
    classes = sorted(set(names.values()))
    if len(classes) < 2:
        raise UserError(f'{some(map(files.path, tables))} has {len(classes)} labels ({some(classes)}): two at least '
                        'are needed')
    several = any(row.labels is not None and len(row.labels) != 1 for row in rows)
    number = {label: classes.index(name) for label, name in names.items()}
    table = Table(f"{'several labels an image' if several else 'labels'} ({some(tables)})", classes, {}, notes)
    for name, its in tables.items():
        for part in dict.fromkeys(row.part for row in its):
            entries = [Entry(row.file, label=_label(row, number, several)) for row in its if row.part == part]
            labelled = [entry for entry in entries if entry.label is not None]
            if labelled and len(labelled) < len(entries):
                notes.append(f'{len(entries) - len(labelled)} rows of {name} have no label, and are left out')
                entries = labelled

            def find(entry: Entry, near: str = posixpath.dirname(name), part: str = part) -> str | None:
                return files.locate(entry.image, near, part)

            entries = without_missing(entries, find, str(files.path(name)), notes)
            table.parts[part] = [*table.parts.get(part, []), *entries]
    _tell_rare(table)
    return table


def _label(row: _Row, number: dict[str, int], several: bool) -> int | tuple[int, ...] | None:
    if row.labels is None:
        return None
    labels = tuple(sorted({number[label] for label in row.labels}))
    return labels if several else labels[0]


def _tell_rare(table: Table) -> None:
    counts: Counter[int] = Counter()
    for part in {'all', 'train'} & table.parts.keys():
        for entry in table.parts[part]:
            counts.update([entry.label] if isinstance(entry.label, int) else entry.label or ())
    for few, what in ((0, 'no image'), (1, 'one image')):
        if rare := [name for i, name in enumerate(table.classes) if counts[i] == few]:
            table.notes.append(f'{len(rare)} classes have {what} to train with: {some(rare)}')


def _rows(files: Files, name: str, notes: list[str]) -> list[_Row] | None:
    """The rows of a file; None if its columns are not those of images and labels."""
    path = files.path(name)
    records = read_records(path, _FILES)
    columns = {plain(column): column for record in records if record for column in record}
    file, label, split = (next((columns[known] for known in names if known in columns), None)
                          for names in (_FILES, _LABELS, _PARTS))
    others = [column for column in columns.values() if label is None and column not in (file, split)]
    of_class = [column for column in others if all(_cell(record, column) in _NUMBERS for record in records if record)]
    if file is None or label is None and len(of_class) < 2:
        return None
    try:
        read_text(path).encode()
    except UnicodeEncodeError as error:  # what is no UTF-8 has become surrogates
        raise UserError(f'{path} is no text in UTF-8: save it again in that encoding') from error
    if len(of_class) < len(others):
        notes.append(f'columns of {name} with more than 0 and 1 are taken for no classes: '
                     f'{some(column for column in others if column not in of_class)}')
    rows, broken = [], []
    for number, record in enumerate(records, 1):
        written = record.get(file) if record else None
        if record is None or not isinstance(written, (str, int)) or not str(written).strip():
            broken.append(f'row {number}')
            continue
        if re.search(r'[\r\n]', f'{written} {_cell(record, label) if label else ""}'):
            raise UserError(f'{path} has a line break inside of a cell of row {number}: a quote is missing, or one '
                            'too many')
        part = part_in(name) or 'all'
        if split is not None and (part := part_of(str(record.get(split)).strip()) or '') == '':
            raise UserError(f'{path} says {split} = {record.get(split)} in row {number}: write train, val or test')
        labels = _labels(record.get(label)) if label is not None else _of_columns(record, of_class)
        rows.append(_Row(str(written).strip(), labels, part))
    leave_out({'without an image, or with too many cells': broken}, len(records), f'rows of {path}', notes)
    return rows


def _cell(record: dict[str, Any], column: str) -> str:
    value = record.get(column)
    return '' if value is None else str(value).strip().lower()


def _of_columns(record: dict[str, Any], columns: list[str]) -> tuple[str, ...] | None:
    cells = {column: _cell(record, column) for column in columns}
    return tuple(column for column, cell in cells.items() if _NUMBERS[cell]) if any(cells.values()) else None


def _labels(value: Any) -> tuple[str, ...] | None:
    """The labels in a cell; None if it is empty."""
    if isinstance(value, list):
        return tuple(filter(None, (str(each).strip() for each in value)))
    text = '' if value is None or value != value else str(value).strip()  # NaN is not equal to itself
    if text.startswith('[') and text.endswith(']'):
        for parse in (json.loads, ast.literal_eval):  # Python writes lists in another way
            with contextlib.suppress(ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
                return _labels(list(parse(text)))
    return tuple(filter(None, map(str.strip, re.split('[|;]', text)))) or None


def _is_whole(label: str) -> bool:
    return re.fullmatch(r'-?\d+(\.0+)?', label) is not None
