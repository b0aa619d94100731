"""A user's own data with a damaged annotation file, as cases of chaos_files.py."""
import re
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import text_mutations
from mutations import BYTES, Mutation
from scenes import NAMES, box_of, content, make_scenes, write_picture

from dwnet.data import voc, yolo
from dwnet.data.files import Files
from dwnet.data.own import read_own_data
from dwnet.errors import UserError

FAILURE = 'FAILURE: '
SCENES = make_scenes(8)


class OwnData:
    """Readings of eight pictures, one annotation file of which is damaged.

    A case is right if the data are refused in one line that names the file or its folder; or if the other pictures keep
    their objects, and notes tell of pictures and objects that are missing.
    """
    form: ModuleType
    damage: list[tuple[str, dict[str, Mutation]]]  # how a file's name begins, and what may happen to the file
    off_by = ''  # the note that tells that all boxes are a pixel off

    def __init__(self, folder: Path, data: Path, seed: int) -> None:
        self.folder, self.seed, self.whole = folder, seed, folder / 'whole'
        self.texts = self.write()
        for name, text in self.texts.items():
            (self.whole / name).parent.mkdir(parents=True, exist_ok=True)
            (self.whole / name).write_text(text)
        for scene in SCENES:
            write_picture(self.whole / 'images' / scene.stem, scene.size)
        table = self.form.read(Files(self.whole), folder / 'out')
        self.truth, self.notes = content(table), table.notes

    def write(self) -> dict[str, str]:
        """Name → content of the annotation files."""
        raise NotImplementedError

    def objects_in(self, text: str) -> int:
        """How many objects an annotation file has, broken ones, too."""
        raise NotImplementedError

    def make(self, number: int) -> tuple[str, str, bytes]:
        """The name of the damaged file, the kind of damage, and the content."""
        rng = np.random.default_rng([self.seed, number])
        start, kinds = self.damage[number % len(self.damage)]
        kind, mutate = list(kinds.items())[number // len(self.damage) % len(kinds)]
        names = [name for name, text in self.texts.items() if name.startswith(start) and text]
        name = names[rng.integers(len(names))]
        return name, f'{start} {kind}', mutate(rng, self.texts[name].encode())

    def kinds(self, number: int) -> list[str]:
        return [self.make(number)[1]]

    def run(self, number: int) -> list[tuple[str, str]]:
        name, kind, damaged = self.make(number)
        root = self.folder / f'case{number}'
        shutil.copytree(self.whole, root)
        (root / name).write_bytes(damaged)
        try:
            outcome = self._read(root, name)
        except UserError as error:
            line = str(error)
            says_where = str(root) in line and 'has no data for' not in line and len(line) < 5000 and '\n' not in line
            outcome = 'refused' if says_where else f'{FAILURE}an error that does not help: {line[:300]}'
        except BaseException as error:
            outcome = f'{FAILURE}{type(error).__name__}: {error}'.replace('\n', ' ')[:300]
        if not outcome.startswith(FAILURE):
            shutil.rmtree(root)
        return [(kind, outcome)]

    def _read(self, root: Path, name: str) -> str:
        out = root / 'out'
        read_own_data([root], 'detection', [self.form], out)  # and what is written passes the checks of COCO files
        table = self.form.read(Files(root, out), out)
        found, notes = content(table), ' '.join(note for note in table.notes if note not in self.notes)
        off = 1 if self.off_by and self.off_by in notes else 1e-6
        others = {stem for stem in self.truth if stem != Path(name).stem}
        for stem in others & found.keys():
            ours, theirs = found[stem][1], self.truth[stem][1]
            if len(ours) < len(theirs) and 'with a class that has no name' in notes:
                continue  # the names were damaged
            if len(ours) != len(theirs) or any(np.abs(box - its).max() > off for (_, box, _), (_, its, _)
                                               in zip(ours, theirs)):
                return f'{FAILURE}other objects in {stem}'
        lost = [f'picture {stem}' for stem in others - found.keys()]
        if Path(name).stem in self.truth:
            text = (root / name).read_bytes().decode('utf-8', 'replace')
            ours = len(found.get(Path(name).stem, (None, ()))[1])
            lost += [f'{self.objects_in(text) - ours} objects'] * (self.objects_in(text) > ours)
        if lost and not notes:
            return f'{FAILURE}lost in silence: {lost}'
        return 'read, and told of' if notes else 'read'


class Yolo(OwnData):
    """Polygons, settings in data.yaml, and a list of images."""
    form = yolo
    damage = [('labels', text_mutations.LABELS), ('data.yaml', text_mutations.SETTINGS),
              ('labels', text_mutations.LABELS), ('train.txt', BYTES)]

    def write(self) -> dict[str, str]:
        labels = {f'labels/{scene.stem}.txt': ''.join(
            f"{NAMES.index(name)} {' '.join(f'{value:.6f}' for value in (polygon / scene.size).ravel())}\n"
            for name, polygon in scene.objects) for scene in SCENES}
        images = [f'images/{scene.stem}.jpg\n' for scene in SCENES]
        return {**labels, 'data.yaml': 'path: .\ntrain: train.txt\nval: val.txt\nnames:\n' + ''.join(
            f'  {i}: {name}\n' for i, name in enumerate(NAMES)),
            'train.txt': ''.join(images[:6]), 'val.txt': ''.join(images[6:])}

    def objects_in(self, text: str) -> int:
        return sum(bool(line.partition('#')[0].strip()) for line in text.splitlines())


class Voc(OwnData):
    """XML files and lists of images."""
    form = voc
    damage = [('Annotations', text_mutations.XML), ('Annotations', text_mutations.XML), ('ImageSets', BYTES)]
    off_by = 'pixels are counted from 0'

    def write(self) -> dict[str, str]:
        files = {}
        for scene in SCENES:
            objects = ''
            for name, polygon in scene.objects:
                x, y, w, h = box_of(polygon)
                objects += (f'<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{x + 1:g}</xmin><ymin>'
                            f'{y + 1:g}</ymin><xmax>{x + w:g}</xmax><ymax>{y + h:g}</ymax></bndbox></object>')
            width, height = scene.size
            files[f'Annotations/{scene.stem}.xml'] = (
                f'<annotation><filename>{scene.stem}.jpg</filename><size><width>{width}</width><height>{height}</height>'
                f'<depth>3</depth></size>{objects}</annotation>')
        stems = [f'{scene.stem}\n' for scene in SCENES]
        return {**files, 'ImageSets/Main/train.txt': ''.join(stems[:6]), 'ImageSets/Main/val.txt': ''.join(stems[6:])}

    def objects_in(self, text: str) -> int:
        return len(re.findall('<object>', text))
