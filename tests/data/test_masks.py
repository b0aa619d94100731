"""Label images in every layout and writing: the same pictures give the same labels."""
import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dwnet.data import masks
from dwnet.data.files import Files
from dwnet.data.own import read_own_data
from dwnet.data.pairs import pairs_of
from dwnet.data.table import Table
from dwnet.errors import UserError

COLOURS = [(0, 0, 0), (128, 0, 0), (0, 255, 64)]
NAMES = ['ground', 'cat', 'dog']


def labels(number: int, *values: int, size: tuple[int, int] = (12, 8)) -> np.ndarray:
    """The label image of an image; each is another."""
    rng = np.random.default_rng(number)
    return rng.choice(np.array(values or (0, 1, 2, 255)), size[::-1]).astype(np.uint8)


def write(root: Path, image: str, mask: str, content: np.ndarray | Image.Image | None = None, number: int = 0) -> None:
    for name in (image, mask):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
    content = labels(number) if content is None else content
    content = Image.fromarray(content) if isinstance(content, np.ndarray) else content
    content.save(root / mask)
    Image.new('RGB', content.size, (number, 9, 9)).save(root / image)


def make(root: Path, image: str, mask: str, content=labels, train: int = 3, val: int = 2) -> Path:
    """``{part}`` and ``{i}`` in the names stand for the part and the number of the image."""
    for i in range(train + val):
        names = [name.format(part='train' if i < train else 'val', i=i) for name in (image, mask)]
        write(root, *names, content(i), i)
    return root


def read(root: Path) -> Table | None:
    return masks.read(Files(root), root.parent / 'out')


def read_labels(root: Path, table: Table) -> dict[str, dict[int, np.ndarray]]:
    """Part → number of the image, which is in its name → labels."""
    def number(name: str) -> int:
        return int(re.findall(r'\d+', Path(name).stem.removesuffix('_leftImg8bit'))[-1])

    return {part: {number(entry.image): np.array(Image.open(root / entry.mask)) for entry in entries}
            for part, entries in table.parts.items()}


def same(found: dict[int, np.ndarray], numbers=range(5), change=lambda values: values) -> bool:
    return found.keys() == set(numbers) and all((found[i] == change(labels(i))).all() for i in numbers)


# --- Layouts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize('image, mask', [
    ('images/{part}/{i}.jpg', 'masks/{part}/{i}.png'),
    ('images/{part}/{i}.jpg', 'labels/{part}/{i}.png'),
    ('Images/{part}/{i}.JPG', 'Annotations/{part}/{i}.PNG'),
    ('img_dir/{part}/{i}.jpg', 'ann_dir/{part}/{i}.png'),  # mmsegmentation
    ('data/set/img_dir/{part}/{i}.jpg', 'data/set/ann_dir/{part}/{i}.png'),
    ('{part}/images/{i}.jpg', '{part}/masks/{i}.png'),
    ('{part}/image/{i}.tif', '{part}/label/{i}.tif'),
    ('{part}/{i}.jpg', '{part}annot/{i}.png'),  # CamVid of SegNet
    ('{part}/{i}.png', '{part}_labels/{i}_L.png'),  # CamVid of Kaggle
    ('{part}_images/{i}.jpg', '{part}_masks/{i}.png'),
    ('{part}/x_jpg.rf.0a{i}.jpg', '{part}/x_jpg.rf.0a{i}_mask.png'),  # Roboflow
    ('leftImg8bit/{part}/aachen/a_{i}_leftImg8bit.png', 'gtFine/{part}/aachen/a_{i}_gtFine_labelTrainIds.png'),
    ('{part}/image_{i}.png', '{part}/mask_{i}.png'),
    ('{part}/img{i}.png', '{part}/seg{i}.png'),
    ('{part}/{i}.jpg', '{part}/{i}_labelTrainIds.png'),
    ('stage1_{part}/images/{i}.jpg', 'stage1_{part}/masks/{i}.png'),
    ('images/{part}2017/{i}.jpg', 'annotations/{part}2017/{i}.png')])
