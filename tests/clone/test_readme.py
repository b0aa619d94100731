"""What the documents say is there: files, configs, options, arguments, figures, and the swap-in lines."""
import functools
import inspect
import re
from pathlib import Path

import pytest
from conftest import ROOT, run_python, run_tool
from mmengine.config import Config
from mmengine.optim import OptimWrapper

from dwnet import DWNet
from dwnet.toolboxes import TOOLBOXES

README = (ROOT / 'README.md').read_text()
DOCUMENTS = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', ROOT / 'benchmarks/README.md',
             *sorted(ROOT.glob('docs/*.md')), *sorted(ROOT.glob('configs/*/README.md'))]
every_document = pytest.mark.parametrize('document', DOCUMENTS, ids=lambda d: str(d.relative_to(ROOT)))


@every_document
def test_paths_exist(document):
    text = document.read_text()
    paths = re.findall(r'\b((?:configs|tools|tests|docs|dwnet)/[\w./-]+\.(?:py|sh|png|md))', text)
    there = [path.parent if path.stem == 'NAME' else path for path in map(Path, paths)]
    assert [p for p in there if not (ROOT / p).exists()] == []
    links = re.findall(r'\]\((?!https?://)([^)#]+)\)', text)
    assert [link for link in links if not (document.parent / link).exists()] == []


@every_document
def test_code_fits_a_page(document):
    """A page of 1,100 pixels shows 88 characters of code; a longer line has to be scrolled."""
    fences = re.findall(r'^```(.*?)\n(.*?)^```$', document.read_text(), re.M | re.S)
    shown = [code for language, code in fences if not language.startswith('{')]  # the others are for Sphinx
    assert [line for code in shown for line in code.splitlines() if len(line) > 88] == []


def test_pictures_are_small_shown_and_described():
    shown = [(alt, (page.parent / path).resolve()) for page in DOCUMENTS
             for alt, path in re.findall(r'!\[([^]]*)]\(([^)]+)\)', page.read_text())]
    assert [path for alt, path in shown if len(alt) < 15] == []
    sizes = {path: path.stat().st_size for path in (ROOT / 'docs/images').iterdir()}
    assert sizes.keys() <= {path for _, path in shown}
    assert max(sizes.values()) <= 150_000 and sum(sizes.values()) <= 1_500_000


def test_the_readme_is_short():
    assert len(README.splitlines()) < 200


def test_make_targets_exist():
    targets = set(re.findall(r'^([\w-]+):', (ROOT / 'Makefile').read_text(), re.M))
    named = {name for page in DOCUMENTS for name in re.findall(r'(?:`|^)make ([a-z-]+)', page.read_text(), re.M)}
    assert len(named) >= 8 and named <= targets


@pytest.mark.parametrize('tool', ['train', 'test'])
def test_options_exist(tool):
    described = re.search(rf'`{tool}\.py`\s+takes(.*?)[;.]\s', (ROOT / 'docs/get_started.md').read_text(), re.S)[1]
    usage = usage_of(f'tools/{tool}.py')
    options = re.findall(r'--[\w-]+', described)
    assert options and [o for o in options if o not in usage] == []


@every_document
def test_commands_name_tools_configs_and_options_that_exist(document):
    text = document.read_text().replace('\\\n', ' ')
    commands = re.findall(r'(?:python|bash) (tools/[\w.]+) ([^`#|\n]*)', text)
    commands += [(f'tools/{tool}.py', arguments) for tool, arguments in re.findall(
        r'-m dwnet (?!doctor|hook|TOOL)(\w+) ([^`#|\n]*)', text)]
    for tool, arguments in commands:
        assert (ROOT / tool).is_file()
        for config in re.findall(r'configs/\S+\.py', arguments):
            assert Config.fromfile(config).default_scope in TOOLBOXES
        usage = {'.sh': 'tools/train.py', '.py': tool}[Path(tool).suffix]
        for option in re.findall(r'--[\w-]+', arguments):
            assert option in usage_of(usage), f'{tool} has no {option}'


@functools.cache
def usage_of(tool: str) -> str:
    return run_tool(tool, '--help').stdout


def test_settings_of_the_migration_page_exist():
    """Each setting is in one of the tiny configs, or an argument of the backbone or the optimizer's wrapper."""
    table = (ROOT / 'docs/migration.md').read_text().split('## Settings')[1].split('## ')[0]
    rows = re.findall(r'^\| .* \| (.*) \|$', table, re.M)[2:]
    keys = {key for row in rows for key in re.findall(r'`([a-z_]+(?:\.\w+)+)', row)}
    configs = [Config.fromfile(f'configs/{name}.py') for name in (
        'classification/dwnet-tiny_in1k', 'detection/cascade-mask-rcnn_dwnet-tiny_fpn_3x_coco')]
    arguments = {f'model.backbone.{name}' for name in inspect.signature(DWNet.__init__).parameters}
    arguments |= {f'optim_wrapper.{name}' for name in inspect.signature(OptimWrapper.__init__).parameters}
    assert len(keys) >= 20
    for key in keys - arguments:
        assert any(has(cfg, key) for cfg in configs), key


def has(cfg: Config, key: str) -> bool:
    for name in key.split('.'):
        if name not in cfg:
            return False
        cfg = cfg[name]
    return True


def test_checkpoint_of_the_example_is_the_last_epoch():
    pages = [(ROOT / 'docs' / page).read_text() for page in ('get_started.md', 'distributed.md', 'deploy.md')]
    named = {found for page in pages for found in re.findall(r'work_dirs/([\w-]*digits)/epoch_(\d+)\.pth', page)}
    assert len(named) == 2
    for name, epoch in named:
        assert Config.fromfile(next(Path('configs').glob(f'*/{name}.py'))).train_cfg.max_epochs == int(epoch)


def test_arguments_are_described_as_they_are():
    parameters = inspect.signature(DWNet.__init__).parameters
    table = (ROOT / 'docs/swap_in.md').read_text().split("## The backbone's arguments")[1].split('## ')[0]
    rows = re.findall(r'^\| ((?:`\w+`(?:, )?)+) \| .* \| ?(.*?) ?\|$', table, re.M)
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
    after = """
from mmengine.registry import MODELS, init_default_scope
import mmdet.models
init_default_scope('mmdet')
print(type(MODELS.build(cfg.model).backbone))
"""
    assert 'DWNet' in run_python('-c', code + after).stdout
