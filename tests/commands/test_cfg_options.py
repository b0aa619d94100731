"""The values of ``--cfg-options``: Python literals, lists, and text as it is typed."""
import argparse
from argparse import Namespace

import pytest
from conftest import ROOT, run_tool
from mmengine.config import Config, DictAction
from test_tools import CLASSIFICATION, last_line

from dwnet.commands._arguments import add_config_arguments
from dwnet.commands._cfg_options import merge_options, read_value
from dwnet.commands._config import load_config
from dwnet.engine.preflight import check_data
from dwnet.errors import UserError


@pytest.mark.parametrize('text, value', [
    ('1', 1), ('-1', -1), ('+1', 1), ('.5', .5), ('1e-3', 1e-3), ('None', None), ('True', True), ('true', True),
    ('false', False), ('', ''), ('1,2', [1, 2]), ('1,', [1]), ('[1, 2]', [1, 2]), ('(1, 2)', (1, 2)), ('[]', []),
    ('()', ()), ('[(1,2),(3,4)]', [(1, 2), (3, 4)]), ('(1,2),(3,4)', [(1, 2), (3, 4)]), ('(1,)', (1, )),
    ('"x"', 'x'), ("'1'", '1'), ('[bbox,segm]', ['bbox', 'segm']), ('[(train,1),(val,1)]', [('train', 1), ('val', 1)]),
    ('[stages.0, "a b", c d]', ['stages.0', 'a b', 'c d']), ('[true,None]', [True, None]), ("{'a': [1]}", {'a': [1]}),
    ("dict(type='Pretrained',checkpoint='w.pth')", dict(type='Pretrained', checkpoint='w.pth')),
    ("[dict(a=dict(b=-1)), dict()]", [dict(a=dict(b=-1)), {}])])
def test_literals_and_lists(text, value):
    assert read_value(text) == value and type(read_value(text)) is type(value)


@pytest.mark.parametrize('text', [
    'bbox', 'a,b', '1,b', '/data/my photos', 'cats, dogs', '/a (copy)/[b], c', '[a', 'a]', '(a', '[v2] data [v3]',
    '(c) photos (old)', '(c)', ' 1 photo ', 'données/Ä', '图片,集', 'ﬁle', '007', '2024-01-02', '10%', '~/x', '*',
    "it's", '"', "'a", 'a=b', 'C:\\new\\table', 's3://bucket/a,b', '1.5.2', 'b"x"', '1j', '...', 'a.b', 'print(1)',
    '__import__("os").system("false")', '[print(1)]', 'x' * 5000, '(' * 5000, '-' * 5000 + '1', '[' * 500 + ']' * 499,
    '{[1]: 2}', '{**{}}', '\0'])
def test_all_else_is_text_as_it_is_typed(text):
    assert read_value(text) == text


@pytest.mark.parametrize('text', ['1', '1,2', '[1,2]', '(1,2)', '[a,b]', '1e-3', 'None', 'true', 'False', 'x', '"x"',
                                  '[(train,1),(val,1)]', '[[1,2],3]', '.1', 'coco/segm_mAP', "[127,127,'a']"])
def test_what_openmmlab_s_users_write_keeps_its_meaning(text):
    assert read_value(text) == DictAction._parse_iterable(text)


def parse(*arguments: str) -> dict:
    parser = argparse.ArgumentParser()
    add_config_arguments(parser)
    return parser.parse_args(['config.py', *arguments]).cfg_options


def test_the_arguments():
    assert parse('--cfg-options', 'a.b=1', 'c=x=y z', '--cfg-options', 'd=', 'a.b=2') == {
        'a.b': 2, 'c': 'x=y z', 'd': ''}


@pytest.mark.parametrize('argument, message', [
    ('model', '--cfg-options model: an option has the form KEY=VALUE'), ('=1', 'form KEY=VALUE'),
    ('a..b=1', 'form KEY=VALUE'), ('a=dict(type=Pretrained(),b=1)', "a dict looks like dict(type='Pretrained'"),
    ('a=dict(**b)', 'a dict looks like')])
def test_what_is_no_option_is_one_line(argument, message, capsys):
    with pytest.raises(SystemExit):
        parse('--cfg-options', argument)
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize('before', [None, [], dict(type='TruncNormal', std=.02)])
def test_a_dict_replaces_what_was_there(before):
    cfg, options = Config(dict(a=dict(b=before))), {'a.b': dict(type='Pretrained')}
    for _ in range(2):  # with own data the options are merged twice
        cfg.a.b = before
        merge_options(cfg, options)
        assert cfg.to_dict() == dict(a=dict(b=dict(type='Pretrained')))


