"""Checks before the first step for faults that would stop a training after hours, or spoil the result unnoticed."""
import copy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset, InfiniteSampler
from mmengine.dist import broadcast_object_list, get_world_size, is_main_process
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.model import PretrainedInit, is_model_wrapper
from mmengine.registry import DATASETS, OPTIMIZERS, WEIGHT_INITIALIZERS
from mmengine.runner import IterBasedTrainLoop
from mmengine.runner import Runner as MMEngineRunner
from torch import nn
from torch.utils.data import DataLoader

from dwnet.data.checks import Finding, check_classes, classes_of, find_heads, leaves
from dwnet.data.examiner import Examiner
from dwnet.data.file_checks import check_files
from dwnet.errors import UserError, one_line
from dwnet.models import DWNet
from dwnet.registry import class_of, lineage, type_name
from dwnet.toolboxes import TOOLBOXES
from dwnet.toolboxes.checked import with_checks
from dwnet.weights.loading import load_backbone, load_weights, read_checkpoint

from .reproducible import PlacedBatchSampler, randomness_kept

# Data sets that download themselves; derived classes count, too.
_DOWNLOADS = frozenset().union(*(toolbox.downloads for toolbox in TOOLBOXES.values()))


def preflight(runner: MMEngineRunner) -> None:
    """Checks for faults that would stop or spoil ``runner.train()``: weights, data, heads, disk, batches.

    Rank 0 checks, and all processes end together. The check builds the data sets, and the training then uses these.
    A finding that may be intended is a warning in the log.

    Raises:
        UserError: With every finding that would stop the training.
    """
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    _judge(runner, lambda: [*_check_weights(runner, model)])
    try:
        loops = dict(train=runner.train_loop, val=runner.val_loop)
    except UserError:
        raise
    except (AssertionError, OSError, RuntimeError, ValueError) as error:  # toolboxes raise all of these
        raise UserError(f'the data cannot be read: {one_line(error)}') from error
    parts = {part: loop.dataloader.dataset for part, loop in loops.items() if loop}
    heads = find_heads(model)
    _judge(runner, lambda: [
        *check_classes(heads, parts),
        *_check_files(runner, parts, heads),
        *_check_validation(runner),
        *_check_disk(runner, model),
        *_check_length(runner.train_dataloader),
        *(_check_single_images(runner.train_dataloader, model) if runner.cfg.get('strategy') != 'fsdp' else ())])


def check_test_files(runner: MMEngineRunner) -> None:
    """Checks the files of the test data before ``runner.test()``; all processes end together.

    Raises:
        UserError: If a file is missing or damaged: without the file the score would be another.
    """
    parts = dict(test=runner.test_loop.dataloader.dataset)
    _judge(runner, lambda: [*_check_files(runner, parts, {})])


def _judge(runner: MMEngineRunner, check: Callable[[], list[Finding]]) -> None:
    """Runs the check on rank 0; all processes raise the findings that stop the work."""
    findings: list[Any] = [None]
    if is_main_process():
        try:
            findings = [check()]
        except UserError as error:
            findings = [[Finding(str(error))]]
    broadcast_object_list(findings)
    for finding in findings[0]:
        if not finding.stops:
            runner.logger.warning(finding.message)
    if stops := [finding for finding in findings[0] if finding.stops]:
        raise _as_error(stops)


def _as_error(findings: list[Finding]) -> UserError:
    messages = [finding.message for finding in findings]
    if len(messages) > 1:
        messages = [f'{len(messages)} things stand in the way', *messages]
    return UserError(*messages)


# --- Before the data are read ------------------------------------------------------------------------


