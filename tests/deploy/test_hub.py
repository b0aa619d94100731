"""Folders as on the Hugging Face Hub: whole models without code, and what a hostile folder may not do."""
import importlib
import itertools
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, run_tool
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import MODELS, TASK_UTILS, TRANSFORMS, VISUALIZERS

from dwnet import TOKEN_MIXERS
from dwnet.apis import inferencer, init_model, swap_backbone
from dwnet.deploy.hub import save_pretrained
from dwnet.errors import UserError
from dwnet.toolboxes.hub_config import TUPLE, as_data, check, with_tuples
from dwnet.toolboxes.hub_types import TYPES

NANO = {'classification': 'configs/classification/dwnet-nano_digits.py',
        'detection': 'configs/detection/cascade-mask-rcnn_dwnet-nano_fpn_digits.py',
        'segmentation': 'configs/segmentation/upernet_dwnet-nano_digits.py'}
RESULTS = [dict(Dataset='digits', Provenance='retrained', Metrics={'top-1': 97.5}),
           dict(Dataset='ImageNet-1K', Provenance='reported', Metrics={'Top 1 Accuracy': 81.2})]
# reading a config takes seconds, and those of one head have the same types
SHARED = [pytest.param(str(path.relative_to(ROOT)), marks=[] if '_dwnet-nano' in path.name else pytest.mark.long)
          for task in NANO for path in sorted(ROOT.glob(f'configs/{task}/*.py'))]


def model_of(task: str) -> torch.nn.Module:
    """A nano model whose BatchNorms are not those of the initialisation, with names of classes."""
    model = init_model(NANO[task])
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -.2, .2)
            torch.nn.init.uniform_(module.running_var, .5, 1.5)
    model.dataset_meta = dict(classes=tuple('0123456789'), palette=[(i, 2 * i, 255) for i in range(10)])
    return model


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """A classifier's folder; tests that change it copy it."""
    os.chdir(ROOT)
    return save_pretrained(model_of('classification'), tmp_path_factory.mktemp('hub') / 'mine', RESULTS)


@pytest.fixture
def mine(folder, tmp_path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / 'mine'))


def change(folder: Path, **parts: Any) -> None:
    """Replaces parts of config.json; a key may be a path such as ``model__backbone``."""
    content = json.loads((folder / 'config.json').read_text())
    for path, value in parts.items():
        *outer, last = path.split('__')
        part = content
        for key in outer:
            part = part[key]
        part[last] = value
    (folder / 'config.json').write_text(json.dumps(content))


@pytest.mark.parametrize('task', NANO)
def test_round_trip(task, tmp_path):
    """The model is the same, to the bit, and so are its predictions through the toolbox's inferencer."""
    model = model_of(task)
    assert save_pretrained(model, tmp_path / 'mine') == tmp_path / 'mine'
    assert {path.name for path in (tmp_path / 'mine').iterdir()} == {'config.json', 'model.safetensors', 'README.md'}
    again = init_model(tmp_path / 'mine')
    assert type(again) is type(model) and not again.training and again.dataset_meta == model.dataset_meta
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    image = np.random.RandomState(0).randint(0, 256, (70, 90, 3), dtype=np.uint8)
    ours, theirs = (predict(image) for predict in (inferencer(str(tmp_path / 'mine')), _inferencer_of(model)))
    assert _numbers(ours) == _numbers(theirs) and len(_numbers(ours)) > 3


def _inferencer_of(model):
    from dwnet.toolboxes import toolbox_of
    return toolbox_of(model.cfg).inferencer(model)


def _numbers(predicted: Any) -> list[float]:
    if isinstance(predicted, dict):
        return [n for key, value in sorted(predicted.items()) if key != 'visualization' for n in _numbers(value)]
    if isinstance(predicted, (list, tuple)):
        return [n for value in predicted for n in _numbers(value)]
    if isinstance(predicted, (np.ndarray, torch.Tensor)):
        return np.asarray(predicted, float).ravel().tolist()
    return [float(predicted)] if isinstance(predicted, (int, float)) else []


@pytest.mark.parametrize('stock', [
    'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py',  # writes into its own config
    *(pytest.param(name, marks=pytest.mark.long) for name in (
        'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py', 'mmdet::rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py',
        'mmdet::solov2/solov2_r50_fpn_1x_coco.py', 'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py',
        'mmseg::knet/knet-s3_r50-d8_upernet_8xb2-adamw-80k_ade20k-512x512.py',
        'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py'))])
