"""Every recipe through the tools: two steps of training, a validation, a test of its checkpoint.

The data are laid out as the real ones are, and everything is the recipe's but lengths and sizes.
"""
import functools
import gc
import json
import math
import re
import runpy
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import published_data
import pytest
from conftest import is_recipe
from mmengine.config import Config
from mmengine.evaluator import Evaluator

from dwnet.checkpoint import read_checkpoint

CONFIGS = sorted(str(p) for p in Path('configs').glob('*/*.py')
                 if not p.parent.name.startswith('_') and 'digits' not in p.name)
# Settings of transforms, data preprocessors and sliding windows that are sizes in pixels.
SIZES = ('scale', 'scales', 'img_scale', 'crop_size', 'size', 'stride', 'max_size')
REDUCTION = 4


def takes_long(config: str) -> bool:
    """The base models, and dense models, whose parts the everyday suite builds, sizes and checks elsewhere."""
    return '-base' in config or 'classification' not in config


class Task(NamedTuple):
    """What a toolbox's recipes have in common.

    ``images`` is the number of images to validate on; ``rows`` maps the last weights of the heads to their numbers
    of outputs.
    """
    make_data: Callable[[Path], None]
    metrics: tuple[str, ...]
    classes: int
    images: int
    rows: dict[str, int]


TASKS = dict(
    mmpretrain=Task(published_data.make_imagenet, ('accuracy/top1', 'accuracy/top5'), 1000, 4, {
        'head.fc.weight': 1000}),
    mmdet=Task(published_data.make_coco, ('coco/bbox_mAP', 'coco/segm_mAP'), 80, 2, {
        f'roi_head.{head}.{stage}.{layer}.weight': rows for stage in range(3) for head, layer, rows in (
            ('bbox_head', 'fc_cls', 81), ('bbox_head', 'fc_reg', 320), ('mask_head', 'conv_logits', 80))}),
    mmseg=Task(published_data.make_ade20k, ('mIoU', ), 150, 2, {
        'decode_head.conv_seg.weight': 150, 'auxiliary_head.conv_seg.weight': 150}))
_BOXES, _MASKS = ('coco/bbox_mAP', ), ('coco/bbox_mAP', 'coco/segm_mAP')
_COCO, _CITIES = TASKS['mmdet'].make_data, published_data.make_cityscapes
# Head and data, as a recipe's name has them → its task
RECIPES = {
    ('rtmdet', 'coco'): Task(_COCO, _BOXES, 80, 2, {'bbox_head.rtm_cls.2.weight': 80}),
    ('dino-4scale', 'coco'): Task(_COCO, _BOXES, 80, 2, {'bbox_head.cls_branches.6.weight': 80}),
    ('mask2former', 'coco'): Task(_COCO, _MASKS, 80, 2, {'panoptic_head.cls_embed.weight': 81}),
    ('mask2former', 'coco-panoptic'): Task(
        # two steps from chance there may be no instances, of which COCO's metric then says nothing
        published_data.make_coco_panoptic, ('coco_panoptic/PQ', ), 133, 2, {
            'panoptic_head.cls_embed.weight': 134}),
    ('mask2former', 'ade20k'): TASKS['mmseg']._replace(rows={'decode_head.cls_embed.weight': 151}),
    ('mask2former', 'cityscapes'): Task(_CITIES, ('mIoU', ), 19, 2, {'decode_head.cls_embed.weight': 20}),
    ('segformer', 'ade20k'): TASKS['mmseg']._replace(rows={'decode_head.conv_seg.weight': 150}),
    ('segformer', 'cityscapes'): Task(_CITIES, ('mIoU', ), 19, 2, {'decode_head.conv_seg.weight': 19}),
    ('knet', 'ade20k'): TASKS['mmseg']._replace(rows={
        'decode_head.kernel_generate_head.conv_seg.weight': 150, 'auxiliary_head.conv_seg.weight': 150}),
    ('knet', 'cityscapes'): Task(_CITIES, ('mIoU', ), 19, 2, {
        'decode_head.kernel_generate_head.conv_seg.weight': 19, 'auxiliary_head.conv_seg.weight': 19}),
}