def check_data(cfg: Config, *parts: str, prepare: Callable[..., Path] | None = None) -> None:
    """Checks that the data of ``parts`` exists where the config says.

    Args:
        cfg: The config.
        parts: The needed parts, of 'train', 'val' and 'test'.
        prepare: Called with the paths before the check; makes data that can be made, and returns the folder of these.

    Raises:
        UserError: If files or folders are missing; all of them are named.
    """
    top = cfg.get('data_root') if isinstance(cfg.get('data_root'), str) else None
    missing: dict[Path, list[tuple[str, str]]] = {}  # path → part and setting of each place that names it
    made = None
    for part in parts:
        loader, evaluator = cfg.get(f'{part}_dataloader'), cfg.get(f'{part}_evaluator')
        paths = [(f'{part}_dataloader.{setting}', path) for setting, path in _dataset_paths(
            (loader or {}).get('dataset'), cfg.get('default_scope'))]
        for metric in evaluator if isinstance(evaluator, list) else [evaluator or {}]:
            if metric.get('ann_file'):
                paths.append((f'{part}_evaluator.ann_file', Path(metric['ann_file'])))
        made = prepare(*(path for _, path in paths)) if prepare else None
        for setting, path in paths:
            below_top = top and path.is_relative_to(top)
            comes_along = missing.keys() & {*path.parents} and (below_top or '_dataloader.' in setting)
            if not path.exists() and not comes_along:
                missing.setdefault(path, []).append((part, 'data_root' if below_top else setting))
    lines = []
    for path, places in missing.items():
        data, settings = (dict.fromkeys(names) for names in zip(*places))
        remedy = (f'remove {made}, and it is made again' if made and path.is_relative_to(made) else
                  f"put the data there, or say where it is: --cfg-options {' '.join(f'{name}=…' for name in settings)}")
        lines.append(f"{path} is missing ({' and '.join(data)} data); {remedy}")
    if lines:
        raise UserError(*lines if len(lines) == 1 else (f'{len(lines)} files or folders are missing', *lines))


def _dataset_paths(dataset: dict | None, scope: str | None, setting: str = 'dataset') -> Iterator[tuple[str, Path]]:
    """Yields setting and path of every file and folder that a dataset config, nested or not, names."""
    if not dataset:
        return
    for key in ('dataset', 'datasets'):
        inner = dataset.get(key)
        for i, part in enumerate(inner if isinstance(inner, (list, tuple)) else [inner]):
            name = f'{setting}.{key}.{i}' if isinstance(inner, (list, tuple)) else f'{setting}.{key}'
            yield from _dataset_paths(part, scope, name)
    root = dataset.get('data_root') or ''
    if '://' in root or _DOWNLOADS.intersection(lineage(dataset, DATASETS, scope)):  # on a server, or downloaded
        return
    if root:
        yield f'{setting}.data_root', Path(root)
    prefix = dataset.get('data_prefix') or {}
    prefixes = prefix.items() if isinstance(prefix, dict) else [('', prefix)]
    names = [('ann_file', dataset.get('ann_file')),
             *((f'data_prefix.{key}'.rstrip('.'), value) for key, value in prefixes)]
    for key, name in names:
        if name:
            yield f'{setting}.{key}', Path(root, name)


def _check_weights(runner: MMEngineRunner, model: nn.Module) -> Iterator[Finding]:
    """Finds weights to start from that are missing, damaged, or another model's; reads, but does not load them."""
    if runner.cfg.get('strategy') == 'fsdp':
        return  # only all processes together know the model's tensors; loading checks the weights
    if source := runner.cfg.get('load_from'):
        weights = read_checkpoint(source)['state_dict']
        load_weights(model, weights, source, runner.cfg.get('new_heads', False), dry_run=True)
        return
    for module in model.modules():
        steps = getattr(module, 'init_cfg', None) or []
        for step in [steps] if isinstance(steps, dict) else steps:
            if class_of(step, WEIGHT_INITIALIZERS) is PretrainedInit:
                source = step['checkpoint']
                if isinstance(module, DWNet):
                    load_backbone(module, read_checkpoint(source)['state_dict'], source, dry_run=True)
                elif '://' not in source and not Path(source).is_file():
                    yield Finding(f'weights {source} are missing')


# --- With the data sets ------------------------------------------------------------------------------