def test_a_stock_head(stock, tmp_path):
    """Read back, it has the weights that were written; save_pretrained compares them."""
    model = init_model(swap_backbone(get_config(stock), arch=dict(embed_dims=16, depths=(1, 1, 1, 1))))
    assert type(init_model(save_pretrained(model, tmp_path))) is type(model)


def test_the_folder_holds_no_code(folder):
    content = json.loads((folder / 'config.json').read_text())
    assert content['library_name'] == 'dwnet' and content['default_scope'] == 'mmpretrain'
    assert 'init_cfg' not in (folder / 'config.json').read_text()
    card = (folder / 'README.md').read_text()
    assert card.startswith('---\nlibrary_name: dwnet\npipeline_tag: image-classification\n')
    assert '| digits | top-1 | 97.5 | measured with these weights, trained anew |' in card
    assert '| ImageNet-1K | Top 1 Accuracy | 81.2 | reported by the authors of the paper |' in card


def test_the_list_names_what_the_toolboxes_have():
    """A misspelt type would never be built. Three are names in mmcv.ops."""
    for scope, part in itertools.product(('mmpretrain', 'mmdet', 'mmseg'), ('models', 'datasets', 'visualization')):
        importlib.import_module(f'{scope}.{part}')
    from mmpretrain.registry import BATCH_AUGMENTS
    importlib.import_module('dwnet.data.loading')
    names = {'nms', 'soft_nms', 'RoIAlign', *TOKEN_MIXERS.module_dict, *BATCH_AUGMENTS.module_dict}
    for root in (MODELS, TASK_UTILS, TRANSFORMS, VISUALIZERS):
        for registry in (root, *root.children.values()):
            names |= set(registry.module_dict)
    assert sorted(TYPES - names) == []


@pytest.mark.parametrize('config', SHARED)
def test_every_config_can_be_shared(config):
    """Types, words and tuples of all recipes; read back they are the same."""
    cfg = Config.fromfile(config)
    if cfg.default_scope not in ('mmpretrain', 'mmdet', 'mmseg'):
        pytest.skip('of a toolbox whose types are not on the list')
    content = json.loads(json.dumps(as_data(cfg, {})))
    check(content, config)
    assert _without_loading(with_tuples(content['model'])) == _without_loading(cfg.model.to_dict())


def _without_loading(part: Any) -> Any:
    if isinstance(part, dict):
        return {key: _without_loading(value) for key, value in part.items() if key not in ('init_cfg', 'pretrained')}
    return type(part)(map(_without_loading, part)) if isinstance(part, (list, tuple)) else part