def test_layouts_with_parts(image, mask, tmp_path):
    root = make(tmp_path / 'my', image, mask)
    table = read(root)
    found = read_labels(root, table)
    assert found.keys() == {'train', 'val'} and not table.notes and table.classes == ['0', '1', '2']
    assert same(found['train'], range(3)) and same(found['val'], range(3, 5))


@pytest.mark.parametrize('image, mask', [
    ('images/{i}.jpg', 'masks/{i}.png'), ('images/{i}.jpg', 'masks/{i}_mask.png'), ('{i}.jpg', '{i}_mask.png'),
    ('a b, (c/{i} ü.jpg', 'a b, (c/{i} ü_label.png'), ('{i}.jpg', '{i}_labels.png'), ('{i}.jpg', '{i}_seg.png'),
    ('{i}.png', '{i}_gt.png'), ('a/b/{i}.jpg', 'a/b/{i}-mask.png'), ('images/{i}_sat.jpg', 'masks/{i}_mask.png'),
    ('JPEGImages/{i}.jpg', 'SegmentationClass/{i}.png'), ('JPEGImages/{i}.jpg', 'SegmentationClassPNG/{i}.png'),
    ('test_hall/images/{i}.jpg', 'test_hall/masks/{i}.png')])
def test_layouts_without_parts(image, mask, tmp_path):
    root = make(tmp_path / 'my', image, mask)
    table = read(root)
    assert table.parts.keys() == {'all'} and not table.notes
    assert same(read_labels(root, table)['all'])


def test_other_pictures_of_the_labels_are_passed_over(tmp_path):
    root = make(tmp_path / 'city', 'leftImg8bit/{part}/b/{i}_leftImg8bit.png',
                'gtFine/{part}/b/{i}_gtFine_labelTrainIds.png')
    for i in range(5):
        for other in ('color', 'instanceIds', 'labelIds'):
            part = 'train' if i < 3 else 'val'
            Image.new('L', (12, 8), 77).save(root / f'gtFine/{part}/b/{i}_gtFine_{other}.png')
    assert same(read_labels(root, read(root))['train'], range(3))
    root = make(tmp_path / 'voc', 'JPEGImages/{i}.jpg', 'SegmentationClass/{i}.png')
    make(root, 'JPEGImages/{i}.jpg', 'SegmentationObject/{i}.png', lambda i: Image.new('L', (12, 8), 7))
    np.save(root / 'SegmentationClass/0.npy', labels(0))
    assert same(read_labels(root, read(root))['all'])


def test_endings_may_be_mixed(tmp_path):
    root = tmp_path / 'my'
    for i, (image, mask) in enumerate(zip(('jpg', 'JPG', 'png', 'webp', 'jpeg'), ('png', 'tif', 'PNG', 'bmp', 'png'))):
        write(root, f'images/{i}.{image}', f'masks/{i}.{mask}', labels(i), i)
    assert same(read_labels(root, read(root))['all'])


def test_an_image_that_is_called_like_a_mask(tmp_path):
    root = make(tmp_path / 'my', 'images/{i}.jpg', 'masks/{i}.png', train=5, val=0)
    write(root, 'images/1_mask.jpg', 'masks/1_mask.png', labels(7), 7)
    found = {entry.image: entry.mask for entry in read(root).parts['all']}
    assert found['images/1_mask.jpg'] == 'masks/1_mask.png' and found['images/1.jpg'] == 'masks/1.png'


def test_lists_of_parts_as_pascal_voc_has_them(tmp_path):
    root = make(tmp_path / 'my', 'VOC2012/JPEGImages/{i}.jpg', 'VOC2012/SegmentationClass/{i}.png', train=5, val=0)
    for i in range(5, 40):  # of these, detection alone has annotations
        Image.new('RGB', (12, 8)).save(root / f'VOC2012/JPEGImages/{i}.jpg')
    for kind, lists in (('Segmentation', dict(train='0\n1\n2\n', val='3\n4\n', trainval='')),
                        ('Main', dict(train='5\n'))):
        (root / f'VOC2012/ImageSets/{kind}').mkdir(parents=True)
        for part, text in lists.items():
            (root / f'VOC2012/ImageSets/{kind}/{part}.txt').write_text(text)
    table = read(root)
    found = read_labels(root, table)
    assert same(found['train'], range(3)) and same(found['val'], range(3, 5))
    assert len(table.notes) == 1 and '35 images are in none of' in table.notes[0]


