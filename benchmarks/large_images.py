"""Small objects in large photographs: AP of a detector of digits with and without ``--slice``.

    python benchmarks/large_images.py work_dirs/demo/detection/epoch_3.pth

Draws photographs of 2,000×3,000 pixels, on each 60 digits of 28 pixels that the detector was not trained on, and tests
the checkpoint on the whole photographs, in the size of the training and in their own, and in tiles.
"""
import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from sklearn.datasets import load_digits, load_sample_images
from sklearn.model_selection import train_test_split

from dwnet.demo.digits import CLASSES, Glyph, background, draw_glyph, put_glyph, to_image

CONFIG = 'configs/detection/cascade-mask-rcnn_dwnet-nano_fpn_digits.py'
HEIGHT, WIDTH, SQUARE, SIZE, DIGITS = 2000, 3000, 250, 28, 60
# 60 digits in one photograph are more than the config lets through
MANY = ['model.test_cfg.rpn.nms_pre=2000', 'model.test_cfg.rpn.max_per_img=1000', 'model.test_cfg.rcnn.max_per_img=300']
WAYS = {
    'whole, resized to 128 pixels': [],
    'whole, resized to 1200×800 pixels': ['test_dataloader.dataset.pipeline.1.scale=(1200,800)', *MANY],
    'whole, 3000×2000 pixels': ['test_dataloader.dataset.pipeline.1.scale=(3000,2000)', *MANY],
    'tiles of 128 pixels': ['--slice', '128'],
    'tiles of 256 pixels': ['--slice', '256', 'test_dataloader.dataset.pipeline.1.scale=(256,256)', *MANY],
}


def draw(rng: np.random.Generator) -> tuple[Image.Image, list[tuple[Glyph, np.ndarray]]]:
    """A photograph of squares of other photographs, and its digits with the pixels of each, which do not overlap."""
    data = load_digits()
    indices = train_test_split(np.arange(len(data.target)), test_size=.25, stratify=data.target, random_state=0)[1]
    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    image = np.concatenate([np.concatenate([background(photos, SQUARE, rng) for _ in range(WIDTH // SQUARE)], 1)
                            for _ in range(HEIGHT // SQUARE)])
    placed, taken = [], np.zeros((HEIGHT, WIDTH), bool)
    while len(placed) < DIGITS:
        index = rng.choice(indices)
        glyph = draw_glyph(data.images[index], int(data.target[index]), int(index), SIZE, rng.uniform(-15, 15))
        height, width = glyph.opacity.shape
        top, left = int(rng.integers(HEIGHT - height)), int(rng.integers(WIDTH - width))
        if not taken[top:top + height, left:left + width].any():
            placed.append((glyph, put_glyph(image, glyph, top, left, rng)))
            taken[top:top + height, left:left + width] = True
    return to_image(image), placed


def write(folder: Path, number: int) -> None:
    """Writes ``number`` photographs and their COCO file."""
    rng, coco = np.random.default_rng(1), dict(images=[], annotations=[], categories=[
        dict(id=label + 1, name=name) for label, name in enumerate(CLASSES)])
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(number):
        image, placed = draw(rng)
        image.save(folder / f'{i}.jpg', quality=95)
        coco['images'].append(dict(id=i, file_name=f'{i}.jpg', width=WIDTH, height=HEIGHT))
        for glyph, covered in placed:
            rle = coco_mask.encode(np.asfortranarray(covered.astype(np.uint8)))
            coco['annotations'].append(dict(
                id=len(coco['annotations']) + 1, image_id=i, category_id=glyph.label + 1, iscrowd=0,
                area=int(covered.sum()), bbox=coco_mask.toBbox(rle).tolist(),
                segmentation=dict(size=rle['size'], counts=rle['counts'].decode())))
    (folder / 'truth.json').write_text(json.dumps(coco))


def test(checkpoint: Path, folder: Path, way: list[str]) -> str:
    """Box and mask AP of a checkpoint, in columns of a table."""
    data, slicing = 'test_dataloader.dataset.', way[:2] if way[:1] == ['--slice'] else []
    done = subprocess.run(
        [sys.executable, 'tools/test.py', CONFIG, checkpoint, '--work-dir', folder / 'logs', *slicing, '--cfg-options',
         f'{data}data_root={folder}', f'{data}ann_file=truth.json', f'{data}data_prefix.img=',
         f'test_evaluator.ann_file={folder}/truth.json', 'test_dataloader.batch_size=1', *way[len(slicing):]],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        sys.exit(done.stdout)
    scores = json.loads((folder / 'logs/scores.json').read_text())  # none if nothing was detected
    return ' | '.join(f"{scores.get(f'coco/{kind}_mAP', 0):.3f}" for kind in ('bbox', 'segm'))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint', type=Path, help=f'of {CONFIG}')
    parser.add_argument('--images', type=int, default=8, help='photographs (default: 8)')
    parser.add_argument('--folder', type=Path, default=Path('work_dirs/large_images'), help='where they are drawn')
    args = parser.parse_args()
    folder = args.folder.resolve()
    write(folder, args.images)
    print('| the detector sees | box AP | mask AP |\n| --- | ---: | ---: |')
    for name, way in WAYS.items():
        print(f'| {name} | {test(args.checkpoint, folder, way)} |', flush=True)


if __name__ == '__main__':
    main()
