"""What README says is there: files, configs, options, arguments, and the swap-in lines."""
import inspect
import re
from pathlib import Path

import pytest
from conftest import ROOT, run_python
from mmengine.config import Config

from dwnet import DWNet

README = (ROOT / 'README.md').read_text()
COMMANDS = re.findall(r'(?:\.venv/bin/python|bash) (tools/\S+) ([^`#\n]*)', README)


def test_paths_exist():
    paths = re.findall(r'\b((?:configs|tools|tests|docs|dwnet)/[\w./-]+\.(?:py|sh|png))', README)
    assert len(paths) > 10
    assert [p for p in paths if not (ROOT / p).exists()] == []


def test_make_targets_exist():
    targets = set(re.findall(r'^([\w-]+):', (ROOT / 'Makefile').read_text(), re.M))
    named = re.findall(r'`?make (\w+)`?$', README, re.M)
    assert len(named) >= 2 and set(named) <= targets


@pytest.mark.parametrize('tool', ['train', 'test'])
def test_options_exist(tool):
    described = re.search(rf'`{tool}\.py`\s+takes(.*?)[;.]\s', README, re.S)[1]
    usage = run_python(f'tools/{tool}.py', '--help').stdout
    options = re.findall(r'--[\w-]+', described)
    assert options and [o for o in options if o not in usage] == []


def test_commands_name_tools_and_configs_that_exist():
    assert len(COMMANDS) >= 6
    for tool, arguments in COMMANDS:
        assert (ROOT / tool).is_file()
        assert Config.fromfile(arguments.split()[0]).default_scope in ('mmpretrain', 'mmdet', 'mmseg')


def test_checkpoint_of_the_example_is_the_last_epoch():
    for name, epoch in re.findall(r'work_dirs/([\w-]+)/epoch_(\d+)\.pth', README):
        assert Config.fromfile(next(Path('configs').glob(f'*/{name}.py'))).train_cfg.max_epochs == int(epoch)


def test_arguments_are_described_as_they_are():
    parameters = inspect.signature(DWNet.__init__).parameters
    rows = re.findall(r'^\| ((?:`\w+`(?:, )?)+) \| .* \| ?(.*?) ?\|$', README, re.M)
    seen = 0
    for names, default in rows:
        for name in re.findall(r'`(\w+)`', names):
            if name in parameters:
                seen += 1
                value = default.strip('`')
                assert not value or eval(value) == parameters[name].default, name
    assert seen == len(parameters) - 3, 'self, in_channels and mlp_ratio are left to the docstring'


def test_swap_in_lines():
    code = re.search(r'```python\n(import dwnet.*?)```', README, re.S)[1]
    check = "from mmengine.hub import get_config\ncfg = get_config('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py')\n"
    after = """
from mmengine.registry import MODELS, init_default_scope
import mmdet.models
init_default_scope('mmdet')
print(type(MODELS.build(cfg.model).backbone))
"""
    assert 'DWNet' in run_python('-c', check + code + after).stdout
