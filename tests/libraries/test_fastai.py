"""DWNet in fastai's vision_learner, on a few embedded digits."""
import numpy as np
import pytest
import torch
from PIL import Image

import dwnet  # noqa: F401  registers the timm models

vision = pytest.importorskip('fastai.vision.all', reason="needs pip install 'dwnet[libraries]'")


def test_vision_learner(tmp_path):
    """An epoch with the body frozen and one with all layers; predictions are probabilities."""
    for i in range(12):
        folder = tmp_path / ('dark' if i % 2 else 'bright')
        folder.mkdir(exist_ok=True)
        pixels = np.random.RandomState(i).randint(0, 256, (64, 64, 3)) // 4 + 190 * (i % 2 == 0)
        Image.fromarray(pixels.astype('uint8')).save(folder / f'{i}.png')
    data = vision.ImageDataLoaders.from_folder(tmp_path, valid_pct=.34, seed=0, bs=4, num_workers=0)
    learner = vision.vision_learner(data, 'dwnet_tiny', pretrained=False, metrics=vision.accuracy)
    stem = next(p for n, p in learner.model.named_parameters() if n.endswith('patch_embed.proj.weight'))
    before = stem.detach().clone()
    with learner.no_bar(), learner.no_logging():
        learner.freeze()
        learner.fit(1, 1e-3)
        assert torch.equal(stem, before), 'the body is frozen'
        learner.unfreeze()
        learner.fit(1, 1e-3)
        assert not torch.equal(stem, before)
        probabilities, truth = learner.get_preds()
    assert probabilities.shape == (len(truth), 2) and torch.allclose(probabilities.sum(1), torch.ones(len(truth)))