# What a hostile config.json may try: change of the JSON → words of the message
RAN = 'dwnet_hub_test_ran'
CALL = dict(type='subprocess.call', args=f'touch {RAN}', shell=True)
HOSTILE = {
    'a function': (dict(model=CALL), r"model\.type is 'subprocess\.call', which is not on the list"),
    'a module of its own': (dict(model__backbone__type='hostile_module.Backbone'), 'hostile_module.Backbone'),
    'in nested lists': (dict(model__backbone__extra=[[1, [dict(a=[CALL])]]]), r'extra\[0\]\[1\]\[0\]\.a\[0\]\.type'),
    'in a tuple': (dict(model__backbone__extra={TUPLE: [CALL]}), 'subprocess.call'),
    'beside a tuple': (dict(model__backbone__extra={TUPLE: [1], 'type': 'os.system'}), TUPLE),
    'not a name': (dict(model__backbone__type=['os.system']), r"type is \['os.system'\]"),
    'a scope': (dict(model__backbone___scope_='hostile_module'), "_scope_ is 'hostile_module'"),
    'a scope in the type': (dict(model__backbone__type='hostile_module.DWNet'), 'hostile_module.DWNet'),
    'a strange scope': (dict(model__backbone___scope_=['mmdet']), r"_scope_ is \['mmdet'\]"),
    'the default scope': (dict(default_scope='hostile_module'), "default_scope is 'hostile_module'"),
    'imports': (dict(custom_imports=dict(imports=['hostile_module'])), 'custom_imports'),
    'hooks': (dict(custom_hooks=[CALL]), 'custom_hooks'),
    'a base': (dict(_base_='/tmp/hostile.py'), '_base_'),
    'a base inside': (dict(model___base_='/tmp/hostile.py'), '_base_'),
    'a lazy string': (dict(model__backbone__arch='<hostile_module.arch>'), 'no path or address'),
    'a substitution': (dict(model__backbone__arch='{{$HOME:tiny}}'), 'no path or address'),
    'weights of its own': (dict(model__backbone__init_cfg=dict(type='Pretrained', checkpoint='/tmp/a.pth')),
                           'init_cfg is .*/tmp/a.pth.*weights come from model.safetensors alone'),
    'weights by an address': (dict(model__pretrained='https://hostile.example/a.pth'), 'weights come from'),
    'a pickle': (dict(model__head__loss=dict(type='CrossEntropyLoss', class_weight='/tmp/a.pkl')), 'a.pkl'),
    'a pickle without a path': (dict(model__head__loss=dict(type='CrossEntropyLoss', class_weight='pkl')), "'pkl'"),
    'a config of a teacher': (dict(model__teacher_config='teacher.py'), 'teacher.py'),
    'a type that loads': (dict(model=dict(type='mmdet.KnowledgeDistillationSingleStageDetector')), 'KnowledgeDist'),
    'a step of the pipeline': (dict(test_pipeline=[dict(type='os.system')]), r'test_pipeline\[0\]\.type'),
    'a module that reads images': (
        dict(test_pipeline=[dict(type='LoadImageFromFile', backend_args=dict(
            backend='memcached', server_list_cfg='a', client_cfg='a', sys_path='mine'))]),
        'backend_args is .*from the disk alone'),
    'a module that reads files': (dict(test_pipeline=[dict(type='LoadAnnotations', file_client_args=dict(
        backend='petrel'))]), 'file_client_args is .*from the disk alone'),
    'a visualizer': (dict(visualizer=dict(type='DetLocalVisualizer', vis_backends=[CALL])), 'vis_backends'),
    'a folder that is written': (dict(visualizer=dict(type='DetLocalVisualizer', save_dir='mine')), 'has save_dir'),
    'a tuple as a visualizer': (dict(visualizer={TUPLE: []}), 'visualizer must be a dict'),
    'an attribute': (dict(model=dict(type='ImageClassifier', __class__='x')), '__class__'),
    'not a model': (dict(model=[CALL]), 'model must be a dict'),
    'another evaluation': (dict(model__backbone__mixer=dict(type="__import__('os').system('true')")), '__import__'),
}


