#!/usr/bin/env python3
"""The everyday tests on other Pythons and other versions of the packages, one row after the other.

Each row has a virtual environment of its own in work_dirs/matrix, about 6 GB, which is removed when the row has ended.
Its result is kept in docs/versions.json, and docs/versions.md is written from that file. A row that has a result for
the code as it is now is passed over, so what was interrupted goes on when it is started again. Standard library only.
"""
import argparse
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE, WORK = ROOT / 'docs/versions.json', ROOT / 'docs/versions.md', ROOT / 'work_dirs/matrix'
CODE = ('dwnet', 'tests', 'tools', 'configs', 'benchmarks', 'setup.py', 'constraints.txt', 'pyproject.toml')
OPENMMLAB = ('mmengine==0.10.7', 'mmcv-lite==2.1.0', 'mmpretrain==1.2.0', 'mmdet==3.3.0', 'mmsegmentation==1.2.2')
ONEDL = ('onedl-mmengine', 'onedl-mmcv', 'onedl-mmpretrain', 'onedl-mmdetection', 'onedl-mmsegmentation')
NO_DEPS = ('mmpose', 'mmaction2')  # as in the Makefile
SHOWN = ('torch', 'torchvision', 'numpy', 'opencv-python', 'mmengine')


@dataclass(frozen=True)
class Row:
    """One environment.

    Attributes:
        python: Version of the interpreter.
        what: What the row is there to show.
        pins: Requirements that bind the installation; ``()``: those of constraints.txt.
        last: What is installed at the end, one after the other, without what it depends on: the headless OpenCV.
        instead: What is installed in the place of OpenMMLab's packages.
    """
    python: str
    what: str
    pins: tuple[str, ...] = ()
    last: tuple[str, ...] = ('opencv-python-headless<5', )
    instead: tuple[str, ...] = ()


ROWS = {
    '3.10': Row('3.10', 'the oldest versions', (
        'torch==2.6.0', 'torchvision==0.21.0', 'numpy==1.26.4', 'opencv-python==4.11.0.86',
        'opencv-python-headless==4.11.0.86', *OPENMMLAB)),
    '3.11': Row('3.11', 'constraints.txt'),
    '3.12': Row('3.12', 'constraints.txt'),
    '3.13': Row('3.13', 'constraints.txt'),
    '3.14': Row('3.14', 'constraints.txt'),
    'newest': Row('3.13', 'the newest PyTorch, torchvision and NumPy', OPENMMLAB),
    'opencv5': Row('3.13', 'OpenCV 5', OPENMMLAB, ('opencv-python>=5', 'opencv-python-headless>=5')),
    # onedl-mmengine 0.10.12 looks for a distribution `mmsegmentation`, and onedl's is `onedl-mmsegmentation`
    'onedl': Row('3.13', 'the onedl packages in the place of OpenMMLab’s; no config on an `mmseg::` base is found',
                 ('timm>=1.0.26', ), instead=ONEDL),
}


class Unavailable(Exception):
    """A row cannot be run here."""


def interpreter(version: str) -> str:
    """A Python of this version: the one that ``PYTHON_3_13=…`` names, one on PATH, of pyenv, or this one.

    Raises:
        Unavailable: If there is none.
    """
    variable = f"PYTHON_{version.replace('.', '_')}"
    pyenv = sorted(Path.home().glob(f'.pyenv/versions/{version}*/bin/python3'), reverse=True)
    named = os.environ.get(variable)
    candidates = [named] if named else [f'python{version}', 'python3', sys.executable, *map(str, pyenv)]
    for candidate in candidates:
        try:
            said = subprocess.run([candidate, '-c', 'import sys; print("%d.%d" % sys.version_info[:2])'],
                                  capture_output=True, text=True)
        except OSError:
            continue
        if said.stdout.strip() == version:
            return candidate
    raise Unavailable(f'no Python {version} on PATH or in ~/.pyenv; name one: {variable}=/path/to/python')


def fingerprint() -> str:
    """Changes with the code that is tested."""
    digest = hashlib.sha256()
    for name in CODE:
        path = ROOT / name
        for file in sorted(path.rglob('*')) if path.is_dir() else [path]:
            if file.is_file() and '__pycache__' not in file.parts:
                digest.update(str(file.relative_to(ROOT)).encode() + b'\0' + file.read_bytes())
    return digest.hexdigest()[:12]


def cpu() -> str:
    """The processor and the number of cores."""
    try:
        info = Path('/proc/cpuinfo').read_text()
    except OSError:
        info = ''
    name = re.search(r'model name\s*:\s*(.+)', info)
    return f'{name[1].strip() if name else platform.machine()}, {os.cpu_count()} cores'


