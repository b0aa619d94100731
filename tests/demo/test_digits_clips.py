"""Clips of moving digits, and lines of digits as text: whole, the same each time, and what their lists say."""
import filecmp
import json

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw

from dwnet.demo import digits, embedded
from dwnet.demo.digits_clips import FRAMES, DigitClips
from dwnet.demo.digits_clips import SIDE as CLIP_SIDE
from dwnet.demo.digits_text import SIDE, DigitText, draw_line, turn

CLIPS, TEXT = DigitClips(train_clips=3, test_clips=2), DigitText(train_scenes=6, test_scenes=2)


@pytest.fixture(scope='module', params=[CLIPS, TEXT], ids=['clips', 'text'])
def made(request, tmp_path_factory):
    root = tmp_path_factory.mktemp('made') / 'data'
    assert digits.prepare(root, request.param, show_progress=False)
    return request.param, root


def test_equal_settings_give_equal_files(made, tmp_path):
    settings, root = made
    assert digits.is_complete(root, settings) and not digits.prepare(root, settings, show_progress=False)
    digits.prepare(tmp_path / 'again', settings, show_progress=False)
    files = [str(path.relative_to(root)) for path in root.rglob('*') if path.is_file()]
    assert len(files) == settings.pictures + 3
    assert filecmp.cmpfiles(root, tmp_path / 'again', files, shallow=False)[1:] == ([], [])


def test_clips_move():
    artist = digits.artists(0)['test']
    from dwnet.demo.digits_clips import draw_clip
    frames = draw_clip(artist, int(artist.indices[0])).astype(int)
    assert frames.shape == (FRAMES, CLIP_SIDE, CLIP_SIDE, 3)
    ink = [np.argwhere(np.abs(frames[i] - np.median(frames, 0)).max(-1) > 60).mean(0) for i in (0, -1)]
    assert np.linalg.norm(ink[1] - ink[0]) > CLIP_SIDE / 5  # the digit is elsewhere at the end
    assert (np.abs(frames - np.median(frames, 0)).max((0, 3)) < 10).any()  # the ground stays


def test_clips_are_read_and_listed(tmp_path):
    digits.prepare(tmp_path / 'clips', CLIPS, show_progress=False)
    lines = [line.split() for line in (tmp_path / 'clips/train.txt').read_text().splitlines()]
    assert [name for name, _ in lines] == ['00000.avi', '00001.avi', '00002.avi']
    artist = digits.artists(0)['train']
    assert [int(label) for _, label in lines] == artist.labels[artist.indices[:3]].tolist()
    video = cv2.VideoCapture(str(tmp_path / 'clips/train/00000.avi'))
    shapes = []
    while (frame := video.read()[1]) is not None:
        shapes.append(frame.shape)
    assert shapes == [(CLIP_SIDE, CLIP_SIDE, 3)] * FRAMES


def test_polygons_hold_the_ink():
    """A line is drawn in one bright ink, on a dimmed ground."""
    artist = digits.artists(0)['train']
    for degrees in (0., 12., -15.):
        text, line = draw_line(artist)
        opacity, corners = turn(line, degrees)
        picture = Image.new('1', opacity.shape[::-1])
        ImageDraw.Draw(picture).polygon([tuple(corner) for corner in corners], fill=1)
        assert 2 <= len(text) <= 4 and opacity[np.asarray(picture)].sum() > .99 * opacity.sum() > 50
        # the first corner is at the top left of the first digit, the others follow clockwise
        along, down = corners[1] - corners[0], corners[3] - corners[0]
        np.testing.assert_allclose([np.linalg.norm(along), np.linalg.norm(down)], line.shape[::-1])
        assert np.degrees(np.arctan2(along[1], along[0])) == pytest.approx(degrees)
        assert along[0] * down[1] - along[1] * down[0] > 0


def test_annotations_of_lines(tmp_path):
    digits.prepare(tmp_path / 'text', TEXT, show_progress=False)
    entries = json.loads((tmp_path / 'text/train.json').read_text())['data_list']
    assert len(entries) == 6 and all(entry['instances'] for entry in entries)
    for entry in entries:
        assert Image.open(tmp_path / 'text' / entry['img_path']).size == (SIDE, SIDE)
        for line in entry['instances']:
            corners = np.array(line['polygon']).reshape(4, 2)
            assert line['text'].isdigit() and (corners > -1).all() and (corners < SIDE + 1).all()
            np.testing.assert_allclose(line['bbox'], [*corners.min(0), *corners.max(0)])


def test_data_are_made_where_a_config_names_them(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    drawn = []
    monkeypatch.setattr(digits, 'prepare', lambda root, *settings: drawn.append((str(root), *settings)))
    assert embedded.prepare_if_missing('data/digits_text/train.json') == digits_root('text')
    assert embedded.prepare_if_missing('data/digits_clips/train') == digits_root('clips')
    embedded.prepare_if_missing('data/digits_clips/mine', 'data/elsewhere')
    assert drawn == [('data/digits_text', DigitText()), ('data/digits_clips', DigitClips())]


def digits_root(name: str):
    return digits.ROOT.with_name(f'digits_{name}')