def test_what_has_no_partner_is_told(tmp_path):
    root = make(tmp_path / 'my', 'images/{i}.jpg', 'masks/{i}.png', train=30, val=0)
    (root / 'masks/3.png').unlink()
    (root / 'images/4.jpg').unlink()
    (root / 'masks/5.png').write_bytes(b'x')
    (root / 'masks/notes.txt').write_text('mine')
    table = read(root)
    assert len(table.parts['all']) == 27
    assert [note.partition(' (')[2] for note in table.notes] == [
        '1 without a label image: images/3.jpg)',
        '1 that cannot be read: masks/5.png; 1 without an image: masks/4.png)']
    for i in range(10, 22):
        (root / f'masks/{i}.png').unlink()
    with pytest.raises(UserError, match='13 of 29 images below .* are broken .13 without a label image: images/10.jpg'):
        read(root)


def test_a_part_without_label_images_is_left_out(tmp_path):
    root = make(tmp_path / 'my', 'images/{part}/{i}.jpg', 'masks/{part}/{i}.png')
    (root / 'images/test').mkdir()
    for i in range(20):
        Image.new('RGB', (12, 8), (i, i, i)).save(root / f'images/test/{i}.jpg')
    data = read_own_data([root], 'segmentation', [masks], tmp_path / 'out')
    assert data.sizes == dict(train=3, val=2) and data.notes == ['20 images of test have no labels: test is left out']


def test_no_label_images(tmp_path):
    (tmp_path / 'images').mkdir()
    Image.new('RGB', (12, 8)).save(tmp_path / 'images/1.jpg')
    assert read(tmp_path) is None
    write(tmp_path / 'other', 'images/1.jpg', 'masks/2.png')
    with pytest.raises(UserError, match='no two have the same name .images/1.jpg, masks/2.png.: name each'):
        read(tmp_path / 'other')


# --- Pixels --------------------------------------------------------------------------------------------


def in_colours(i: int) -> Image.Image:
    values = labels(i, 0, 1, 2)
    return Image.fromarray(np.array(COLOURS, np.uint8)[values])


LEGENDS = {
    'labelmap.txt': '# label:color_rgb:parts:actions\n' + ''.join(
        f"{name}:{','.join(map(str, colour))}::\n" for name, colour in zip(NAMES, COLOURS)),
    'class_dict.csv': 'name,r,g,b\nground,0,0,0\ncat,128,0,0\ndog,0,255,64\n',
    'classes.csv': '\ufeffground; 0; 0; 0\r\ncat; 128; 0; 0\r\n"dog"; 0; 255; 64\r\n',
    'label_colors.csv': 'id,class_name,color\n0,ground,"0 0 0"\n1,cat,#800000\n2,dog,"(0, 255, 64)"\n',
    'classes.json': json.dumps(dict(zip(NAMES, COLOURS))),
    'labels.json': json.dumps(dict(ground='#000000', cat='#800000', dog='#00ff40')),
    'meta.json': json.dumps(dict(classes=[dict(title=name, color='#' + bytes(colour).hex())
                                          for name, colour in zip(NAMES, COLOURS)], tags=[])),
    'config.json': json.dumps(dict(version=1, labels=[dict(name=name, color=[*colour, 255])
                                                      for name, colour in zip(NAMES, COLOURS)]))}


