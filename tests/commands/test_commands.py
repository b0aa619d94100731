"""Every command has what ``python -m dwnet`` and ``tools/`` ask of it."""
import importlib
from pathlib import Path

import pytest
import safetensors.torch
import torch
from conftest import ROOT, run_python

from dwnet import DWNet, commands

# Neither of them works on a config, a checkpoint or data, so a clone needs no file for them.
ONLY_AS_MODULES = {'doctor', 'hook'}
OF_THE_CLONE = {'benchmark', 'write_model_zoo'}


@pytest.mark.parametrize('called', ['python -m dwnet {}', 'tools/{}.py'])
@pytest.mark.parametrize('name', commands.names())
def test_a_command_is_whole(name, called, monkeypatch, capsys):
    command = importlib.import_module(f'dwnet.commands.{name}')
    assert callable(command.add_arguments) and callable(command.run)
    monkeypatch.setattr('sys.argv', [called.format(name), '--help'])
    with pytest.raises(SystemExit) as end:
        commands.start(name)
    usage, *_, example = capsys.readouterr().out.strip().splitlines()
    assert end.value.code == 0 and usage.startswith(f'usage: {Path(called.format(name)).name} ')
    assert commands.summary(name) == command.__doc__.splitlines()[0] != ''
    arguments = command.EXAMPLE
    if called.startswith('python'):  # with or without a clone
        arguments = arguments.replace('configs/', 'dwnet::')
    assert example == f"example: {'python ' * called.startswith('tools')}{called.format(name)} {arguments}".rstrip()


def test_every_command_has_a_file_in_tools():
    tools = {path.stem for path in Path('tools').glob('*.py')}
    assert tools == set(commands.names()) - ONLY_AS_MODULES | OF_THE_CLONE


def test_the_list_of_commands_imports_none_of_them(tmp_path):
    """Nor PyTorch, so the list appears at once."""
    (tmp_path / 'sitecustomize.py').write_text("import sys\nsys.modules['torch'] = sys.modules['mmengine'] = None\n")
    shown = run_python('-m', 'dwnet', '--help', PYTHONPATH=f'{tmp_path}:{ROOT}').stdout
    for name in commands.names():
        assert f'  {name:20}{commands.summary(name)}\n' in shown


def test_convert_checkpoint_says_what_it_wrote(tmp_path, monkeypatch, capsys):
    model = DWNet(arch=dict(embed_dims=8, depths=[1, 1, 1, 1]))
    torch.save(dict(state_dict=model.state_dict(), optimizer=dict(state={})), tmp_path / 'trained.pth')
    monkeypatch.setattr('sys.argv', ['tools/convert_checkpoint.py', str(tmp_path / 'trained.pth'),
                                     str(tmp_path / 'clean.safetensors')])
    commands.start('convert_checkpoint')
    written, = tmp_path.glob('clean-*.safetensors')
    weights = model.state_dict()
    values = sum(tensor.numel() for tensor in weights.values())
    assert capsys.readouterr().out.startswith(f'{written}: {len(weights)} tensors, {values:,} values, ')
    content = safetensors.torch.load_file(written)
    assert content.keys() == weights.keys() and all(torch.equal(content[name], weights[name]) for name in weights)
