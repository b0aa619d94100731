"""Compiles mmcv and keeps its results: ``make oracle``.

mmcv 2.1.0 is built from its source release, without CUDA, into a folder of its own; the environment is left alone. It
takes a C++ compiler, a network and 10 minutes on two cores, once. Then mmcv's operators run on the cases of
``mmcv_cases.py`` and ``mmcv_rotated_cases.py``, and the results go to ``tests/data/``. With these,
``test_mmcv_ops.py`` and ``test_mmcv_rotated.py`` compare the stand-in.

    python tests/mmcv_oracle.py                  # builds, and writes the results
    python tests/mmcv_oracle.py --compare 500    # and compares 500 cases of each operator, without keeping them
"""
import argparse
import importlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

DATA = Path(__file__).parent / 'data/mmcv_ops.safetensors'
FILES = {'mmcv_cases': DATA, 'mmcv_rotated_cases': DATA.with_name('mmcv_rotated_ops.safetensors')}
SEEDS = 16  # of each operator, kept in the file
TOLERANCE = 1e-5


def build(folder: Path) -> None:
    """Builds mmcv into ``folder``, unless it is there."""
    if list(folder.glob('mmcv/_ext*.so')):
        return
    subprocess.run([sys.executable, '-m', 'pip', 'install', '--target', str(folder), '--no-deps',
                    '--no-build-isolation', '--no-binary', 'mmcv', 'mmcv==2.1.0'], check=True,
                   env=dict(os.environ, MMCV_WITH_OPS='1', FORCE_CUDA='0', MAX_JOBS=str(os.cpu_count())))


def results(seeds: int, cases: str = 'mmcv_cases') -> dict:
    """What the operators of this process's mmcv return, by ``operator/seed/number``; ``cases`` is a module."""
    return {f'{name}/{seed}/{i}': tensor.contiguous()
            for name, case in importlib.import_module(cases).CASES.items() for seed in range(seeds)
            for i, tensor in enumerate(case(seed))}


def write(path: Path, seeds: int, cases: str) -> None:
    """Writes the results; called in a process with compiled mmcv."""
    from mmcv import _ext
    from safetensors.torch import save_file
    assert _ext.__file__.endswith('.so'), f'{_ext.__file__} is not compiled'
    save_file(results(seeds, cases), path)


def deviations(expected: dict, actual: dict) -> dict[str, float]:
    """The largest deviation of each operator, relative where values exceed 1; infinite if shapes or indices differ."""
    largest: dict[str, float] = {}
    for key in expected.keys() | actual.keys():
        name = key.split('/')[0]
        ours, theirs = actual.get(key), expected.get(key)
        if ours is None or theirs is None or ours.shape != theirs.shape or ours.dtype != theirs.dtype:
            deviation = float('inf')
        elif ours.is_floating_point():
            same = (ours == theirs) | (ours.isnan() & theirs.isnan())
            deviation = ((ours - theirs).abs() / theirs.abs().clamp(min=1)).where(~same, 0)
            deviation = float(deviation.nan_to_num(float('inf')).max()) if deviation.numel() else 0.
        else:
            deviation = 0. if ours.equal(theirs) else float('inf')
        largest[name] = max(largest.get(name, 0.), deviation)
    return largest


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--folder', type=Path, default=Path(tempfile.gettempdir()) / 'mmcv_oracle',
                        help='where mmcv is built (default: %(default)s)')
    parser.add_argument('--compare', type=int, metavar='SEEDS', help='compare so many cases of each operator')
    parser.add_argument('--write', nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        write(Path(options.write[0]), int(options.write[1]), options.write[2])
        return 0
    import dwnet  # noqa: F401  the stand-in, in this process
    build(options.folder)
    seeds, found = options.compare or SEEDS, {}
    from safetensors.torch import load_file
    for cases, path in FILES.items():
        path = Path(tempfile.mkdtemp()) / path.name if options.compare else path
        subprocess.run([sys.executable, '-W', 'ignore', __file__, '--write', str(path), str(seeds), cases], check=True,
                       env=dict(os.environ, PYTHONPATH=str(options.folder)))
        found |= deviations(load_file(path), results(seeds, cases))
    for name, deviation in found.items():
        print(f'{name:26}{deviation:.1e}  in {seeds} cases')
    return int(max(found.values()) > TOLERANCE)


if __name__ == '__main__':
    sys.exit(main())
