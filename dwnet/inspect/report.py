"""The report of a training: an HTML file with scores, curves, and predictions beside the ground truth."""
import contextlib
import copy
import io
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.ticker import MaxNLocator
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from PIL import Image

from dwnet.apis import init_model
from dwnet.engine import Runner
from dwnet.engine.hooks.class_scores import class_scores_in
from dwnet.errors import one_line
from dwnet.inspect.class_table import HINT, class_table
from dwnet.inspect.curves import Curve, read_run
from dwnet.inspect.figure import COLOURS, new_figure
from dwnet.inspect.page import write_page
from dwnet.inspect.samples import PictureReader, draw, make_visualizer
from dwnet.toolboxes import SCORE_NAMES, enter_scope, main_score, toolbox_of
from dwnet.weights.loading import read_checkpoint


def plot_curves(panels: dict[str, tuple[str, dict[str, Curve]]]) -> Image.Image:
    """Draws panels side by side.

    Args:
        panels: Title → label of the x axis, and the curves by their names; a curve without a name is not in the legend.
    """
    figure = new_figure(11, 3)
    for axes, (title, (label, curves)) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items()):
        for i, (name, curve) in enumerate(curves.items(), start=1):
            axes.plot(list(curve), list(curve.values()), '--' if i > 1 else '-', color=COLOURS[i], label=name or None,
                      marker='o' if len(curve) < 20 else None)
        axes.set(title=title, xlabel=label, ylim=(0, 1.05 * axes.get_ylim()[1]))  # room for the highest marker
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[['top', 'right']].set_visible(False)
        if any(curves):
            axes.legend()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])


def draw_predictions(cfg: Config, checkpoint: Path, number: int, size: int = 256) -> Image.Image:
    """Test images with the ground truth above and the prediction below, by the toolbox's visualizer.

    Args:
        cfg: A config.
        checkpoint: Weights of the config's model.
        number: Number of images, spread evenly over the test set.
        size: Width and height of each picture, pixels.
    """
    model = init_model(cfg, checkpoint, 'cuda' if torch.cuda.is_available() else 'cpu')
    enter_scope(cfg)
    loader = dict(cfg.test_dataloader, batch_size=1, num_workers=0, persistent_workers=False)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        dataset = Runner.build_dataloader(loader, seed=0).dataset
    visualizer, read = make_visualizer(cfg, dataset.metainfo, 'report'), PictureReader(cfg)
    sheet = Image.new('RGB', (number * size, 2 * size), 'white')
    # spread evenly: folders are sorted by class, so the first images would all be zeros
    for column, index in enumerate(np.linspace(0, len(dataset) - 1, number).round().astype(int)):
        data = dataset[int(index)]
        batch = dict(inputs=[data['inputs']], data_samples=[data['data_samples']])
        with torch.no_grad():
            sample = model.test_step(batch)[0].cpu()
        image = read(sample.img_path)
        for row, truth in enumerate((True, False)):
            picture = Image.fromarray(draw(visualizer, image, sample, truth, threshold=.5, side=size))
            left, top = (size - picture.width) // 2, (size - picture.height) // 2
            sheet.paste(picture, (column * size + left, row * size + top))
    return sheet


def report_training(runner: Runner) -> None:
    """Prints how to test the trained model, and writes ``report.html`` into the work dir."""
    if not is_main_process():
        return
    hook = next(hook for hook in runner.hooks if isinstance(hook, CheckpointHook))
    # save_best has one metric or several
    best = [getattr(hook, 'best_ckpt_path', None), *getattr(hook, 'best_ckpt_path_dict', {}).values()]
    checkpoint = next(filter(None, best), hook.last_ckpt)
    print(f'test with: {_test_command()} {shlex.join(map(str, (runner.dumped_config, checkpoint)))}')
    try:
        less = getattr(hook, 'rules', None) and hook.rules[0] == 'less'
        print(f'report: {_write_training_report(runner, Path(checkpoint), min if less else max)}')
    except Exception as error:  # a missing picture is no failure of the training
        runner.logger.error(f'no report could be drawn: {one_line(error)}')


def _test_command() -> str:
    """The test command in the form of the training's command: ``python -m dwnet``, or a tool of a clone."""
    if Path(sys.argv[0]).name != 'train.py':
        return 'python -m dwnet test'
    return f"python {shlex.quote(str(Path(sys.argv[0]).with_name('test.py')))}"


def _write_training_report(runner: Runner, checkpoint: Path, best_of: Callable) -> Path:
    work_dir, metric = Path(runner.work_dir), main_score(runner.cfg)
    run = read_run(work_dir)
    scores = run.validation.get(metric, {})
    name, best = SCORE_NAMES.get(metric, metric), best_of(scores.values(), default=float('nan'))
    print(f'best {name}: {best:g}')
    cfg = copy.deepcopy(runner.cfg)
    cfg.new_heads = False  # the checkpoint has this training's heads
    picture = draw_predictions(cfg, checkpoint, number=6)
    picture.save(work_dir / 'predictions.png')
    by_epoch = 'max_epochs' in runner.cfg.train_cfg
    length = f'{runner.epoch} epochs' if by_epoch else f'{runner.iter} iterations'
    losses = {'training': run.training.get('loss', {}), 'validation': run.validation_loss}
    curves = plot_curves({
        'loss': ('iteration', {part: curve for part, curve in losses.items() if curve}),
        f'validation: {name}': ('epoch' if by_epoch else 'iteration', {'': scores})})
    curves.save(work_dir / 'curves.png')
    sections: list[tuple] = [
        ('Training', '', curves),
        ('Predictions', 'Above the truth, below the prediction, on images that were not trained with.', picture)]
    of_classes = class_scores_in(read_checkpoint(str(checkpoint)))
    if classes := class_table(toolbox_of(runner.cfg), _parts(runner), of_classes):
        sections.append(('Classes', HINT, classes))
    return write_page(
        work_dir / 'report.html', runner.dumped_config.stem,
        f'{length}; the best validation: {name} {best:g}, of {checkpoint.name}.', sections)


def _parts(runner: Runner) -> dict[str, Any]:
    """'train', 'val', and 'test' if the test set is another, → their data sets."""
    parts = dict(train=runner.train_dataloader.dataset, val=runner.val_dataloader.dataset)
    if runner.cfg.test_dataloader.dataset != runner.cfg.val_dataloader.dataset:
        parts['test'] = runner.build_dataloader(runner.cfg.test_dataloader).dataset
    return parts