def run(command: list[str], log: Path, env: dict[str, str]) -> Iterator[str]:
    """Runs a command; its output goes to ``log``, and is yielded line by line.

    Raises:
        Unavailable: If the command fails, unless it is pytest, whose results tell.
    """
    with log.open('a') as file:
        file.write(f'$ {shlex.join(command)}\n')
        process = subprocess.Popen(command, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, errors='replace')
        line = ''
        with process:
            try:
                for line in process.stdout:
                    file.write(line)
                    file.flush()
                    yield line
            except BaseException:
                process.terminate()
                raise
    if process.returncode and 'pytest' not in command:
        lines = [line for line in log.read_text().splitlines() if line.startswith('ERROR')] or [line.strip()]
        raise Unavailable(f'{shlex.join(command[-4:])}: {lines[0]}')


def install(name: str, row: Row, env: dict[str, str], folder: Path, log: Path) -> str:
    """Makes the row's environment, unless it is there from an interrupted run. Returns its interpreter."""
    python = str(folder / 'bin/python')
    if (folder / '.installed').is_file():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    log.unlink(missing_ok=True)
    folder.mkdir(parents=True)
    pins = folder / 'pins.txt'
    pins.write_text('\n'.join(row.pins) if row.pins else (ROOT / 'constraints.txt').read_text())
    env['PIP_CONSTRAINT'] = str(pins)  # and none that pip's own configuration names
    pip = [python, '-m', 'pip', 'install', '--quiet']

    def do(*step: str) -> None:
        print(f"{name}: {shlex.join(step)[:200].replace(python, 'python')} …", flush=True)
        for _ in run(list(step), log, env):
            pass

    do(interpreter(row.python), '-m', 'venv', str(folder))
    if row.instead:
        do(*pip, '--no-deps', '-e', '.')
        do(*pip, *row.instead, *requirements(python))
    else:
        do(*pip, '-e', '.[dev]')
        do(*pip, '--no-deps', *NO_DEPS)
    for package in row.last:
        do(*pip, '--force-reinstall', '--no-deps', package)
    (folder / '.installed').touch()
    return python


def requirements(python: str) -> list[str]:
    """What the installed dwnet asks for, with its extra ``dev``, but for OpenMMLab's packages."""
    said = subprocess.run([python, '-c', "import importlib.metadata as m; print(*m.requires('dwnet'), sep='\\n')"],
                          capture_output=True, text=True, check=True)
    theirs = ('mmengine', 'mmcv', 'mmpretrain', 'mmdet', 'mmsegmentation', 'mmrotate', 'mmyolo', 'mmocr')
    asked = [line.partition(';') for line in said.stdout.splitlines() if not line.startswith(theirs)]
    return sorted({name.strip() for name, _, marker in asked if not marker or 'extra == "dev"' in marker})


def test(name: str, python: str, env: dict[str, str], selection: list[str], log: Path, expected: float) -> dict:
    """Runs the tests; prints how far they are. Returns what came out."""
    report = WORK / f'{name}.xml'
    report.unlink(missing_ok=True)
    command = [python, '-W', 'ignore', '-m', 'pytest', '-n', '2', '--dist', 'worksteal', '-p', 'no:cacheprovider',
               f'--junitxml={report}', *selection]
    begun, told = time.monotonic(), 0.
    for line in run(command, log, env):
        now = time.monotonic() - begun
        if (share := re.search(r'\[ *(\d+)%\]', line)) and now - told > 20:
            done = int(share[1]) / 100
            left = now / done - now if done > .2 or not expected else max(expected - now, 0)
            print(f'{name}: {done:4.0%} of the tests, about {left / 60:.0f} min left', flush=True)
            told = now
        elif line.startswith(('FAILED', 'ERROR')):
            print(f'{name}: {line.strip()}', flush=True)
    if not report.is_file():
        raise Unavailable(f'the tests ended without a result; see {log.relative_to(ROOT)}')
    suite = ElementTree.parse(report).getroot().find('testsuite')
    count = {key: int(suite.get(key)) for key in ('tests', 'skipped', 'failures', 'errors')}
    failed = [f"{case.get('classname')}::{case.get('name')}" for case in suite.iter('testcase')
              if case.find('failure') is not None or case.find('error') is not None]
    bad = count['failures'] + count['errors']
    return dict(passed=count['tests'] - count['skipped'] - bad, skipped=count['skipped'], failed=bad,
                seconds=round(time.monotonic() - begun), failures=failed[:20])


def versions(python: str) -> dict[str, str]:
    """The versions of Python and of the packages that the table shows."""
    code = ('import importlib.metadata as m, json, platform; found = {d.metadata["Name"].lower(): d.version for d in '
            'm.distributions()}; print(json.dumps({"python": platform.python_version(), **{name: found.get(name) or '
            f'found.get("onedl-" + name) for name in {SHOWN}}}}}))')
    return json.loads(subprocess.run([python, '-c', code], capture_output=True, text=True, check=True).stdout)