def test_a_dict_in_a_new_place_or_a_list():
    cfg = Config(dict(a=dict(b=1), hooks=[dict(type='A', p=1), dict(type='B')]))
    merge_options(cfg, {'a.c': dict(type='X', d=dict(e=1)), 'hooks.0': dict(type='Y'), 'a.c.f': 2})
    assert cfg.to_dict() == dict(
        a=dict(b=1, c=dict(type='X', d=dict(e=1), f=2)), hooks=[dict(type='Y'), dict(type='B')])
    assert cfg.a.c.d.e == 1


def test_a_data_root_of_a_config_without_a_validation(tmp_path):
    (tmp_path / 'config.py').write_text('''data_root = 'data/x/'
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = val_evaluator = None
''')
    assert load(tmp_path / 'config.py', data_root='/a').train_dataloader.dataset.data_root.rstrip('/') == '/a'


def load(config, **options):
    return load_config(Namespace(config=str(config), cfg_options=options, work_dir=None, launcher='none'))


@pytest.mark.parametrize('config', [
    'configs/detection/cascade-mask-rcnn_dwnet-tiny_fpn_3x_coco.py',
    'configs/segmentation/upernet_dwnet-tiny_160k_ade20k-512x512.py'])
def test_a_data_root_moves_all_paths(config):
    before, cfg = Config.fromfile(config), load(config, data_root='/my data')
    old = before.data_root.rstrip('/')

    def paths(part) -> list[str]:
        values = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
        return [part] * (isinstance(part, str) and part.startswith(('data/', '/my'))) + [
            path for value in values for path in paths(value)]

    for part in ('train_dataloader', 'val_dataloader', 'test_dataloader', 'val_evaluator', 'test_evaluator'):
        moved = [path.rstrip('/') for path in paths(cfg[part])]
        assert moved == [path.replace(old, '/my data').rstrip('/') for path in paths(before[part])], part
    assert paths(cfg.train_dataloader) and cfg.data_root == '/my data'


def test_an_explicit_path_overrules_the_data_root():
    config = 'configs/detection/cascade-mask-rcnn_dwnet-tiny_fpn_3x_coco.py'
    cfg = load(config, **{'data_root': '/a', 'val_dataloader.dataset.data_root': '/b'})
    assert cfg.train_dataloader.dataset.data_root.rstrip('/') == '/a'
    assert cfg.val_dataloader.dataset.data_root == '/b'
    with pytest.raises(UserError, match="a config has no 'data_root'"):
        load(CLASSIFICATION, data_root='/a')


def test_a_path_of_any_letters_in_a_command(small_digits, tmp_path):
    root = tmp_path / 'with a space, a comma (and a bracket, Ä图'
    root.symlink_to(small_digits)
    options = [f'{part}_dataloader.dataset.data_root={root}' for part in ('train', 'val', 'test')]
    done = run_tool('tools/train.py', CLASSIFICATION, '--check', '--work-dir', tmp_path / 'w', '--cfg-options',
                    f'experiment_name={tmp_path.name}', *options)
    assert done.returncode == 0, done.stderr
    done = run_tool('tools/train.py', CLASSIFICATION, '--check', '--work-dir', tmp_path / 'w', '--cfg-options',
                    f'experiment_name={tmp_path.name}2', *options,
                    "model.backbone.init_cfg=dict(type='Pretrained',checkpoint='w.pth')")
    assert done.returncode == 2 and last_line(done) == 'error: weights w.pth are missing'
    assert (tmp_path / 'w' / (ROOT / CLASSIFICATION).name).is_file()


def test_missing_data_of_a_config_with_a_data_root_are_one_line():
    cfg = load('configs/detection/cascade-mask-rcnn_dwnet-tiny_fpn_3x_coco.py', data_root='/nowhere')
    with pytest.raises(UserError) as error:
        check_data(cfg, 'train', 'val')
    assert str(error.value) == ('/nowhere is missing (train and val data); put the data there, or say where it is: '
                                '--cfg-options data_root=…')


def test_all_missing_paths_are_named_at_once(tmp_path):
    cfg = load('configs/detection/cascade-mask-rcnn_dwnet-nano_fpn_digits.py', **{
        f'{part}_dataloader.dataset.data_root': f'/nowhere/{part}' for part in ('train', 'val')})
    cfg.val_evaluator.ann_file = '/nowhere/val/annotations/test.json'
    with pytest.raises(UserError) as error:
        check_data(cfg, 'train', 'val')
    first, *lines = str(error.value).split('\n- ')
    assert first == '3 files or folders are missing' and [line.rpartition('--cfg-options ')[2] for line in lines] == [
        'train_dataloader.dataset.data_root=…', 'val_dataloader.dataset.data_root=…', 'val_evaluator.ann_file=…']