@pytest.mark.parametrize('name', LEGENDS)
def test_colours_by_a_legend(name, tmp_path):
    root = make(tmp_path / 'my', 'images/{part}/{i}.jpg', 'masks/{part}/{i}.png', in_colours)
    (root / name).write_text(LEGENDS[name], newline='')
    table = read(root)
    assert table.classes == NAMES
    found = read_labels(root, table)
    assert all((found['train'][i] == labels(i, 0, 1, 2)).all() for i in range(3)) and found['val'].keys() == {3, 4}
    assert all(Path(entry.mask).is_relative_to(tmp_path / 'out/labels') for entry in table.parts['train'])


@pytest.mark.parametrize('convert', [
    lambda image: image.convert('RGBA'), lambda image: image.quantize(3)], ids=['RGBA', 'palette in another order'])
def test_other_images_in_the_colours_of_a_legend(convert, tmp_path):
    root = make(tmp_path / 'my', 'images/{i}.jpg', 'masks/{i}.png', lambda i: convert(in_colours(i)))
    (root / 'labelmap.txt').write_text(LEGENDS['labelmap.txt'])
    found = read_labels(root, read(root))['all']
    assert all((found[i] == labels(i, 0, 1, 2)).all() for i in range(5))


@pytest.mark.parametrize('legend, values', [
    ('Pixel Value, Class\n0, ground\n50, cat\n100, dog\n', (0, 50, 100)),  # Roboflow's has a space
    ('name,r,g,b\nground,0,0,0\ncat,127,127,127\ndog,255,255,255\n', (0, 127, 255))])
def test_values_by_a_legend(legend, values, tmp_path):
    root = make(tmp_path / 'my', '{part}/{i}.jpg', '{part}/{i}_mask.png',
                lambda i: np.array(values, np.uint8)[labels(i, 0, 1, 2)])
    for part in ('train', 'val'):
        (root / part / '_classes.csv').write_text(legend)
    table = read(root)
    assert table.classes == NAMES
    assert (read_labels(root, table)['val'][3] == labels(3, 0, 1, 2)).all()


def test_the_border_of_pascal_voc_is_ignored(tmp_path):
    def content(i: int) -> np.ndarray:
        return np.array([*COLOURS, (224, 224, 192)], np.uint8)[np.minimum(labels(i), 3)]

    root = make(tmp_path / 'my', 'JPEGImages/{i}.jpg', 'SegmentationClass/{i}.png', content)
    (root / 'labelmap.txt').write_text(LEGENDS['labelmap.txt'])
    assert same(read_labels(root, read(root))['all'])


def with_palette(i: int) -> Image.Image:
    image = Image.fromarray(labels(i), 'P')
    image.putpalette([255 - value for value in range(256) for _ in 'RGB'])
    return image


@pytest.mark.parametrize('content', [
    with_palette, lambda i: labels(i).astype(np.uint16), lambda i: labels(i).astype(np.int32),
    lambda i: np.stack([labels(i)] * 3, -1), lambda i: np.stack([labels(i)] * 3 + [labels(i, 255)], -1),
    lambda i: Image.fromarray(labels(i)).convert('LA')], ids=['palette', 'I;16', 'I', 'grey RGB', 'grey RGBA', 'LA'])
def test_numbers_of_classes_in_any_kind_of_image(content, tmp_path):
    root = make(tmp_path / 'my', 'images/{i}.jpg', 'masks/{i}.tif', content)
    table = read(root)
    assert table.classes == ['0', '1', '2'] and same(read_labels(root, table)['all'])


