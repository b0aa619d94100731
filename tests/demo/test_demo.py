"""The demo does not do again what is finished, and goes on where it was interrupted."""
import json
import shlex
import sys
import threading
from argparse import ArgumentParser
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dwnet.commands import serve
from dwnet.config_names import config_path
from dwnet.demo import three_tasks as demo
from dwnet.errors import UserError

TASK = demo.TASKS[1]


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """Takes the place of the tools; writes what they would write."""
    made = []

    def run(tool, config, *arguments, beside):
        made.append([tool, *map(str, arguments)])
        folder = tmp_path / 'detection'
        (folder / 'test').mkdir(parents=True, exist_ok=True)
        (folder / 'last_checkpoint').write_text(str(folder / 'epoch_3.pth'))
        if tool == 'train' and made[-1].count('interrupt'):
            raise UserError('interrupted')
        (folder / 'test/scores.json').write_text(json.dumps({'coco/bbox_mAP': .7, 'coco/segm_mAP': .6}))

    monkeypatch.setattr(demo, '_run', run)
    return made


def test_what_is_finished_is_reused(calls, tmp_path):
    first = demo.run_task(TASK, tmp_path / 'detection', tmp_path / 'cls.pth', quick=False)
    assert [c[0] for c in calls] == ['train', 'test'] and '--resume' not in calls[0]
    assert f'model.backbone.init_cfg.checkpoint={tmp_path}/cls.pth' in calls[0]
    assert demo.run_task(TASK, tmp_path / 'detection', tmp_path / 'cls.pth', quick=False) == first
    assert len(calls) == 2
    (tmp_path / 'cls.pth').write_bytes(b'other weights')
    demo.run_task(TASK, tmp_path / 'detection', tmp_path / 'cls.pth', quick=False)
    assert [c[0] for c in calls[2:]] == ['train', 'test'], 'other weights to start from, another result'
    assert '--resume' not in calls[2], 'what was trained from the old ones does not count'


def test_an_interrupted_task_goes_on(calls, tmp_path, monkeypatch):
    fake = demo._run

    def interrupted(tool, *arguments, beside):
        fake(tool, *arguments, beside=beside)
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, '_run', interrupted)
    with pytest.raises(KeyboardInterrupt):
        demo.run_task(TASK, tmp_path / 'detection', tmp_path / 'cls.pth', quick=True)
    (tmp_path / 'detection/seconds.json').write_text('100')
    monkeypatch.setattr(demo, '_run', fake)
    result = demo.run_task(TASK, tmp_path / 'detection', tmp_path / 'cls.pth', quick=True)
    assert '--resume' in calls[1], 'the checkpoint of the first run is there'
    assert 100 <= result['seconds'] < 110, 'the time of both runs'
    assert 'train_cfg.max_epochs=1' in calls[1]


def test_a_failing_tool_stops_the_demo(monkeypatch):
    with pytest.raises(UserError, match='exit code 2; run the demo again'):
        demo._run('test', 'nothing.py', 'nothing.pth')


def test_lines_of_tasks_that_run_together_are_told_apart(capfd):
    with pytest.raises(UserError, match='exit code 2'):
        demo._run('test', 'nothing.py', 'nothing.pth', beside='detection')
    out, err = capfd.readouterr()
    assert 'detection: error: nothing.py is missing' in out and not err
    assert not demo._children


@pytest.mark.parametrize('gpu, cores, together', [(False, 2, True), (False, 1, False), (True, 16, False)])
def test_two_tasks_share_the_cores_of_a_cpu(gpu, cores, together, monkeypatch, tmp_path):
    begun, meet = [], threading.Barrier(2)

    def run_task(task, folder, pretrained, quick, beside):
        begun.append((task.name, str(pretrained), beside))
        if beside:
            meet.wait(20)  # for the other one, which has to run at the same time
        return dict(scores=dict.fromkeys(task.scores, .5), seconds=1., checkpoint=f'{task.name}.pth')

    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    monkeypatch.setattr(demo, '_cores', lambda: cores)
    monkeypatch.setattr(demo, 'run_task', run_task)
    monkeypatch.setattr(demo.digits, 'prepare', lambda root: True)
    monkeypatch.setattr(demo, 'write_report', lambda folder, results: folder / 'report.html')
    results = demo.run(tmp_path)
    assert list(results) == ['classification', 'detection', 'segmentation']
    assert begun[0] == ('classification', 'None', False)
    assert sorted(begun[1:]) == [(name, 'classification.pth', together) for name in ('detection', 'segmentation')]


def test_the_last_line_serves_the_detector(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(demo, 'run_task', lambda task, folder, *_: dict(
        scores=dict.fromkeys(task.scores, .5), seconds=1., checkpoint=f'{folder}/a [b] c.pth'))
    monkeypatch.setattr(demo.digits, 'prepare', lambda root: True)
    monkeypatch.setattr(demo, 'write_report', lambda folder, results: folder / 'report.html')
    demo.run(tmp_path)
    python, *command = shlex.split(capsys.readouterr().out.splitlines()[-1].partition(': ')[2])
    assert python == sys.executable and command[:3] == ['-m', 'dwnet', 'serve']
    parser = ArgumentParser()
    serve.add_arguments(parser)
    args = parser.parse_args(command[3:])
    assert args.checkpoint == f'{tmp_path}/detection/a [b] c.pth'
    assert Path(config_path(args.config)).name == 'cascade-mask-rcnn_dwnet-nano_fpn_digits.py'


def test_after_an_interruption_no_further_task_begins(monkeypatch, tmp_path):
    begun, begins, ended = [], threading.Event(), threading.Event()

    def run_task(task, *_):
        begun.append(task.name)
        if len(begun) == 2:
            begins.set()
            ended.wait(20)
        return dict(checkpoint='classification.pth')

    def interrupted(futures):
        begins.wait(20)
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)  # so there is one task at a time
    monkeypatch.setattr(demo, 'run_task', run_task)
    monkeypatch.setattr(demo.digits, 'prepare', lambda root: True)
    monkeypatch.setattr(demo, 'wait', interrupted)
    monkeypatch.setattr(demo, '_children', [SimpleNamespace(terminate=ended.set)])
    with pytest.raises(KeyboardInterrupt):
        demo.run(tmp_path)
    assert begun == ['classification', 'detection']


def test_tasks_name_configs_and_metrics_that_exist():
    for task in demo.TASKS:
        assert Path(config_path(task.config)).is_file()
        assert all(key in demo.SCORE_NAMES for key in task.scores)
