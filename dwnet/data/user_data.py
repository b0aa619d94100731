"""A user's own data in one of three forms, found by their places and put into a config.

===============  ======================================================================================
classification   ``ROOT/train/CLASS/*.jpg`` and ``ROOT/val/CLASS``, or ``ROOT/CLASS`` without a split
detection        COCO: ``ROOT/annotations/{train,val}.json`` and images anywhere below ``ROOT``; or one file
segmentation     ``ROOT/images/{train,val}`` and label images in ``ROOT/masks/{train,val}``, or without a split; the
                 names of the classes in ``ROOT/classes.txt`` or ``labels.txt``
===============  ======================================================================================

``val`` may be called ``valid``, ``validation`` or, if there is no other, ``test``; masks may lie in ``labels`` or
``annotations``. Without a split a fifth of the images, chosen by their names, validates.
"""
import colorsys
import json
import os
import sys
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.config import Config
from mmengine.registry import TRANSFORMS
from PIL import Image
from rich.console import Console
from rich.progress import track

from dwnet.errors import UserError, some
from dwnet.registry import lineage, toolbox_of

_IMAGES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.tiff', '.ppm', '.pgm')
_PARTS = dict(train=('train', 'training'), val=('val', 'valid', 'validation'), test=('test', 'testing'))
_SHARE = 5  # every so many-th image validates
_IGNORED = 255  # no class, in label images
_LOOKED_AT = 100  # so many label images are compared with their images in size
_ORIENTATION = 0x0112  # in EXIF: 5 to 8 lie on their side


class OwnData(NamedTuple):
    """What was found.

    Attributes:
        classes: Their names; label i is the i-th.
        sizes: Images of 'train' and 'val', and of 'test' if there is such a part.
        datasets: The data set's config of each part, less its pipeline.
        with_masks: Whether each object has a mask; only in detection.
    """
    classes: list[str]
    sizes: dict[str, int]
    datasets: dict[str, dict]
    with_masks: bool = False


def use_own_data(cfg: Config, root: str) -> OwnData:
    """Puts the data below ``root`` into a config: data sets, evaluators, and the number of classes of every head.

    The pipelines stay. Lists that a split makes necessary are written into ``cfg.work_dir``/split.

    Raises:
        UserError: If the data cannot be found, or have a mistake that a look at their names, classes or labels shows.
    """
    folder = Path(root).expanduser().resolve()
    if not folder.is_dir():
        raise UserError(f'--data-root {root} is no folder')
    toolbox = toolbox_of(cfg)
    find = dict(mmpretrain=_find_classes, mmdet=_find_coco, mmseg=_find_masks).get(toolbox)
    if find is None:
        raise UserError(f"--data-root needs a config of mmpretrain, mmdet or mmseg, not {toolbox!r}")
    data = find(folder, Path(cfg.work_dir, 'split').resolve())
    for part in ('train', 'val', 'test'):
        loader = cfg.get(f'{part}_dataloader')
        if loader is None:
            raise UserError(f'--data-root needs a config that trains and validates, and this one has no '
                            f'{part}_dataloader')
        pipeline = [dict(step) for step in _innermost(loader.dataset).pipeline]
        for step in pipeline:
            if 'mmcv.LoadAnnotations' in lineage(step, TRANSFORMS, cfg.get('default_scope')):
                step.pop('reduce_zero_label', None)
                if toolbox == 'mmdet':
                    step['with_mask'] = bool(step.get('with_mask')) and data.with_masks
        # a wrapper, such as one that repeats or mixes images, stays around it
        _innermost(loader.dataset, replace=dict(data.datasets.get(part, data.datasets['val']), pipeline=pipeline))
    _set_evaluators(cfg, data, toolbox)
    if toolbox == 'mmdet' and not data.with_masks:
        _leave_out_masks(cfg)
    _set_num_classes(cfg.model, len(data.classes))
    _set_num_classes(cfg.get('data_preprocessor'), len(data.classes))  # where mmpretrain's own configs have it
    return data


