"""Damaged tables, legends and label images as cases of chaos_files.py."""
import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
from mutations import BYTES, Mutation
from numpy.random import Generator
from PIL import Image

from dwnet.data import listing, masks
from dwnet.data.files import Files
from dwnet.data.own import read_own_data
from dwnet.data.table import Table
from dwnet.errors import UserError

FAILURE = 'FAILURE: '
_ODD = ('', '"', 'x' * 200_000, '-1', '1e309', 'nan', '\0', '../../etc/passwd', '/dev/zero', '[', '[' * 5000, "['a'",
        '|;|', '{"a": 1}', '9' * 400, 'ü\u2028', 'a\nb', 'http://127.0.0.1:9/x.jpg', '#12345', '300', 'true')


def _cells(change: Callable[[Generator, list[list[str]]], None]) -> Mutation:
    """A mutation of the cells of a CSV file."""

    def mutate(rng: Generator, data: bytes) -> bytes:
        rows = list(csv.reader(io.StringIO(data.decode())))
        change(rng, rows)
        out = io.StringIO()
        csv.writer(out, delimiter=str(rng.choice(list(',;\t')))).writerows(rows)
        return out.getvalue().encode()

    return mutate


def _odd_cell(rng: Generator, rows: list[list[str]]) -> None:
    row = rows[rng.integers(len(rows))]
    row[rng.integers(len(row))] = str(rng.choice(_ODD))


def _less_or_more(rng: Generator, rows: list[list[str]]) -> None:
    row = rows[rng.integers(len(rows))]
    if rng.random() < .5:
        del row[rng.integers(len(row))]
    else:
        row.insert(rng.integers(len(row) + 1), 'more')


def _mixed(rng: Generator, rows: list[list[str]]) -> None:
    one, other = rng.integers(len(rows), size=2)
    rows[one], rows[other] = rows[other], [*rows[one]]


def _quote(rng: Generator, data: bytes) -> bytes:
    place = rng.integers(len(data))
    return data[:place] + b'"' + data[place:]


CSV: dict[str, Mutation] = {
    **BYTES, 'odd cell': _cells(_odd_cell), 'cells removed or added': _cells(_less_or_more),
    'rows mixed': _cells(_mixed), 'quote': _quote}


def _odd_json(rng: Generator, data: bytes) -> bytes:
    lines = data.split(b'\n')
    record = json.loads(lines[place := rng.integers(len(lines) - 1)])
    odd = [None, [], {}, [None], [[1]], True, -5, 1e308, float('nan'), 10**400, 'x', [''] * 9, {'a': {}}]
    record[str(rng.choice(list(record)))] = odd[rng.integers(len(odd))]
    lines[place] = json.dumps(record).encode()
    return b'\n'.join(lines)


JSON_LINES: dict[str, Mutation] = {
    **BYTES, 'odd value': _odd_json, 'odd value again': _odd_json, 'deep': lambda rng, data: data + b'[' * 100_000}


class _Forms:
    """Readings of a folder in which one file is damaged: it is refused in one line, or what is whole stays as it is."""
    batch = 1

    def __init__(self, folder: Path, data: Path, seed: int) -> None:
        self.folder, self.seed, self.whole = folder, seed, folder / 'whole'
        self.damage = self.write()

    def write(self) -> list[tuple[str, str, Mutation]]:
        """Writes the whole folder; kind of damage, the file that is damaged, the mutation."""
        raise NotImplementedError

    def judge(self, root: Path, name: str) -> str:
        raise NotImplementedError

    def content(self, name: str) -> bytes:
        return (self.whole / name).read_bytes()

    def kinds(self, number: int) -> list[str]:
        return [self.damage[number % len(self.damage)][0]]

    def run(self, number: int) -> list[tuple[str, str]]:
        kind, name, mutate = self.damage[number % len(self.damage)]
        root = self.folder / f'case{number}' / 'my'
        shutil.copytree(self.whole, root)
        (root / name).write_bytes(mutate(np.random.default_rng([self.seed, number]), self.content(name)))
        try:
            outcome = self.judge(root, name)
        except UserError as error:
            line = str(error)
            right = str(root) in line and '\n' not in line and len(line) < 5000
            outcome = 'refused' if right else f'{FAILURE}an error that does not help: {line[:300]}'
        except BaseException as error:
            outcome = f'{FAILURE}{type(error).__name__}: {error}'.replace('\n', ' ')[:300]
        if not outcome.startswith(FAILURE):
            shutil.rmtree(root.parent)
        return [(kind, outcome)]

    def read(self, root: Path, form: ModuleType, task: str) -> Table:
        read_own_data([root], task, [form], root.parent / 'data')
        return form.read(Files(root), root.parent / 'data')