@pytest.mark.parametrize('name', HOSTILE)
def test_a_hostile_config_is_refused_by_name_and_nothing_runs(name, mine, monkeypatch, tmp_path):
    changes, message = HOSTILE[name]
    change(mine, **changes)
    (tmp_path / 'hostile_module.py').write_text(f"open({str(tmp_path / RAN)!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'pkl').write_bytes(b'cos\nsystem\n(S"touch ' + RAN.encode() + b'"\ntR.')
    monkeypatch.setattr('dwnet.apis.MODELS.build', lambda *_, **__: pytest.fail('something was built'))
    before = set(sys.modules)
    with pytest.raises(UserError, match=message):
        init_model(mine)
    assert not Path(RAN).exists() and 'hostile_module' not in sys.modules and set(sys.modules) == before


def test_a_folder_from_the_hubs_cache(mine, tmp_path):
    """There the files are links to blobs; other links are refused."""
    cache = tmp_path / 'models--me--mine'
    (cache / 'blobs').mkdir(parents=True)
    snapshot = cache / 'snapshots/0123'
    snapshot.mkdir(parents=True)
    for name in ('config.json', 'model.safetensors'):
        shutil.move(mine / name, cache / 'blobs' / name[:3])
        (snapshot / name).symlink_to(Path('../../blobs', name[:3]))
    assert type(init_model(snapshot)).__name__ == 'ImageClassifier'
    for name in ('config.json', 'model.safetensors'):
        linked = Path(shutil.copytree(snapshot, tmp_path / name, symlinks=False))
        (linked / name).rename(tmp_path / f'elsewhere-{name}')
        (linked / name).symlink_to(tmp_path / f'elsewhere-{name}')
        with pytest.raises(UserError, match=f'{name} is a link to a file outside'):
            init_model(linked)


@pytest.mark.parametrize('damage, message', [
    (lambda folder: (folder / 'model.safetensors').unlink(), 'has no file model.safetensors'),
    (lambda folder: (folder / 'config.json').unlink(), 'has no file config.json'),
    (lambda folder: (folder / 'config.json').write_text('import os'), 'no JSON'),
    (lambda folder: (folder / 'config.json').write_text('[' * 100_000), 'no JSON'),
    (lambda folder: (folder / 'config.json').write_text('[]'), 'must have the keys'),
    (lambda folder: (folder / 'config.json').write_bytes(b' ' * 11 * 2**20), 'larger than'),
    (lambda folder: change(folder, model__backbone__deep=json.loads('[' * 60 + ']' * 60)), 'deeper than'),
    (lambda folder: change(folder, model__backbone__arch='huge'), 'builds no model.*arch'),
    (lambda folder: change(folder, model__backbone__drop_path_rate=10**400), 'builds no model: OverflowError'),
    (lambda folder: change(folder, model__backbone__token_mixer='dynamic'), 'does not fit the model'),
    (lambda folder: (folder / 'model.safetensors').write_bytes(
        (folder / 'model.safetensors').read_bytes()[:-4] + b'abcd'), 'SHA-256'),
])
def test_a_damaged_folder(damage, message, mine):
    damage(mine)
    with pytest.raises(UserError, match=message):
        init_model(mine)


def test_what_cannot_be_shared_is_not_written(tmp_path):
    model = model_of('classification')
    model.cfg.model.head.type = 'MyHead'
    with pytest.raises(UserError, match=r"model.head.type is 'MyHead'.*TYPES"):
        save_pretrained(model, tmp_path / 'mine')
    with pytest.raises(UserError, match='Provenance must be one of'):
        save_pretrained(model_of('classification'), tmp_path / 'mine', [{**RESULTS[0], 'Provenance': 'mine'}])
    with pytest.raises(UserError, match='lacks Dataset'):
        save_pretrained(model_of('classification'), tmp_path / 'mine', [dict(Provenance='reported', Metrics={})])
    for mistake in (dict(Metrics={'top-1': 'high'}), dict(Metrics=[97.5]), dict(Provenance=['reported'])):
        with pytest.raises(UserError, match='must be'):
            save_pretrained(model_of('classification'), tmp_path / 'mine', [{**RESULTS[0], **mistake}])
    with pytest.raises(UserError, match='a result must be'):
        save_pretrained(model_of('classification'), tmp_path / 'mine', ['97.5'])
    assert not (tmp_path / 'mine').exists()
    with pytest.raises(UserError, match='init_model'):
        save_pretrained(torch.nn.Linear(1, 1), tmp_path / 'mine')


def test_where_the_writers_files_are_stays_with_the_writer(tmp_path):
    model = model_of('classification')
    model.cfg.test_dataloader.dataset.pipeline[0].backend_args = dict(backend='petrel', path_mapping={'data': 's3://me'})
    content = json.loads((save_pretrained(model, tmp_path) / 'config.json').read_text())
    assert content['test_pipeline'][0] == dict(type='LoadImageFromFile')
    assert model.cfg.test_dataloader.dataset.pipeline[0].backend_args.backend == 'petrel'


def test_a_folded_model_and_a_kept_card(mine):
    model = model_of('classification')
    model.backbone.switch_to_deploy()
    (mine / 'README.md').write_text('my words')
    save_pretrained(model, mine)
    again = init_model(mine)
    assert again.backbone.deploy and (mine / 'README.md').read_text() == 'my words'
    x = torch.rand(1, 3, 32, 32)
    assert torch.equal(again(x, mode='tensor'), model(x, mode='tensor'))


def test_a_compiled_model_is_written_as_the_model_that_it_compiles(tmp_path):
    model = model_of('classification')
    save_pretrained(torch.compile(model), tmp_path)
    assert all(torch.equal(tensor, model.state_dict()[name])
               for name, tensor in init_model(tmp_path).state_dict().items())
    assert '# ImageClassifier with' in (tmp_path / 'README.md').read_text()


def test_other_weights_in_the_place_of_the_folders(folder, tmp_path):
    other = init_model(NANO['classification'])
    torch.save(dict(state_dict=other.state_dict()), tmp_path / 'other.pth')
    loaded = init_model(folder, tmp_path / 'other.pth').state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in other.state_dict().items())


def test_the_command(tmp_path):
    torch.save(dict(state_dict=model_of('classification').state_dict()), tmp_path / 'a.pth')
    (tmp_path / 'results.json').write_text(json.dumps(RESULTS))
    done = run_tool('tools/save_pretrained.py', NANO['classification'], tmp_path / 'a.pth', tmp_path / 'mine',
                    '--results', tmp_path / 'results.json')
    assert done.returncode == 0 and 'README.md, config.json, model.safetensors' in done.stdout
    assert '81.2 | reported' in (tmp_path / 'mine/README.md').read_text()
    done = run_tool('tools/save_pretrained.py', NANO['classification'], tmp_path / 'a.pth', tmp_path / 'mine',
                    '--results', tmp_path / 'none.json')
    assert done.returncode == 2 and 'none.json cannot be read' in done.stderr
