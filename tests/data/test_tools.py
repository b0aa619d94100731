"""The same objects in LabelMe's, CVAT's and COCO's files are the same data set."""
from pathlib import Path

import pytest
from annotation_files import as_coco, as_cvat, as_labelme, assert_same, polygons, read, scenes_of

from dwnet.data import coco, cvat, labelme


@pytest.mark.parametrize('form, write', [(labelme, as_labelme), (cvat, as_cvat)])
def test_scenes_are_equal_to_coco(form, write, small_digits, tmp_path):
    scenes = scenes_of(small_digits)
    theirs = read(coco, as_coco(scenes, tmp_path / 'coco'))
    ours = read(form, write(scenes, tmp_path / 'ours'))
    for table in (ours, theirs):
        table.parts['all'] = [entry._replace(image=Path(entry.image).name) for entry in table.parts['all']]
    assert_same(ours, theirs)
    assert not ours.notes


@pytest.mark.parametrize('form', [labelme, cvat], ids=lambda form: form.NAME)
def test_polygons_are_equal_to_coco(form, tmp_path):
    polygons(tmp_path)
    assert_same(read(form, tmp_path / form.NAME), read(coco, tmp_path / 'coco'))