def task_of(config: str, scope: str) -> Task:
    """The task of a config, by the names of its head and data or by its toolbox."""
    head, *_, data = Path(config).stem.split('_')
    return RECIPES[head, re.sub(r'-\d+x\d+$', '', data)] if is_recipe(config) else TASKS[scope]


def find(node: Any, names: tuple[str, ...], prefix: str) -> Iterator[tuple[str, Any]]:
    """The dotted key and the value of every setting below ``node`` that has one of the ``names``."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in names:
                yield f'{prefix}.{key}', value
            else:
                yield from find(value, names, f'{prefix}.{key}')
    elif isinstance(node, (list, tuple)):
        for i, value in enumerate(node):
            yield from find(value, names, f'{prefix}.{i}')


def smaller(size: Any) -> Any:
    """A size, or sizes in a list however nested, divided by ``REDUCTION``; factors stay as they are."""
    if isinstance(size, (list, tuple)):
        return type(size)(smaller(s) for s in size)
    return size // REDUCTION if isinstance(size, int) else size


def without_sizes(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: None if key in SIZES else without_sizes(value) for key, value in node.items()}
    return [without_sizes(value) for value in node] if isinstance(node, (list, tuple)) else node


def plain(node: Any) -> Any:
    """``node`` with its arrays and tensors as lists, so that ``==`` compares."""
    if isinstance(node, dict):
        return {key: plain(value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [plain(value) for value in node]
    return node.tolist() if hasattr(node, 'tolist') else node


def make_options(cfg: Config, data: Path) -> dict[str, Any]:
    """The options for small data and a short training."""
    options = {'train_dataloader.batch_size': 2, 'default_hooks.logger.interval': 1, 'randomness.seed': 0,
               'default_hooks.checkpoint.save_optimizer': False}  # saves a gigabyte
    if cfg.model.backbone.get('init_cfg'):
        options['model.backbone.init_cfg'] = None  # the weights are on the net
    if 'max_iters' in cfg.train_cfg:
        options |= {'train_cfg.max_iters': 2, 'train_cfg.val_interval': 2, 'default_hooks.checkpoint.interval': 2}
    else:
        options |= {'train_cfg.max_epochs': 1, 'train_cfg.val_interval': 1}
        schedules = cfg.param_scheduler
        schedules = {'': schedules} if isinstance(schedules, dict) else {f'.{i}': s for i, s in enumerate(schedules)}
        options |= {f'param_scheduler{key}.end': cfg.train_cfg.max_epochs  # as without the option, in the full length
                    for key, schedule in schedules.items() if 'end' not in schedule}
    sized = [('model.data_preprocessor', cfg.model.data_preprocessor), ('model.test_cfg', cfg.model.get('test_cfg'))]
    for part in ('train', 'val', 'test'):
        loader = cfg[f'{part}_dataloader']
        options |= {f'{part}_dataloader.num_workers': 0, f'{part}_dataloader.persistent_workers': False}
        options |= {key: data for key, _ in find(loader.dataset, ('data_root', ), f'{part}_dataloader.dataset')}
        sized.append((f'{part}_dataloader.dataset', loader.dataset))
        if part != 'train':
            evaluator = f'{part}_evaluator'
            for key, file in find(cfg[evaluator], ('ann_file', 'seg_prefix'), evaluator):
                options[key] = data / Path(file).relative_to(loader.dataset.data_root)
    options |= {key: smaller(size) for prefix, node in sized for key, size in find(node, SIZES, prefix)}
    if 'num_queries' in cfg.model:  # DINO chooses so many of the cells
        options['model.num_queries'] = 100
    if 'roi_head' in cfg.model:  # few regions; and at .05, its threshold, the net that is new finds nothing
        options |= {key: 16 for key, _ in find(cfg.model.train_cfg, ('num', ), 'model.train_cfg')}
        options |= {f'model.test_cfg.{stage}.max_per_img': 20 for stage in ('rpn', 'rcnn')}
        options['model.test_cfg.rcnn.score_thr'] = 0.
    return options


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Callable[[Callable], Path]:
    """What makes data → the folder with these, made when first asked for."""

    @functools.cache
    def make(make_data: Callable[[Path], None]) -> Path:
        root = tmp_path_factory.mktemp('published') / 'data'
        make_data(root)
        return root

    return make


@pytest.fixture
def run_tool(monkeypatch) -> Callable[..., None]:
    """Runs a script as the command line does, in this process, since importing the toolboxes takes long.

    mmengine keeps a visualizer, with the folder it writes into, under its name until the process ends; so each
    run gives it a new one.
    """
    # seconds of line breaks; onedl's mmengine has another name for it
    monkeypatch.setattr('mmengine.config.config.FormatCode', lambda text, **_: (text, True), raising=False)

    def run(tool: str, config: str, work_dir: Path, options: dict[str, Any], *more: Any) -> None:
        options = {**options, 'visualizer.name': work_dir}
        monkeypatch.setattr(sys, 'argv', [
            tool, config, *map(str, more), '--work-dir', str(work_dir), '--cfg-options',
            *(f'{key}={value}' for key, value in options.items())])
        runpy.run_path(tool, run_name='__main__')

    yield run
    gc.collect()


@pytest.fixture
def evaluated(monkeypatch) -> list:
    """What each evaluation is given: per image, the prediction or its comparison with the truth."""
    seen, evaluate = [], Evaluator.evaluate

    def record(self, size: int) -> dict:
        seen.append(plain([metric.results for metric in self.metrics]))
        return evaluate(self, size)

    monkeypatch.setattr(Evaluator, 'evaluate', record)
    return seen


@pytest.mark.parametrize(
    'config', [pytest.param(c, marks=[pytest.mark.long] * takes_long(c), id=Path(c).stem) for c in CONFIGS])
def test_trains_and_tests(config, data, run_tool, evaluated, tmp_path):
    cfg = Config.fromfile(config)
    task = task_of(config, cfg.default_scope)
    options = make_options(cfg, data(task.make_data))
    trained, tested = tmp_path / 'trained', tmp_path / 'tested'

    run_tool('tools/train.py', config, trained, options)
    used = Config.fromfile(trained / Path(config).name)
    for part in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        pipelines = [list(find(c[part].dataset, ('pipeline', ), part)) for c in (cfg, used)]
        assert pipelines[0] != pipelines[1] and without_sizes(pipelines[0]) == without_sizes(pipelines[1])
    records = [json.loads(line) for line in next(trained.glob('*/vis_data/scalars.json')).read_text().splitlines()]
    losses = [record['loss'] for record in records if 'loss' in record]
    assert len(losses) == 2 and all(map(math.isfinite, losses))
    checkpoint = Path((trained / 'last_checkpoint').read_text())
    saved = read_checkpoint(checkpoint)
    assert saved['meta']['iter'] == 2
    assert len(saved['meta']['dataset_meta']['classes']) == task.classes
    assert {key: len(saved['state_dict'][key]) for key in task.rows} == task.rows

    run_tool('tools/test.py', config, tested, options, checkpoint)
    scores = json.loads((tested / 'scores.json').read_text())
    assert {*task.metrics} <= {*scores}
    keys = {*scores} - {'time', 'data_time', 'classes'}
    assert {key: scores[key] for key in keys} == {key: records[-1].get(key) for key in keys}
    # two steps from chance, the scores of most tasks are 0; what they are made of is not
    validated, predicted = evaluated
    assert predicted == validated and all(len(results) == task.images for results in predicted)
    shutil.rmtree(trained)  # some hundred megabytes
