"""A folder in which nothing can be written ends a command with one line, before the work whose results it is for."""
import errno
import io
import os

import pytest
from conftest import run_tool
from test_tools import CLASSIFICATION, last_line, small

from dwnet.commands._arguments import check_writable
from dwnet.engine.exit_codes import run_command
from dwnet.errors import UserError


@pytest.mark.parametrize('tool, arguments, flag', [
    ('train', [], '--work-dir'), ('test', ['x.pth'], '--work-dir'), ('analyze', ['x.pth'], '--out'),
    ('test', ['x.pth', '--show-dir'], '--show-dir'), ('test', ['x.pth', '--out'], '--out'),
    ('plot_lr', ['--epoch-length', '9', '--out'], ''), ('export', ['--to', 'onnx', '--out'], '')])
def test_a_file_in_the_place_of_a_folder(tool, arguments, flag, small_digits, tmp_path):
    (tmp_path / 'file').write_text('mine')
    (tmp_path / 'x.pth').write_text('never read')
    folder = tmp_path / 'file/below'
    arguments = [tmp_path / a if a == 'x.pth' else a for a in arguments]
    if arguments[-1:] in (['--show-dir'], ['--out']):
        arguments += [folder / ('x.onnx' if tool == 'export' else 'x.pkl'), '--work-dir', tmp_path / 'w']
    elif flag == '--out':
        arguments += ['--out', folder, '--work-dir', tmp_path / 'w']
    else:
        arguments += ['--work-dir', folder]
    done = run_tool(f'tools/{tool}.py', CLASSIFICATION, *arguments, *small(CLASSIFICATION, small_digits))
    assert done.returncode == 2 and 'cannot be written' in last_line(done) and 'Not a directory' in last_line(done)
    assert str(tmp_path / 'file') in last_line(done) and last_line(done).endswith(flag), last_line(done)
    assert (tmp_path / 'file').read_text() == 'mine'


@pytest.mark.parametrize('tool, arguments, flag', [
    ('infer', ['x.jpg', '--config', CLASSIFICATION, '--checkpoint', 'x.pth', '--out'], '--out'),
    ('benchmark', ['--out'], '--out'), ('benchmark', ['--record'], '--record')])
def test_commands_that_write_at_their_end_try_at_their_start(tool, arguments, flag, tmp_path):
    for name in ('file', 'x.jpg', 'x.pth'):
        (tmp_path / name).write_text('never read')
    arguments = [tmp_path / a if a in ('x.jpg', 'x.pth') else a for a in arguments]
    done = run_tool(f'tools/{tool}.py', *arguments, tmp_path / 'file/below/x')
    assert done.returncode == 2 and last_line(done).startswith(f'error: {tmp_path}/file/below'), done.stderr
    assert last_line(done).endswith(f'or name another folder by {flag}')


def test_a_folder_is_tried(tmp_path, monkeypatch):
    check_writable('--out', tmp_path / 'a/b')
    assert not list((tmp_path / 'a/b').iterdir())
    monkeypatch.setattr('tempfile.TemporaryFile', lambda dir: io.FileIO('/dev/full', 'w'))
    with pytest.raises(UserError, match=r'a/b cannot be written \(No space left on device\): make room, .* by --out'):
        check_writable('--out', tmp_path / 'a/b')


@pytest.mark.parametrize('number, line', [
    (errno.ENOSPC, 'error: a file cannot be written (No space left on device): make room, or name a folder that'),
    (errno.EROFS, 'error: a file cannot be written (Read-only file system)'), (errno.ENOENT, '')])
def test_a_disk_that_becomes_full_is_one_line(number, line, capsys):
    def work():
        raise OSError(number, os.strerror(number))

    with pytest.raises(SystemExit if line else OSError):
        run_command(work)
    assert capsys.readouterr().err.startswith(line)