class Tables(_Forms):
    """CSV files of one label and of a column a class, and JSON lines of several labels, of twelve images."""
    truth = {f'{i:02d}.png': ['ant', 'bee', 'cat'][i % 3] for i in range(12)}

    def write(self) -> list[tuple[str, str, Mutation]]:
        (self.whole / 'images').mkdir(parents=True)
        for i, name in enumerate(self.truth):
            Image.new('RGB', (4, 4), (i, 0, 0)).save(self.whole / 'images' / name)
        hot = dict(ant='1,0,0', bee='0,1,0', cat='0,0,1')
        self.texts = {
            'one.csv': 'file,label\n' + ''.join(f'{name},{label}\n' for name, label in self.truth.items()),
            'hot.csv': 'file,ant,bee,cat\n' + ''.join(f'{name},{hot[label]}\n' for name, label in self.truth.items()),
            'lines.jsonl': ''.join(f'{json.dumps(dict(file=name, label=[label]))}\n'
                                   for name, label in self.truth.items())}
        return [(f'{name}: {kind}', name, mutate) for name in self.texts
                for kind, mutate in (JSON_LINES if name == 'lines.jsonl' else CSV).items()]

    def content(self, name: str) -> bytes:
        return self.texts[name].encode()  # a case has one of the tables alone

    def judge(self, root: Path, name: str) -> str:
        table = self.read(root, listing, 'classification')
        found = {Path(entry.image).name: entry.label for entry in table.parts['all']}
        lines = set((root / name).read_bytes().decode('utf-8', 'replace').splitlines())
        if name == 'hot.csv' and self.texts[name].partition('\n')[0] not in lines:  # the classes have other names
            return 'read'
        whole = [image for image, line in zip(self.truth, self.texts[name].splitlines()[name != 'lines.jsonl':])
                 if line in lines]
        for image in whole:
            labels = found.get(image, ())
            names = [table.classes[label] for label in ([labels] if isinstance(labels, int) else labels)]
            if names != [self.truth[image]] and not table.notes:
                return f'{FAILURE}{image} is {names} in silence'
        return 'read, and told of' if table.notes else 'read'


class LabelImages(_Forms):
    """Eight pairs of image and label image in colours; the legend or one of the label images is damaged."""

    def write(self) -> list[tuple[str, str, Mutation]]:
        rng = np.random.default_rng(0)
        self.colours = {'ant': (0, 0, 0), 'bee': (200, 0, 0), 'cat': (0, 200, 0)}
        self.labels = {f'{i}.png': rng.integers(0, 3, (16, 16)) for i in range(8)}
        for i, (name, labels) in enumerate(self.labels.items()):
            coloured = np.array([*self.colours.values()])[labels]
            for folder, content in (('images', np.full((16, 16, 3), i)), ('masks', coloured)):
                (self.whole / folder).mkdir(parents=True, exist_ok=True)
                Image.fromarray(content.astype(np.uint8)).save(self.whole / folder / name)
        (self.whole / 'classes.csv').write_text('name,r,g,b\n' + ''.join(
            f"{name},{','.join(map(str, colour))}\n" for name, colour in self.colours.items()))
        return [*((f'legend: {kind}', 'classes.csv', mutate) for kind, mutate in CSV.items()),
                *((f'label image: {kind}', 'masks/3.png', mutate) for kind, mutate in BYTES.items())]

    def judge(self, root: Path, name: str) -> str:
        table = self.read(root, masks, 'segmentation')
        found = {Path(entry.image).name: np.array(Image.open(root / entry.mask)) for entry in table.parts['all']}
        classes = np.array([*table.classes, *[''] * 256])
        for image, labels in self.labels.items():
            if image not in found:
                if not table.notes:
                    return f'{FAILURE}{image} is left out in silence'
            elif image != Path(name).name:
                names = classes[found[image]]
                for label, own in enumerate(self.colours):
                    if own in table.classes and not (names[labels == label] == own).all() and name != 'classes.csv':
                        return f'{FAILURE}{own} has other pixels in {image}'
                if len(np.unique(found[image])) != 3:
                    return f'{FAILURE}{len(np.unique(found[image]))} labels in {image}'
        return 'read, and told of' if table.notes else 'read'
