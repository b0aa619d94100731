"""Runs the blocks of a page of the documentation, as `tests/clone/test_docs.py` describes."""
import multiprocessing
import os
import re
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r'^```\{?(?P<language>bash|python|code-cell)\b.*?\n(?P<code>.*?)^```$', re.M | re.S)
COMMENT = re.compile(r'<!-- docs-test: (add|skip|before) (.*?) -->\n')

# A line of a bash block → why no test runs it. What it names is still checked to exist.
NOT_RUN = {
    r'^make ': 'installs, or works for minutes to hours; the Makefile is checked to have it',
    r'^(pip|python -m pip|apt-get) ': 'changes the environment',
    r'tools/dist_(train|test)\.sh .* 8\b': 'needs 8 GPUs',
    r'-m dwnet doctor': 'finds fault with the small data; test_doctor.py runs it',
    r'tools/benchmark\.py .*--record': 'measures for half an hour',
}


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        language: ``'bash'`` or ``'python'``.
        code: Its lines.
        line: The line of the page at which the block begins.
        add: What is added to its training commands.
        skip: Why the block is not run; empty if it is run.
        before: Shell commands that run first.
    """
    language: str
    code: str
    line: int
    add: str = ''
    skip: str = ''
    before: str = ''


def blocks_of(page: str) -> list[Block]:
    """The bash and python blocks of a page, with the comments directly in front of each.

    Raises:
        ValueError: If a comment is not directly in front of a block.
    """
    blocks, comments = [], 0
    for match in BLOCK.finditer(page):
        options, start = {}, match.start()
        while found := re.search(COMMENT.pattern + r'\Z', page[:start]):
            options[found[1]] = found[2]
            start, comments = found.start(), comments + 1
        blocks.append(Block(match['language'], match['code'], page.count('\n', 0, match.start()) + 1, **options))
    if page.count('<!-- docs-test:') != comments:
        raise ValueError('a docs-test comment is not directly in front of a block')
    return blocks


def shortened(block: Block) -> str:
    """The commands of a bash block to run; training commands get the block's added options."""
    lines = [line for line in block.code.replace('\\\n', ' ').splitlines()
             if not any(re.search(pattern, line) for pattern in NOT_RUN)]
    train = re.compile(r'^(.*(?:tools/(?:dist_)?train\.(?:py|sh)|-m dwnet train)[^#|>]*?)(\s*(?:[#|>].*)?)$')
    return '\n'.join(train.sub(rf'\1 {block.add}\2', line) if block.add else line for line in lines)


_namespace = {'__name__': '__main__'}


def _enter(folder: Path) -> None:
    os.chdir(folder)
    sys.path[:0] = ['', str(ROOT)]
    os.environ.update(_environment(folder))


def _environment(folder: Path) -> dict[str, str]:
    return {**os.environ, 'PYTHONPATH': str(ROOT), 'COLUMNS': '200', 'PATH': f"{folder}/.venv/bin:{os.environ['PATH']}"}


def _run_python(code: str, name: str) -> None:
    exec(compile(code, name, 'exec'), _namespace)


def make_scratch(folder: Path, digits: Path) -> None:
    """A folder in which everything that the pages name lies where they say."""
    for path in ROOT.iterdir():
        if not path.name.startswith('.') and path.name not in ('data', 'work_dirs', 'build', 'dist', 'weights'):
            (folder / path.name).symlink_to(path)
    (folder / 'data').mkdir()
    (folder / 'data/digits').symlink_to(digits)
    python = folder / '.venv/bin/python'
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -W ignore "$@"\n')
    python.chmod(0o755)


def run_page(page: str, folder: Path) -> None:
    """Runs the blocks of a page in order: one shell's variables and folder, one Python's names.

    Args:
        page: Its text.
        folder: From :func:`make_scratch`.

    Raises:
        AssertionError: If a command fails.
        Exception: Whatever a Python block raises.
    """
    state = folder / '.state'
    state.write_text(f"cd '{folder}'\n")
    with ProcessPoolExecutor(1, multiprocessing.get_context('spawn'), _enter, (folder, )) as python:
        for block in blocks_of(page):
            name = f'the {block.language} block at line {block.line}'
            if block.skip:
                continue
            if block.before:
                _run_bash(block.before, state, f'before {name}')
            if block.language == 'bash':
                _run_bash(shortened(block), state, name)
            else:
                python.submit(_run_python, block.code, name).result()


def _run_bash(code: str, state: Path, name: str) -> None:
    script = f'set -eo pipefail\nsource {state}\n{code}\n{{ export -p; echo "cd \'$PWD\'"; }} > {state}\n'
    done = subprocess.run(['bash', '-c', script], text=True, capture_output=True, cwd=state.parent,
                          env=_environment(state.parent))
    assert done.returncode == 0, f'{name}:\n{code}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}'