@pytest.mark.parametrize('names', [None, 'ground\nroad\n'])
@pytest.mark.parametrize('mode', ['L', 'RGB'])
def test_masks_of_0_and_255_are_two_classes(mode, names, tmp_path):
    root = make(tmp_path / 'my', 'images/{i}.jpg', 'masks/{i}.png',
                lambda i: Image.fromarray(labels(i, 0, 255)).convert(mode))
    if names:
        (root / 'classes.txt').write_text(names)
    table = read(root)
    assert table.classes == (names or '0 1').split()
    assert '255 is taken for class 1' in table.notes[0]
    assert all((found == labels(i, 0, 255) // 255).all() for i, found in read_labels(root, table)['all'].items())


@pytest.mark.parametrize('values, dtype, message', [
    ((0, 127, 255), np.uint8, 'hold the values 0, 127, 255: these look like steps of grey'),
    ((0, 128), np.uint8, 'look like steps of grey'),
    ((0, 1, 2, 77, 180, 230, 255), np.uint8, 'or smoothed masks'),
    ((0, 1, 256, 300), np.uint16, r'masks/0.png has .*; number the classes from 0'),
    ((-1, 0, 1), np.int32, r'values -1, 0, 1: labels are 0 to 254'),
    ((1, 255), np.uint8, 'one class alone'), ((0, ), np.uint8, 'one class alone')])
def test_values_that_are_no_numbers_of_classes(values, dtype, message, tmp_path):
    content = np.resize(np.array(values, dtype), (8, 12))
    ending = 'tif' if dtype == np.int32 else 'png'
    root = make(tmp_path / 'my', 'images/{i}.jpg', f'masks/{{i}}.{ending}', lambda i: Image.fromarray(content))
    with pytest.raises(UserError, match=message) as error:
        read(root)
    assert '\n' not in str(error.value)


def test_labels_that_no_image_has_are_counted(tmp_path):
    root = make(tmp_path / 'my', 'images/{i}.jpg', 'masks/{i}.png', lambda i: labels(i, 0, 1, 5))
    table = read(root)
    assert len(table.classes) == 6 and table.notes == ['3 of the labels 0 to 5 are in no label image']


@pytest.mark.parametrize('legend, message', [
    ({}, 'masks/0.png is a colour image, and no file says which colours mean which classes: add class_dict.csv'),
    ({'labelmap.txt': 'ground:0,0,0::\ncat:128,0,0::\n'},
     r'have 1 colours that no class of labelmap.txt has, in 3\d.\d\d% of their pixels: \(0, 255, 64\) in masks/0.png'),
    ({'labelmap.txt': 'ground:0,0,0::\ncat:128,0::\n'}, 'the line cat:128,0:: is no name:red,green,blue::'),
    ({'labelmap.txt': 'ground:0,0,0::\ncat:0,0,0::\n'}, r'gives cat and ground the same colour, \(0, 0, 0\)'),
    ({'classes.csv': 'name,r,g,b\nground,0,0,0\ncat,128,0\n'}, 'the row cat,128,0 has 3 cells, and the head 4'),
    ({'classes.csv': 'name,r,g,b\nground,0,0,0\ncat,999,0,0\n'}, 'the row cat,999,0,0 has no name with a colour'),
    ({'classes.json': '{"cat": '}, 'classes.json cannot be read'),
    ({'labelmap.txt': LEGENDS['labelmap.txt'], 'classes.csv': 'ground,0,0,0\ndog,128,0,0\ncat,0,255,64\n'},
     'say different things about the classes')])
def test_legends_that_do_not_fit(legend, message, tmp_path):
    root = make(tmp_path / 'my', 'images/{i}.jpg', 'masks/{i}.png', in_colours)
    for name, text in legend.items():
        (root / name).write_text(text)
    with pytest.raises(UserError, match=message) as error:
        read(root)
    assert '\n' not in str(error.value)


def test_a_photograph_is_no_label_image(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    root = make(tmp_path / 'my', 'images/{i}.jpg', 'masks/{i}.png', lambda i: noise)
    with pytest.raises(UserError, match='masks/0.png has 40.. colours or values'):
        read(root)


def test_label_images_that_were_written_are_trained_with(tmp_path):
    """And their place outside of the data root is no finding."""
    import copy

    from conftest import read_config
    from mmengine.registry import DATASETS

    from dwnet.data.examiner import Examiner
    from dwnet.data.file_checks import check_files
    from dwnet.toolboxes.own_data import use_own_data
    root = make(tmp_path / 'my', 'images/{part}/{i}.png', 'masks/{part}/{i}.png', in_colours)
    (root / 'class_dict.csv').write_text(LEGENDS['class_dict.csv'])
    cfg = read_config('configs/segmentation/upernet_dwnet-nano_digits.py')
    cfg.work_dir = str(tmp_path / 'work')
    data = use_own_data(cfg, str(root))
    assert data.classes == NAMES and cfg.model.decode_head.num_classes == 3
    dataset = DATASETS.build({**copy.deepcopy(cfg.val_dataloader.dataset), 'pipeline': [dict(type='LoadAnnotations')]})
    assert (dataset[0]['gt_seg_map'] == labels(3, 0, 1, 2)).all()
    assert not list(check_files('val', dataset, dict(head=3), Examiner(tmp_path / 'memory.npy')))
    written = Path(dataset.get_data_info(0)['seg_map_path'])
    changed = written.stat().st_mtime_ns
    again = read_config('configs/segmentation/upernet_dwnet-nano_digits.py')
    again.work_dir = cfg.work_dir
    use_own_data(again, str(root))
    assert written.stat().st_mtime_ns == changed


def test_the_pairs_are_those_of_mmsegmentation(tmp_path):
    """Its data set reads one ending of images and one of label images, in its own layout."""
    from mmseg.datasets import BaseSegDataset
    root = make(tmp_path / 'my', 'img_dir/{part}/a/{i}.jpg', 'ann_dir/{part}/a/{i}.png')
    for part, entries in read(root).parts.items():
        folders = dict(img_path=f'img_dir/{part}', seg_map_path=f'ann_dir/{part}')
        theirs = BaseSegDataset(data_root=str(root), data_prefix=folders, pipeline=[], img_suffix='.jpg',
                                seg_map_suffix='.png').load_data_list()
        assert {(str(root / entry.image), str(root / entry.mask)) for entry in entries} == {
            (info['img_path'], info['seg_map_path']) for info in theirs}


def test_classes_of_several_roots_have_the_same_numbers(tmp_path):
    roots = [make(tmp_path / name, 'images/{i}.jpg', 'masks/{i}.png') for name in 'ab']
    for root, names in zip(roots, ('ground\ncat\ndog\n', 'ground\ndog\ncat\n')):
        (root / 'classes.txt').write_text(names)
    with pytest.raises(UserError, match='label images of b have the classes ground, dog, cat, and all data'):
        read_own_data(roots, 'segmentation', [masks], tmp_path / 'out')
    (roots[1] / 'classes.txt').write_text('ground\ncat\ndog\nowl\n')
    data = read_own_data(roots, 'segmentation', [masks], tmp_path / 'out')
    assert data.classes == ['ground', 'cat', 'dog', 'owl'] and data.sizes == dict(train=8, val=2)


def test_the_time_for_pairs_grows_with_their_number(monkeypatch, tmp_path):
    names = [f'{folder}/{i}.png' for folder in ('images', 'masks') for i in range(5000)]
    monkeypatch.setattr(Files, '_walk', lambda *_: ((name, (1, 1)) for name in names))
    found, started = Files(tmp_path), time.process_time()
    mask_of, images, lonely = pairs_of(found)
    assert len(mask_of) == len(images) == 5000 and not lonely
    assert time.process_time() - started < 2  # 0.1 s; a set of all masks for each image took 5 s


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-16'])  # PowerShell writes UTF-16
def test_folders_in_lists_tell_images_of_one_name_apart(encoding, tmp_path):
    for i, folder in enumerate('abc'):
        write(tmp_path / 'my', f'images/{folder}/1.jpg', f'masks/{folder}/1.png', number=i)
    (tmp_path / 'my/train.txt').write_text('a/1.jpg\nimages/c/1.jpg masks/c/1.png\n', encoding)
    (tmp_path / 'my/val.txt').write_text('b/1\n', encoding)
    table = read(tmp_path / 'my')
    assert {part: [entry.image for entry in its] for part, its in table.parts.items()} == dict(
        train=['images/a/1.jpg', 'images/c/1.jpg'], val=['images/b/1.jpg'])