def _check_files(runner: MMEngineRunner, parts: dict[str, Any], heads: dict[str, int]) -> Iterator[Finding]:
    """Looks at all files of the data sets 'train', 'val' and 'test'; those that are whole are remembered."""
    examiner = Examiner(Path(runner.work_dir, 'examined_files.npy'))
    test, val = runner.cfg.get('test_dataloader'), runner.cfg.get('val_dataloader')
    if 'test' not in parts and test and test.get('dataset') != (val or {}).get('dataset'):
        try:
            # CIFAR10 and MNIST wait for the other processes, which do not build these data
            with mock.patch('torch.distributed.is_initialized', return_value=False):
                parts = {**parts, 'test': DATASETS.build(with_checks(copy.deepcopy(test['dataset'])))}
        except Exception as error:  # a broken file may raise anything; a training does not need it
            yield Finding(f'the test data cannot be read ({one_line(error)}); mend them before you test', False)
    for part, dataset in parts.items():
        for leaf in leaves(dataset):
            yield from check_files(part, leaf, heads, examiner)
    examiner.save()


def _check_validation(runner: MMEngineRunner) -> Iterator[Finding]:
    """Finds a validation that never runs, or whose ground truth belongs to another data set."""
    train, val = runner.train_loop, runner.val_loop
    if val is None:
        return
    by_iter = isinstance(train, IterBasedTrainLoop)
    length = f'max_iters={train.max_iters}' if by_iter else f'max_epochs={train.max_epochs}'
    for setting, meaning in (('val_begin', 'never'), ('val_interval', 'only at its end')):
        value = getattr(train, setting)
        if value > (train.max_iters if by_iter else train.max_epochs):
            yield Finding(f'this training is validated {meaning}: train_cfg.{setting}={value}, but {length}', False)
    dataset, *others = leaves(val.dataloader.dataset)
    if others or not isinstance(dataset, BaseDataset) or not hasattr(dataset, 'cat_ids'):
        return
    images = {dataset.get_data_info(i).get('img_id') for i in range(len(dataset))}
    # a file of instances has the things of panoptic data alone
    things = len(dataset.metainfo.get('thing_classes') or dataset.cat_ids)
    evaluator = runner.cfg.get('val_evaluator')
    configs = evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]
    for metric, cfg in zip(val.evaluator.metrics, configs):
        truth = getattr(metric, '_coco_api', None)
        if truth is None:  # the metric takes the ground truth from the data set
            continue
        both = f"val_evaluator.ann_file={cfg['ann_file']} does not fit the val data of {dataset.ann_file}"
        known = set(truth.get_img_ids())
        if lost := images - known:
            yield Finding(f'{both}: it lacks {len(lost)} of their {len(images)} images; name the same file in both')
        elif truth.get_cat_ids(cat_names=classes_of(dataset)) not in (dataset.cat_ids, dataset.cat_ids[:things]):
            yield Finding(f'{both}: its categories differ, or their order; name the same file in both')
        elif len(known) > len(images):
            yield Finding(f'{both}: it has {len(known) - len(images)} more images; name the same file in both', False)


