"""Which image and which label image belong together, by the names of folders and files.

The words in the names tell: ``images`` and ``masks``, ``img_dir`` and ``ann_dir``, ``train`` and ``trainannot``,
``JPEGImages`` and ``SegmentationClass``, ``x.jpg`` and ``x_mask.png``. Without these words, an image and its label
image have the same folder and name.
"""
import posixpath
import re
from collections import defaultdict

from dwnet.errors import UserError, some

from .files import Files, part_of, read_text, words_of

_MASK = 'masks?|labels?|annotations?|annots?|anns?|gts?|ground_?truths?|gtfine|gtcoarse|segmentations?|segs?|trimaps?'
_IMAGE = 'images?|imgs?|jpegimages|leftimg8bit|photos?|pictures?|rgb|inputs?'
_MORE = '([_-]?(dir|class|aug|object|visualization|machine|human|raw|png|colou?r(ed)?|ids?))*'
_MASKS, _IMAGES = (re.compile(f'(?<![a-z])(train|val|valid|test)?({words}){_MORE}(?![a-z])', re.IGNORECASE)
                   for words in (_MASK, _IMAGE))
_OF_MASK, _OF_IMAGE = (
    re.compile(rf'^({words})([_. -]+|(?=\d))|([_. -]+({words}|{more}))+$', re.IGNORECASE)
    for words, more in ((_MASK, '(label|instance)(train)?ids|colou?r|[lp]'), (_IMAGE, 'sat')))
_BESIDE = re.compile(rf'^({_MASK})([_. -]+|(?=\d))|[_. -]({_MASK}|labeltrainids)$', re.IGNORECASE)
_SECOND = re.compile('colou?r|human|instance|object|visualization', re.IGNORECASE)  # also drawn for each image


def pairs_of(files: Files) -> tuple[dict[str, str], list[str], list[str]]:
    """Image → label image; all images; and the label images without an image."""
    masks = [name for name in files.images if _is_mask(name)]
    beside = [] if masks else [name for name in files.images if _BESIDE.search(_stem(name))]
    exact, loose = defaultdict(list), defaultdict(list)
    no_images = {*masks, *beside}
    for image in [name for name in files.images if name not in no_images]:
        exact[_folder(image), _stem(image)].append(image)
        loose[_loose(image, _OF_IMAGE)].append(image)
    found: dict[str, list[str]] = defaultdict(list)
    lonely = []
    for mask in masks or beside:
        places = (exact.get((_folder(mask), _stem(mask))), exact.get((_folder(mask), _OF_MASK.sub('', _stem(mask)))),
                  loose.get(_loose(mask, _OF_MASK)))
        images = next(filter(None, places), [])
        if len(images) > 1:
            raise UserError(f'{some(images)} below {files.root} have one label image, {mask}: give the images '
                            'different names, without the ending, too')
        (found[images[0]] if images else lonely).append(mask)
    mask_of = {}
    for image, its in found.items():
        first, *others = sorted(its, key=_rank)
        if others and _rank(others[0]) == _rank(first):
            raise UserError(f'{image} below {files.root} has several label images, {some(sorted(its))}: leave the one '
                            'to train with')
        mask_of[image] = first
    of_masks = {*masks, *(mask for its in found.values() for mask in its)}
    return mask_of, [name for name in files.images if name not in of_masks], lonely if masks else []


def _is_mask(name: str) -> bool:
    """Whether the last folder with a role is one of label images."""
    for folder in reversed(posixpath.dirname(name).split('/')):
        if _MASKS.search(folder):
            return True
        if _IMAGES.search(folder):
            return False
    return False


def _rank(mask: str) -> tuple[bool, bool, bool]:
    """The label image of an image is that with the lowest rank; Cityscapes and LabelMe draw several."""
    return bool(_SECOND.search(mask)), mask.lower().endswith('.npy'), 'trainid' not in mask.lower()


def _stem(name: str) -> str:
    return posixpath.splitext(posixpath.basename(name))[0]


def _loose(name: str, role: re.Pattern) -> str:
    return f'{_folder(name)}/{role.sub("", _stem(name)) or _stem(name)}'.casefold()


def _folder(name: str) -> str:
    """The folders without the words of roles: that of ``img_dir/train/1.jpg`` and ``train_masks/1.png`` is train."""
    bare = (_IMAGES.sub(r'\1', _MASKS.sub(r'\1', folder)).strip('_-. ')
            for folder in posixpath.dirname(name).split('/'))
    return '/'.join(filter(None, bare))


def parts_of(files: Files, images: list[str], notes: list[str]) -> dict[str, list[str]]:
    """Part → images, by the folders, or else by lists such as ``ImageSets/Segmentation/train.txt``."""
    parts: dict[str, list[str]] = defaultdict(list)
    for image in images:
        ends = [words[-1] for folder in _folder(image).split('/') if (words := words_of(folder))]  # 'stage1_train'
        parts[next(filter(None, map(part_of, reversed(ends))), 'all')].append(image)
    lists = sorted((name for name in files.ending('.txt') if part_of(_stem(name))),
                   key=lambda name: ('segmentation' not in name.lower(), name.count('/'), name))
    chosen = {part_of(_stem(name)): name for name in reversed(lists)}
    if list(parts) != ['all'] or 'train' not in chosen:
        return parts
    of_end = {end: image for image in images for name in (image, posixpath.splitext(image)[0]) for end in _ends(name)}
    listed = {}
    for part, name in chosen.items():
        lines = filter(None, map(str.strip, read_text(files.path(name)).splitlines()))
        found = (next((of_end[end] for text in (line, line.split()[0]) for end in _ends(text) if end in of_end), None)
                 for line in lines)
        listed[part] = list(dict.fromkeys(filter(None, found)))
    if not listed['train']:
        return parts
    rest = set(images).difference(*listed.values())
    if rest:
        notes.append(f'{len(rest)} images are in none of {some(chosen.values())}, and are left out: '
                     f'{some(sorted(rest))}')
    return listed


def _ends(path: str) -> list[str]:
    """``a/b/1`` → ``a/b/1``, ``b/1``, ``1``: the longest end that fits tells images of one name apart."""
    steps = path.split('/')
    return ['/'.join(steps[i:]) for i in range(len(steps))]