def _innermost(dataset: dict, replace: dict | None = None) -> dict:
    """The data set inside wrappers; its content replaced, if there is one to take its place."""
    while isinstance(dataset.get('dataset'), dict):
        dataset = dataset['dataset']
    if 'pipeline' not in dataset:
        raise UserError('--data-root cannot change a config that joins several data sets; set its dataloaders')
    if replace is not None:
        dataset.clear()
        dataset.update(replace)
    return dataset


def _set_evaluators(cfg: Config, data: OwnData, toolbox: str) -> None:
    for part in ('val', 'test'):
        if toolbox == 'mmpretrain':
            evaluator = dict(type='mmpretrain.Accuracy', topk=(1, 5) if len(data.classes) > 5 else (1, ))
        elif toolbox == 'mmdet':
            boxes = cfg.model.get('bbox_head') or not cfg.model.get('mask_head')  # SOLO has none
            masks = data.with_masks and _has_mask_head(cfg.model)
            ann_file = data.datasets.get(part, data.datasets['val'])['ann_file']
            evaluator = dict(type='mmdet.CocoMetric', ann_file=ann_file,
                             metric=[*['bbox'] * bool(boxes), *['segm'] * masks])
        else:
            evaluator = dict(type='mmseg.IoUMetric', iou_metrics=['mIoU'])
        cfg[f'{part}_evaluator'] = evaluator


# --- Heads ---------------------------------------------------------------------------------------------


def _has_mask_head(model: dict) -> bool:
    return bool(model.get('mask_head') or model.get('panoptic_head')  # Mask2Former's
                or (model.get('roi_head') or {}).get('mask_head'))


def _leave_out_masks(cfg: Config) -> None:
    """Objects have boxes alone, so a head for their masks has nothing to learn."""
    if not _has_mask_head(cfg.model):
        return
    if 'roi_head' not in cfg.model:
        raise UserError('the annotations have no masks (segmentation), and this model predicts nothing but masks; take '
                        'the config of a detector')
    cfg.model.roi_head.update(mask_head=None, mask_roi_extractor=None)
    print('the annotations have boxes and no masks: the mask head is left out')


def _set_num_classes(model: Any, number: int) -> None:
    """In each part of a model's config that tells classes apart; weights of classes, which fit them no longer, go."""
    if isinstance(model, (list, tuple)):
        for part in model:
            _set_num_classes(part, number)
    if not isinstance(model, dict):
        return
    if model.get('num_stuff_classes'):
        raise UserError('--data-root cannot set up panoptic models, which tell things and stuff apart')
    for key in ('num_classes', 'num_things_classes'):
        if key in model:
            for loss in (value for name, value in model.items() if name.startswith('loss')):
                _set_class_weight(loss, model[key], number)
            model[key] = number
    for name, part in model.items():
        if 'rpn' not in name and name != 'semantic_head':
            _set_num_classes(part, number)


def _set_class_weight(loss: Any, before: int, number: int) -> None:
    for part in loss if isinstance(loss, (list, tuple)) else [loss]:
        weights = part.get('class_weight') if isinstance(part, dict) else None
        if isinstance(weights, (list, tuple)):
            part['class_weight'] = None if len(weights) == before else [1.] * number + [weights[-1]]  # of "no object"


# --- Parts ---------------------------------------------------------------------------------------------


def _part_of(name: str) -> str | None:
    return next((part for part, names in _PARTS.items() if name.lower() in names), None)


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith('.'))


def _parts_below(folder: Path) -> dict[str, Path]:
    """'train', 'val' and 'test' → their folders, if there is a 'train'."""
    parts = {part: path for path in _folders(folder) if (part := _part_of(path.name))}
    if 'train' not in parts:
        return {}
    return _with_val(parts, folder)


def _with_val(parts: dict, where: Path) -> dict:
    """A test set validates where there is no other, which is said."""
    if 'val' not in parts:
        if 'test' not in parts:
            raise UserError(f'{where} has training data and none to validate with: name a part of them val, or give '
                            'all without a split, and a fifth of them is held back')
        print(f'{where} has no val: test validates. The best checkpoint is chosen on it, so its score is too good')
        parts['val'] = parts.pop('test')
    return parts


