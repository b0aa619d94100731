"""A folder that Hugging Face Spaces runs as it is: weights, config as data, examples, and three lines of code."""
import contextlib
import copy
import io
import json
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS
from torch import nn

from dwnet.apis import inferencer
from dwnet.deploy.hub import CARD, model_card, save_pretrained
from dwnet.toolboxes import enter_scope, toolbox_of

SHOWN = ('.jpg', '.jpeg', '.png', '.webp', '.gif')  # what browsers show
EXAMPLES = 'examples'
APP = '''\
"""Serves the model of this folder: python app.py"""
import os

from dwnet.deploy.serve.space import serve_folder

host = '0.0.0.0' if 'SPACE_ID' in os.environ else '127.0.0.1'  # a Space is reached from outside
serve_folder(os.path.dirname(os.path.abspath(__file__)), {title!r}, host)
'''


def write_space(model: nn.Module, folder: str | Path, title: str, examples: Sequence[Path] = ()) -> Path:
    """Writes a model of :func:`dwnet.apis.init_model` as a folder for Hugging Face Spaces.

    Args:
        model: The model.
        folder: The folder; it is made if it is missing. An existing README.md in it is kept.
        title: The name of the model.
        examples: Images for the page, which are copied.

    Raises:
        UserError: As :func:`dwnet.deploy.hub.save_pretrained` does.
    """
    folder, toolbox = Path(folder), toolbox_of(model.cfg)
    is_new = not (folder / CARD).exists()
    save_pretrained(model, folder)
    if is_new:
        settings = dict(title=title, sdk='gradio', sdk_version=version('gradio'), app_file='app.py')
        header = ''.join(f'{key}: {json.dumps(value)}\n' for key, value in settings.items())
        (folder / CARD).write_text(model_card(model, toolbox, ()).replace('---\n', f'---\n{header}', 1),
                                   encoding='utf-8')
    (folder / 'app.py').write_text(APP.format(title=title), encoding='utf-8')
    (folder / 'requirements.txt').write_text(f'dwnet[{toolbox.extra},serve]\n')
    for file in examples:
        (folder / EXAMPLES).mkdir(exist_ok=True)
        shutil.copy(file, folder / EXAMPLES)
    return folder


def serve_folder(folder: str | Path, title: str, host: str = '127.0.0.1', port: int = 7860) -> None:
    """Serves the model of a folder of :func:`write_space`, with the folder's examples."""
    from .app import serve
    examples = sorted(Path(folder, EXAMPLES).glob('*'))
    serve(inferencer(folder), title, host, port, examples=examples)


def find_examples(cfg: Config, number: int = 6) -> list[Path]:
    """Test images of a config's data, evenly spread; none if there is no data or browsers do not show its form."""
    dataset = (cfg.get('test_dataloader') or {}).get('dataset')
    if not dataset:
        return []
    enter_scope(cfg)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
            data = DATASETS.build(copy.deepcopy(dataset))
            found = [Path(data.get_data_info(int(index))['img_path'])
                     for index in np.linspace(0, len(data) - 1, min(number, len(data))).round()]
    except Exception:  # the data set may be missing or of any kind, and the page is complete without examples
        return []
    return [file for file in dict.fromkeys(found) if file.suffix.lower() in SHOWN and file.is_file()]