def run_row(name: str, selection: list[str], keep: bool, expected: float) -> dict:
    """Sets a row's environment up and runs the tests in it. Returns the row's result."""
    row, folder, log = ROWS[name], WORK / name, WORK / f'{name}.log'
    env = {key: value for key, value in os.environ.items() if key not in ('PYTHONPATH', 'PYTHONHOME', 'PIP_TARGET')}
    env |= dict(PIP_DISABLE_PIP_VERSION_CHECK='1', PYTHONNOUSERSITE='1', OMP_NUM_THREADS='1',
                VIRTUAL_ENV=str(folder), PATH=f"{folder / 'bin'}{os.pathsep}{env['PATH']}")  # for the launchers
    WORK.mkdir(parents=True, exist_ok=True)
    result = dict(date=time.strftime('%Y-%m-%d'), cpu=cpu(), code=fingerprint())
    try:
        python = install(name, row, env, folder, log)
        result |= versions(python) | test(name, python, env, selection, log, expected)
    except Unavailable as error:
        result['reason'] = str(error)
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)
    return result


def outcome(result: dict | None) -> str:
    """A row's result in a few words."""
    if result is None:
        return 'not run yet'
    if 'reason' in result:
        return f"not run: {result['reason']}"
    counts = f"{result['passed']} passed, {result['skipped']} skipped"
    if not result['failed']:
        return counts
    first = result['failures'][:3]
    more = f" and {result['failed'] - len(first)} more" * (result['failed'] > len(first))
    return f"{counts}, **{result['failed']} failed**: {', '.join(first)}{more}"


def page(results: dict[str, dict]) -> str:
    """The page of the documentation."""
    lines = [
        '# Versions that were tried', '',
        'Each row is the everyday tests in a fresh environment. `make matrix` runs them and writes this page;',
        "`make matrix ROWS='3.13 3.14'` runs a part. `constraints.txt` holds the versions of the middle rows.", '',
        f"| row | what | Python | {' | '.join(SHOWN)} | result | minutes | when | CPU |",
        f"|{' --- |' * (len(SHOWN) + 7)}"]
    for name, row in ROWS.items():
        result = results.get(name, {})
        cells = [name, row.what, result.get('python', row.python), *(result.get(package) or '–' for package in SHOWN),
                 outcome(results.get(name)), f"{result['seconds'] / 60:.0f}" if 'seconds' in result else '–',
                 result.get('date', '–'), result.get('cpu', '–')]
        lines.append(f"| {' | '.join(cells)} |")
    return '\n'.join(lines) + '\n'


def read_results() -> dict[str, dict]:
    return json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='example: PYTHON_3_14=/opt/python/bin/python3 python3 tests/matrix.py 3.13 3.14; '
        'python3 tests/matrix.py 3.13 --keep --tests tests/models/test_dwnet.py')
    parser.add_argument('rows', nargs='*', metavar='ROW', help=f"of {', '.join(ROWS)} (default: all)")
    parser.add_argument('--again', action='store_true', help='also rows that have a result for this code')
    parser.add_argument('--keep', action='store_true', help='keep the environments')
    parser.add_argument('--tests', nargs=argparse.REMAINDER, help="other arguments for pytest than -m 'not long'; the "
                        'result is shown and not kept')
    parser.add_argument('--write', action='store_true', help='write the page from the results, and run nothing')
    args = parser.parse_args()
    if unknown := set(args.rows) - set(ROWS):
        parser.error(f"no row {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    code, failed = fingerprint(), False
    names = [] if args.write else args.rows or list(ROWS)
    for number, name in enumerate(names, 1):
        print(f'{name}: row {number} of {len(names)}, {ROWS[name].what}', flush=True)
        before = read_results().get(name, {})
        if not (args.again or args.tests) and before.get('code') == code and 'reason' not in before:
            print(f'{name}: {outcome(before)} (on {before["date"]}; --again runs it once more)')
            continue
        result = run_row(name, args.tests or ['-m', 'not long'], args.keep, before.get('seconds', 0))
        print(f'{name}: {outcome(result)}', flush=True)
        failed |= 'reason' in result or result['failed'] > 0
        if args.tests or 'reason' in result and 'passed' in before:  # what was measured stays
            continue
        results = {**read_results(), name: result}
        RESULTS.write_text(json.dumps({key: results[key] for key in ROWS if key in results}, indent=1) + '\n')
        PAGE.write_text(page(results))
    PAGE.write_text(page(read_results()))
    return failed


if __name__ == '__main__':
    sys.exit(main())
