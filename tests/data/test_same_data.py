"""The same pictures in several forms become the same COCO files for the training."""
import json
from pathlib import Path

import chaos_forms
import numpy as np
import pytest
from scenes import table_of_coco

from dwnet.data import coco
from dwnet.data.own import read_own_data


def written(root: Path, form, masks: bool) -> dict[str, tuple]:
    """The name of a picture → its size, and the class, box, area and mask of each object, of all parts."""
    data = read_own_data([root], 'detection', [form], root.parent / f'out of {root.name}')
    found = {}
    for part in data.parts.values():
        content = json.loads(Path(part['ann_file']).read_text())
        names = {category['id']: category['name'] for category in content['categories']}
        for image in content['images']:
            found[Path(image['file_name']).name] = image['width'], image['height'], [
                (names[each['category_id']], each['iscrowd'], each['bbox'],
                 (each['area'], *each['segmentation'][0]) if masks else ())
                for each in content['annotations'] if each['image_id'] == image['id']]
    assert data.with_masks == masks and sum(data.sizes.values()) == len(found)
    return found


@pytest.mark.parametrize('form, masks', [(chaos_forms.Yolo, True), (chaos_forms.Voc, False)])
def test_what_is_written_is_that_of_coco(form, masks, tmp_path):
    root = form(tmp_path, tmp_path, 0).whole
    table_of_coco(tmp_path / 'coco', chaos_forms.SCENES)
    content = json.loads((tmp_path / 'coco/all.json').read_text())
    for annotation in content['annotations']:
        del annotation['area']
        if not masks:
            del annotation['segmentation']
    (tmp_path / 'coco/all.json').write_text(json.dumps(content))
    ours, theirs = written(root, form.form, masks), written(tmp_path / 'coco', coco, masks)
    assert ours.keys() == theirs.keys() and len(ours) == 8
    for name in ours:
        assert ours[name][:2] == theirs[name][:2]
        for (label, crowd, box, mask), (their_label, their_crowd, their_box, their_mask) in zip(
                ours[name][2], theirs[name][2], strict=True):
            assert (label, crowd) == (their_label, their_crowd)
            np.testing.assert_allclose(box, their_box, atol=1e-4)
            np.testing.assert_allclose(mask[1:], their_mask[1:], atol=1e-4)
            np.testing.assert_allclose(mask[:1], their_mask[:1], atol=3)  # rounding moves pixels at the edge
