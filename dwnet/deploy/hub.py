"""A trained model as a folder as on the Hugging Face Hub: weights, config and model card, and no code.

=====================  ==================================================================
``config.json``        the config as data (:mod:`dwnet.toolboxes.hub_config`)
``model.safetensors``  the weights
``README.md``          the model card
=====================  ==================================================================

:func:`dwnet.apis.init_model` reads the folder.
"""
import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from dwnet.apis import init_model
from dwnet.errors import UserError, not_among
from dwnet.toolboxes import toolbox_of
from dwnet.toolboxes.base import Toolbox
from dwnet.toolboxes.hub_config import CONFIG, WEIGHTS, as_data
from dwnet.weights.safety import with_digest

CARD = 'README.md'
# Where a figure comes from, by the words of the model zoo → what the card says
PROVENANCE = dict(
    reported='reported by the authors of the paper',
    converted="measured with the authors' weights, converted",
    retrained='measured with these weights, trained anew')


def save_pretrained(model: nn.Module, folder: str | Path, results: Iterable[Mapping[str, Any]] = ()) -> Path:
    """Writes a model of :func:`dwnet.apis.init_model` as a folder for the Hugging Face Hub, and reads it back.

    Args:
        model: The model; ``init_model`` has left its config there.
        folder: The folder; it is made if it is missing. An existing model card in it is kept.
        results: Figures for the card, each as in the ``metafile.yml`` of the configs: ``Dataset``, ``Provenance``
            (``'reported'``, ``'converted'`` or ``'retrained'``) and ``Metrics``, names and numbers.

    Returns:
        The folder.

    Raises:
        UserError: If the config holds what no shared config may hold, the folder cannot be written, or the model that
            is read back differs. The folder is as before then.

    Example:
        >>> import tempfile
        >>> from dwnet.apis import init_model
        >>> from dwnet.deploy.hub import save_pretrained
        >>> folder = save_pretrained(init_model('configs/classification/dwnet-nano_digits.py'), tempfile.mkdtemp())
        >>> type(init_model(folder)).__name__
        'ImageClassifier'
    """
    model = getattr(model, '_orig_mod', model)  # torch.compile wraps it
    cfg: Any = getattr(model, 'cfg', None)
    if cfg is None:
        raise UserError('save_pretrained needs the config of the model: build the model by dwnet.apis.init_model')
    content = as_data(cfg, getattr(model, 'dataset_meta', None) or {})
    if getattr(getattr(model, 'backbone', None), 'deploy', False):
        content['model']['backbone']['deploy'] = True  # switch_to_deploy() was called after the build
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    card = model_card(model, toolbox_of(cfg), results)
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix='.unfinished-', dir=folder) as unfinished:
            new = Path(unfinished)
            (new / CONFIG).write_text(json.dumps(content, indent=2, ensure_ascii=False) + '\n', encoding='utf-8')
            (new / WEIGHTS).write_bytes(with_digest(safetensors.torch.save(weights)))
            (new / CARD).write_text(card, encoding='utf-8')
            _compare(init_model(new).state_dict(), weights)
            for name in (CONFIG, WEIGHTS, *[CARD] * (not (folder / CARD).exists())):
                (new / name).replace(folder / name)
    except OSError as error:
        raise UserError(f'{folder} cannot be written: {error.strerror}') from error
    return folder


def _compare(read: Mapping[str, torch.Tensor], written: Mapping[str, torch.Tensor]) -> None:
    if different := [name for name in written if not torch.equal(read[name], written[name])]:
        raise UserError(f'the folder reads back other weights than the model has: {different[:5]}; nothing was written')


def model_card(model: nn.Module, toolbox: Toolbox, results: Iterable[Mapping[str, Any]]) -> str:
    """The model card, Markdown with the Hub's metadata in front.

    Raises:
        UserError: If a result lacks its data, its figures, or where they come from.
    """
    metadata = dict(library_name='dwnet', pipeline_tag=toolbox.pipeline_tag, tags=f'[dwnet, {toolbox.name}]')
    header = '\n'.join(f'{key}: {value}' for key, value in metadata.items() if value)
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    rows = [f'| {result["Dataset"]} | {metric} | {value:g} | {PROVENANCE[result["Provenance"]]} |'
            for result in map(_checked, results) for metric, value in result['Metrics'].items()]
    figures = '\n'.join(['| data | metric | value | where it comes from |', '| --- | --- | ---: | --- |', *rows])
    return f"""---
{header}
---

# {type(model).__name__} with a DWNet backbone

{parameters:.1f} M parameters. The config is data and the weights are safetensors; the folder holds no code.
`pip install 'dwnet[{toolbox.extra}]'`, and after a download:

```python
from dwnet.apis import inferencer, init_model

model = init_model('FOLDER')  # of {toolbox.distribution}
predict = inferencer('FOLDER')
```

## Figures

{figures if rows else 'None are given.'}

## Source

"Demystifying Local Vision Transformer", Han et al., ICLR 2022, [arXiv 2106.04263](https://arxiv.org/abs/2106.04263).
"""


def _checked(result: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(result, Mapping):
        raise UserError(f'a result must be a mapping with Dataset, Provenance and Metrics, got {result!r}')
    if missing := {'Dataset', 'Provenance', 'Metrics'} - set(result):
        raise UserError(f'a result lacks {", ".join(sorted(missing))}: {dict(result)}')
    if result['Provenance'] not in [*PROVENANCE]:  # also for what has no hash
        raise UserError(not_among('Provenance', result['Provenance'], PROVENANCE))
    metrics = result['Metrics']
    if not isinstance(metrics, Mapping) or not all(isinstance(value, (int, float)) for value in metrics.values()):
        raise UserError(f'Metrics must be names and numbers, got {metrics!r}')
    return result