def _check_disk(runner: MMEngineRunner, model: nn.Module) -> Iterator[Finding]:
    """Checks the disk for room for the checkpoints that the training keeps, and for the one being written."""
    for hook in runner.hooks:
        if not isinstance(hook, CheckpointHook) or hook.interval <= 0 or '://' in str(hook.out_dir or ''):
            continue
        folder = Path(hook.out_dir, Path(runner.work_dir).name) if hook.out_dir else Path(runner.work_dir)
        size = _checkpoint_size(runner, model, hook.save_optimizer)
        most = max(1, (runner.max_epochs if hook.by_epoch else runner.max_iters) // hook.interval)
        if hook.max_keep_ckpts > 0:  # the oldest is removed after the next is written
            most = min(most, hook.max_keep_ckpts + 1)
        most += len(hook.save_best or ())
        there = next(path for path in (folder, *folder.resolve().parents) if path.exists())
        # checkpoints of an earlier run will be overwritten or removed
        free = shutil.disk_usage(there).free + sum(path.stat().st_size for path in folder.glob('*.pth'))
        if free < most * size:
            yield Finding(
                f'{folder} has room for {free / 1e9:.3g} GB of checkpoints, and this training holds up to {most} of '
                f'{size / 1e9:.3g} GB at a time; make room, name another --work-dir, or keep fewer: --cfg-options '
                'default_hooks.checkpoint.max_keep_ckpts=1', stops=free < min(2, most) * size)


def _checkpoint_size(runner: MMEngineRunner, model: nn.Module, with_optimizer: bool) -> int:
    """Bytes of the weights, of a moving average, and of the optimiser's state."""
    weights = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    optimizer = runner.cfg.get('optim_wrapper', {}).get('optimizer', {})
    if class_of(optimizer, OPTIMIZERS) is torch.optim.SGD:
        states = int(bool(optimizer.get('momentum')))
    else:
        states = 2 if any(part in type_name(optimizer) for part in ('Adam', 'Lamb')) else 1
    copies = 1 + any(isinstance(hook, EMAHook) for hook in runner.hooks)
    return copies * weights + with_optimizer * states * trained


def _check_length(loader: DataLoader) -> Iterator[Finding]:
    """Finds data that make no batch; mmengine would fail where it counts the steps of an epoch."""
    batches = loader.batch_sampler
    if not isinstance(batches, PlacedBatchSampler) or len(batches) or isinstance(batches.sampler, InfiniteSampler):
        return
    if not (samples := len(loader.dataset)):
        yield Finding('the training data have no samples; look at their ann_file, data_prefix and filter_cfg')
        return
    processes = f' for {get_world_size()} processes' if get_world_size() > 1 else ''
    yield Finding(f'the training data make no batch: there are {samples} samples{processes}, and drop_last=True leaves '
                  f'out a batch of fewer than {batches.batch_size}; lower train_dataloader.batch_size, or set '
                  'drop_last=False in train_dataloader, or in its batch_sampler')


def _check_single_images(loader: DataLoader, model: nn.Module) -> Iterator[Finding]:
    """Finds batches of one image that a BatchNorm cannot train on, by trying one."""
    batches = loader.batch_sampler
    size, drop_last, sampler = (getattr(batches, name, None) for name in ('batch_size', 'drop_last', 'sampler'))
    if size == 1:
        when, remedy = 'each batch', 'raise train_dataloader.batch_size'
    elif size and not drop_last and not isinstance(sampler, InfiniteSampler) and len(sampler) % size == 1:
        when, remedy = 'the last batch of an epoch', 'set drop_last=True in train_dataloader, or in its batch_sampler'
    else:
        return
    if reason := _reason_against_a_single_image(loader, model):
        yield Finding(f'{when} has one image a process, and this model cannot be trained so ({reason}); {remedy}')


def _reason_against_a_single_image(loader: DataLoader, model: nn.Module) -> str:
    """The error of a BatchNorm for the first image alone; empty if none. The model stays as it is."""
    model = copy.deepcopy(model).train()
    if get_world_size() > 1:  # SyncBN would wait for the other processes' images
        _remove_sync_norms(model)
    try:
        # mmdet's heads average over the processes (reduce_mean), and the other processes do not take part here
        with randomness_kept(), mock.patch('torch.distributed.is_initialized', return_value=False):
            batch = model.data_preprocessor(loader.collate_fn([loader.dataset[0]]), True)
            model(**batch, mode='loss')
    except Exception as error:  # the training itself reports any other error
        if 'more than 1 value per channel' in str(error) or 'needs 2 or more images' in str(error):
            return one_line(error)
    return ''


def _remove_sync_norms(model: nn.Module) -> None:
    for name, module in model.named_children():
        if isinstance(module, nn.SyncBatchNorm):
            setattr(model, name, nn.Identity())
        else:
            _remove_sync_norms(module)