def _validates(items: Sequence[str]) -> set[str]:
    """The fifth that validates: those whose names' checksums are lowest, so the same ones on every machine."""
    ordered = sorted(items, key=lambda name: (zlib.crc32(name.encode()), name))
    return set(ordered[:max(1, len(items) // _SHARE)])


def _write_split(split: Path, name: str, content: str) -> str:
    split.mkdir(parents=True, exist_ok=True)
    unfinished = split / f'.{name}.{os.getpid()}'  # several processes may write the same
    unfinished.write_text(content, encoding='utf-8')
    os.replace(unfinished, split / name)
    return str(split / name)


def images_below(folder: Path) -> list[str]:
    """The images in a folder and those below it, hidden ones left out: their paths, relative to it, sorted.

    Raises:
        UserError: If there is none.
    """
    files = [path for path in folder.rglob('*') if path.is_file() and not any(
        part.startswith('.') for part in path.relative_to(folder).parts)]  # nor in .ipynb_checkpoints
    images = sorted(path.relative_to(folder).as_posix() for path in files if path.suffix.lower() in _IMAGES)
    if not images:
        others = Counter(path.suffix.lower() or 'without an ending' for path in files).most_common(3)
        there = f", but {some(f'{count} files {suffix}' for suffix, count in others)}" if others else ''
        raise UserError(f'no images in {folder}{there}; images end in {some(_IMAGES, 20)}, convert others')
    return images


def _palette(number: int) -> list[tuple[int, ...]]:
    """Colours that are easily told apart."""
    colours = [colorsys.hsv_to_rgb(i * .618 % 1, .75, 1 - .25 * (i % 2)) for i in range(number)]
    return [tuple(round(255 * part) for part in colour) for colour in colours]


# --- Classification --------------------------------------------------------------------------------------


def _find_classes(root: Path, split: Path) -> OwnData:
    folders = _split_folders(root)
    of_class = {part: {path.name: path for path in _folders(folder) if not split.is_relative_to(path)}
                for part, folder in folders.items()}  # without the work dir, or a folder that holds it
    names = sorted(of_class.get('train') or of_class.get('all', {}))
    if len(names) < 2:
        where = folders.get('train') or folders['all']
        raise UserError(f"{where} has {f'one class, {names[0]}' if names else 'no folders of classes'}: put the images "
                        'of each class into a folder of its name, for two classes at least')
    for part, classes in of_class.items():
        if not classes:
            raise UserError(f'{folders[part]} has no folders of classes, as {folders["train"]} has them: {some(names)}')
        if unknown := sorted(set(classes) - set(names)):
            raise UserError(f'{folders[part]} has classes that {folders["train"]} lacks: {some(unknown)}; name the '
                            'folders alike')
    lists: dict[str, list[str]] = defaultdict(list)
    for part, classes in of_class.items():
        for name, folder in classes.items():
            images = [f'{folder.relative_to(root).as_posix()}/{image}' for image in images_below(folder)]
            if part == 'all' and len(images) < 2:
                raise UserError(f'{folder} has one image: each class needs one to train with and one to validate with')
            held_back = _validates(images) if part == 'all' else ()
            for image in images:
                own = part if part != 'all' else 'val' if image in held_back else 'train'
                lists[own].append(f'{image} {names.index(name)}')
    datasets = {
        part: dict(type='mmpretrain.CustomDataset', data_root=str(root), metainfo=dict(classes=names),
                   ann_file=_write_split(split, f'{part}.txt', '\n'.join(lines) + '\n'))
        for part, lines in lists.items()}
    return OwnData(names, {part: len(lines) for part, lines in lists.items()}, datasets)


def _split_folders(root: Path) -> dict[str, Path]:
    """As ``_parts_below``; 'all' without a split, as beside a test set whose classes are secret (Kaggle's)."""
    below = {part: path for path in _folders(root) if (part := _part_of(path.name))}
    if 'train' in below and 'test' in below and not _folders(below['test']):
        train, test = below['train'], below['test']
        rest = '' if 'val' in below else f'; a fifth of {train} validates'
        print(f'{test} has no folders of classes and is left out{rest}')
        return dict(train=train, val=below['val']) if 'val' in below else dict(all=train)
    return _parts_below(root) or dict(all=root)


# --- Detection -------------------------------------------------------------------------------------------


def _find_coco(root: Path, split: Path) -> OwnData:
    files = sorted(path for pattern in ('*.json', '*/*.json', '*/*/*.json') for path in root.glob(pattern)
                   if not any(part.startswith('.') for part in path.relative_to(root).parts))
    if root in split.parent.parents:  # a work dir among the data, with what an earlier training has left
        files = [path for path in files if not path.is_relative_to(split.parent)]
    if len(files) > 1:  # COCO has captions and keypoints beside its instances
        files = [path for path in files if 'instances' in path.name] or files
    if not files:
        raise UserError(f'{root} has no annotations: a COCO file (.json), in {root}/annotations, is needed')
    by_part = defaultdict(list)
    for path in files:
        words = ''.join(c if c.isalpha() else ' ' for c in path.relative_to(root).as_posix()).split()
        by_part[next((part for word in words if (part := _part_of(word))), None)].append(path)
    if len(files) > 1 and None in by_part or any(len(paths) > 1 for paths in by_part.values()):
        raise UserError(f'{root} has the annotation files {some(path.relative_to(root) for path in files)}, and their '
                        'names do not tell which one trains: leave train.json and val.json, or a single one')
    contents = {part: _read_coco(paths[0]) for part, paths in by_part.items()}
    sources = {part: paths[0] for part, paths in by_part.items()}
    if len(files) == 1:
        (content, source), = zip(contents.values(), sources.values())
        contents = _split_coco(content, source)
        sources = dict.fromkeys(contents, source)
        ann_files = {part: _write_split(split, f'{part}.json', json.dumps(content))
                     for part, content in contents.items()}
    else:
        if 'train' not in contents:
            raise UserError(f'none of the annotation files of {root} has train in its name: {some(files)}')
        both = _with_val({part: (contents[part], sources[part]) for part in contents}, root)
        contents = {part: content for part, (content, _) in both.items()}
        sources = {part: source for part, (_, source) in both.items()}
        ann_files = {part: str(path) for part, path in sources.items()}
    names = {part: {category['id']: category['name'] for category in content['categories']}
             for part, content in contents.items()}
    used = {names[part].get(annotation['category_id']) for part, content in contents.items()
            for annotation in content['annotations']}
    classes = [name for name in names['train'].values() if name in used]  # some tools add a class for all
    if unknown := sorted(used - set(classes) - {None}):
        raise UserError(f"{sources['val']} has objects of {some(unknown)}, which {sources['train']} does not know")
    datasets = {}
    for part, content in contents.items():
        folder = _folder_of_images([image['file_name'] for image in content['images']], root, sources[part], part)
        datasets[part] = dict(
            type='mmdet.CocoDataset', data_root=str(root), ann_file=ann_files[part], data_prefix=dict(img=f'{folder}/'),
            metainfo=dict(classes=classes, palette=_palette(len(classes))),
            **(dict(test_mode=True) if part != 'train' else {}))  # images without objects teach the background
    sizes = {part: len(content['images']) for part, content in contents.items()}
    having = {part: all(annotation.get('segmentation') for annotation in content['annotations'])
              for part, content in contents.items()}
    if len(set(having.values())) > 1:
        with_masks, without = (next(sources[part] for part in having if having[part] == has) for has in (True, False))
        raise UserError(f'{with_masks} has masks and {without} has none: draw masks there, too, or leave out every '
                        'segmentation to train with boxes')
    return OwnData(classes, sizes, datasets, having['train'])


def _read_coco(path: Path) -> dict:
    from .coco import read_coco
    content = read_coco(str(path))
    for key in ('images', 'categories', 'annotations'):
        if not content[key]:
            raise UserError(f'{path} has no {key}; export it again, with images, categories and annotations')
    return content


def _split_coco(content: dict, path: Path) -> dict[str, dict]:
    """One file as two: a fifth of the images that have objects, and of those that have none, validates."""
    marked = {annotation['image_id'] for annotation in content['annotations']}
    held_back: set[str] = set()
    for wanted in (True, False):
        names = [image['file_name'] for image in content['images'] if (image['id'] in marked) == wanted]
        if wanted and len(names) < 2:
            raise UserError(f'{path} has one image with objects: one to train with and one to validate with is needed')
        held_back |= _validates(names) if len(names) > 1 else set()
    parts = {}
    for part in ('train', 'val'):
        images = [image for image in content['images'] if (image['file_name'] in held_back) == (part == 'val')]
        ids = {image['id'] for image in images}
        parts[part] = {**content, 'images': images,
                       'annotations': [each for each in content['annotations'] if each['image_id'] in ids]}
    return parts


def _folder_of_images(names: list[str], root: Path, source: Path, part: str) -> Path:
    """Where the images of an annotation file lie: the part's own folder first, then beside it, then anywhere."""
    sample = [names[i] for i in np.unique(np.linspace(0, len(names) - 1, 20).astype(int))]
    below = [path for path in root.rglob('*') if path.is_dir() and len(path.relative_to(root).parts) <= 3]

    def rank(folder: Path) -> tuple:
        words = ''.join(c if c.isalpha() else ' ' for c in folder.relative_to(root).as_posix()).split()
        return part not in [_part_of(word) for word in words], folder != source.parent, len(folder.parts), folder

    folders = sorted([root, *below], key=rank)
    best = max(folders, key=lambda folder: sum((folder / name).is_file() for name in sample))
    if missing := [name for name in sample if not (best / name).is_file()]:
        raise UserError(f'{source} names images that are not below {root}: {some(missing)}; put them there, or mend '
                        'file_name in the annotations')
    return best


# --- Segmentation ----------------------------------------------------------------------------------------


def _find_masks(root: Path, split: Path) -> OwnData:
    images = root / 'images'
    masks = next((path for name in ('masks', 'labels', 'annotations') if (path := root / name).is_dir()), None)
    if not images.is_dir() or masks is None:
        raise UserError(f'{root} needs the folders images and masks (or labels, or annotations): a label image for '
                        'each image')
    parts = {part: folder.relative_to(images).as_posix() for part, folder in _parts_below(images).items()} or dict(
        all='.')
    pairs = {part: _pairs(images / name, masks / name) for part, name in parts.items()}
    classes = _class_names(root, [(masks / name, pairs[part]) for part, name in parts.items()])
    palette = [(0, 0, 0), *_palette(len(classes) - 1)]  # the first is nearly always the background
    common = dict(type='mmseg.BaseSegDataset', data_root=str(root), metainfo=dict(classes=classes, palette=palette),
                  reduce_zero_label=False)
    datasets, sizes = {}, {}
    for part, name in parts.items():
        stems, suffix, mask_suffix = pairs[part]
        where = dict(data_prefix=dict(img_path=str(images / name), seg_map_path=str(masks / name)),
                     img_suffix=suffix, seg_map_suffix=mask_suffix)
        if part != 'all':
            datasets[part], sizes[part] = {**common, **where}, len(stems)
            continue
        if len(stems) < 2:
            raise UserError(f'{images} has one image: one to train with and one to validate with is needed')
        held_back = _validates(stems)
        for own in ('train', 'val'):
            chosen = [stem for stem in stems if (stem in held_back) == (own == 'val')]
            datasets[own] = {**common, **where, 'ann_file': _write_split(split, f'{own}.txt', '\n'.join(chosen) + '\n')}
            sizes[own] = len(chosen)
    return OwnData(classes, sizes, datasets)


def _pairs(images: Path, masks: Path) -> tuple[list[str], str, str]:
    """Names of the images without their ending, the ending, and what the names of their masks end in."""
    names = images_below(images)
    suffixes = sorted({Path(name).suffix for name in names})
    if len(suffixes) > 1:
        raise UserError(f'the images in {images} end in {some(suffixes)}: mmseg takes one ending, so rename or convert '
                        'them')
    if not masks.is_dir():
        raise UserError(f'{masks} is missing: the label images of {images}')
    stems = [name.removesuffix(suffixes[0]) for name in names]
    there = {path.relative_to(masks).as_posix() for path in masks.rglob('*') if path.is_file()}
    endings = sorted({name.removeprefix(stems[0]) for name in there if name.startswith(stems[0])} or {'.png'})
    ending = min(endings, key=lambda ending: sum(stem + ending not in there for stem in stems))
    if missing := [stem + ending for stem in stems if stem + ending not in there]:
        raise UserError(f'{len(missing)} of {len(stems)} images in {images} have no label image: {masks} lacks '
                        f'{some(missing)}')
    if ending.lower().endswith(('.jpg', '.jpeg')):
        raise UserError(f'the label images in {masks} are JPEG, which changes labels: write them as PNG')
    for i in np.unique(np.linspace(0, len(stems) - 1, _LOOKED_AT).astype(int)):
        image, mask = images / names[i], masks / (stems[i] + ending)
        sizes = _size(image), _size(mask)
        if None not in sizes and sizes[0] != sizes[1]:
            raise UserError(f"{mask} has {' × '.join(map(str, sizes[1]))} pixels and {image} has "
                            f"{' × '.join(map(str, sizes[0]))}: a label image needs the size of its image, as a viewer "
                            'shows that; scale it to it (by nearest neighbour), or export it again')
    return stems, suffixes[0], ending


def _size(file: Path) -> tuple[int, int] | None:
    """Width and height, as the training sees them: turned by what the camera has noted; None of a broken file."""
    try:
        with Image.open(file) as image:
            return image.size[::-1] if image.getexif().get(_ORIENTATION, 1) > 4 else image.size
    except (OSError, ValueError, SyntaxError):  # is named where files are read
        return None


def _class_names(root: Path, masks: Iterable[tuple[Path, tuple[list[str], str, str]]]) -> list[str]:
    """From classes.txt or labels.txt, one a line; else the labels' numbers. All label images are read."""
    files = [folder / f'{stem}{ending}' for folder, (stems, _, ending) in masks for stem in stems]
    listed = next((path for name in ('classes.txt', 'labels.txt') if (path := root / name).is_file()), None)
    if listed is not None:
        try:
            lines = listed.read_text(encoding='utf-8-sig').splitlines()
        except UnicodeDecodeError as error:
            raise UserError(f'{listed} is no text in UTF-8: save it again in that encoding') from error
        classes = [line.strip() for line in lines if line.strip()]
    values: Counter = Counter()
    for file in track(files, 'reading label images', console=Console(stderr=True), transient=True,
                      disable=not sys.stderr.isatty()):
        values.update(_values(file))
    labels = sorted(set(values) - {_IGNORED})
    if listed is None:
        classes = [str(label) for label in range(max(labels, default=0) + 1)]
    where = f'the label images of {root} hold the values {some(sorted(values), 20)}'
    if set(labels) <= {0} and _IGNORED in values:
        raise UserError(f'{where}, and 255 means "ignore this pixel": write 1 in its place for an object')
    if len(labels) < 2:
        raise UserError(f'{where}: one class alone, with which there is nothing to learn')
    if labels[-1] >= len(classes):
        raise UserError(f'{where}, and {listed} names {len(classes)} classes, 0 to {len(classes) - 1}; add the names, '
                        'or mend the masks (255 means "ignore this pixel")')
    return classes


def _values(file: Path) -> list[int]:
    try:
        with Image.open(file) as image:
            if len(image.getbands()) > 1:
                raise UserError(f'{file} is a colour image ({image.mode}): each pixel of a label image has one number, '
                                'that of its class; write it with one channel, or with a palette')
            return [int(value) for value in np.unique(np.asarray(image))]
    except (OSError, ValueError) as error:
        raise UserError(f'{file} cannot be read: {error}') from error
