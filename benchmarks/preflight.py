"""How long the preflight looks at the files of a data set: at first, and with what it remembers.

    python benchmarks/preflight.py --images 10000
"""
import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from dwnet.data.examiner import Examiner
from dwnet.data.loading import LoadWholeImage


def write_images(folder: Path, number: int, side: int) -> list[str]:
    """JPEG files of smooth random colours."""
    colours = np.random.default_rng(0).integers(0, 256, (64, 12, 12, 3), np.uint8)
    images = [Image.fromarray(colour).resize((side, side)) for colour in colours]
    files = [folder / f'{i % 100:02}/{i:06}.jpg' for i in range(number)]
    for i, file in enumerate(files):
        file.parent.mkdir(exist_ok=True)
        images[i % len(images)].save(file, quality=95)
    return [str(file) for file in files]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', type=int, default=10_000, help='(default: 10000)')
    parser.add_argument('--side', type=int, default=160, help='pixels (default: 160)')
    args = parser.parse_args()
    loader = LoadWholeImage()
    with tempfile.TemporaryDirectory() as folder:
        files = write_images(Path(folder), args.images, args.side)
        size = np.mean([Path(file).stat().st_size for file in files])
        print(f'{len(files)} images of {size / 1000:.0f} kB')
        for run in ('at first', 'again'):
            seconds, of_cpu = time.perf_counter(), time.process_time()
            examiner = Examiner(Path(folder, 'memory.npy'))
            faults = examiner.faults(files, 'images', lambda file: loader.transform(dict(img_path=file)), files[::100])
            examiner.save()
            assert not faults
            print(f'{run}: {time.perf_counter() - seconds:.2f} s, of the CPU {time.process_time() - of_cpu:.2f} s')


if __name__ == '__main__':
    main()
