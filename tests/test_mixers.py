"""The comparison of token mixers: its bodies, its matrices, and one run from the data to the table."""
import argparse
import json
import struct
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, run_python
from mmengine.config import Config
from mmpretrain.models import SwinTransformer

sys.path.insert(0, str(ROOT))
from benchmarks.mixers import draw  # noqa: E402
from benchmarks.mixers.bodies import KernelBody, SharedDepthwiseConv, WindowAttentionBody  # noqa: E402
from benchmarks.mixers.run import ABLATIONS, FILES, MIXERS, SIZES, prepare_data  # noqa: E402
from dwnet import DWNet  # noqa: E402
from dwnet.errors import UserError  # noqa: E402
from dwnet.models.mixers import StaticDepthwiseConv  # noqa: E402

NANO = dict(arch=SIZES['nano'], in_channels=1, out_indices=3)


def test_window_attention_is_that_of_swin():
    """One block of the body against mmpretrain's own, on the same weights; a map of two by two windows, shifted."""
    swin = SwinTransformer(dict(embed_dims=32, depths=[2, 2, 2, 2], num_heads=[1, 2, 4, 8]), window_size=7)
    swin.eval()  # which returns nothing
    body = WindowAttentionBody(56, arch=dict(embed_dims=32, depths=(2, 2, 2, 2))).eval()
    for number in range(2):
        theirs, ours = swin.stages[0].blocks[number], body.stages[0].blocks[number]
        torch.nn.init.normal_(theirs.attn.w_msa.relative_position_bias_table)
        ours.mixer.attention.load_state_dict(theirs.attn.state_dict())
        ours.norm_mixer.load_state_dict(theirs.norm1.state_dict())
        ours.norm_mlp.load_state_dict(theirs.norm2.state_dict())
        ours.mlp.fc1.load_state_dict(theirs.ffn.layers[0][0].state_dict())
        ours.mlp.fc2.load_state_dict(theirs.ffn.layers[1].state_dict())
        x = torch.randn(2, 32, 14, 14)
        expected = theirs(x.flatten(2).transpose(1, 2), (14, 14)).transpose(1, 2).view_as(x)
        torch.testing.assert_close(ours(x), expected, atol=1e-5, rtol=1e-5)
        assert ours.mixer.attention.shift_size == 3 * number
    assert [stage.blocks[1].mixer.attention.shift_size for stage in body.stages] == [3, 0, 0, 0]


@pytest.mark.parametrize('name', [*MIXERS, *ABLATIONS])
def test_every_body_learns_with_all_its_weights(name):
    kinds = dict(WindowAttentionBody=WindowAttentionBody, KernelBody=KernelBody)
    variant = dict(MIXERS | ABLATIONS)[name].copy()
    model = kinds.get(variant.pop('type', None), DWNet)(**NANO, **variant)
    y, = model(torch.randn(4, 1, 56, 56))
    assert y.shape == (4, 256, 2, 2)
    (y * torch.randn_like(y)).sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize('share, kernels', [(1, 32), (8, 4), (0, 1)])
def test_shared_kernels(share, kernels):
    shared, plain = SharedDepthwiseConv(32, 7, share), StaticDepthwiseConv(32, dict(type='BN'))
    assert shared.weight.shape == (kernels, 1, 7, 7)
    with torch.no_grad():
        plain.weight.copy_(torch.stack([shared.weight[c * kernels // 32] for c in range(32)]))
        plain.bias.copy_(shared.bias)
    x = torch.randn(2, 32, 9, 11)
    torch.testing.assert_close(shared(x), plain(x))
    body = KernelBody(share=share, **NANO).eval()
    image = torch.randn(2, 1, 56, 56)
    before = body(image)[0]
    body.switch_to_deploy()
    torch.testing.assert_close(body(image)[0], before, atol=1e-5, rtol=1e-4)


def offsets() -> np.ndarray:
    """The larger of the distances in rows and columns between two positions, (to, from)."""
    y, x = np.divmod(np.arange(draw.POSITIONS), draw.WIDTH)
    return np.maximum(np.abs(y[:, None] - y), np.abs(x[:, None] - x))


@pytest.mark.parametrize('name', draw.MIXERS)
def test_matrices_show_what_the_page_says(name):
    """Sparse connectivity, weights shared between positions, weights that depend on the image."""
    one, last, other = draw.matrices(name).values()
    y, x = np.divmod(np.arange(draw.POSITIONS), draw.WIDTH)
    same_window = (x[:, None] // 7) == (x // 7)
    assert np.array_equal(one != 0, offsets() <= 3 if 'convolution' in name else same_window)
    dynamic = 'dynamic' in name or name == 'local attention'
    assert np.allclose(one, other) != dynamic
    assert not np.allclose(one, last), 'channels at both ends share no weights'
    # from (3, 4) to (3, 3), and from (3, 9) to (3, 8): the same offset, and the same place in both windows' halves
    start, step = 3 * draw.WIDTH, 7
    shared = np.isclose(one[start + 1, start + 3], one[start + 1 + step, start + 3 + step], atol=1e-6)
    assert shared == (name in ('depth-wise convolution', 'dynamic\ndepth-wise convolution', 'local MLP'))
    if name == 'local attention':
        assert np.allclose(one.sum(1), 1, atol=1e-5) and (one >= 0).all()


@pytest.fixture(scope='module')
def small_fashion(tmp_path_factory):
    """scikit-learn's handwritten digits in the files of Fashion-MNIST, which no package of PyPI brings."""
    from sklearn.datasets import load_digits
    data = load_digits()
    images = np.pad(data.images.repeat(3, 1).repeat(3, 2) * 15, ((0, 0), (2, 2), (2, 2))).astype(np.uint8)
    folder = tmp_path_factory.mktemp('fashion')
    for split, part in (('train', slice(0, 1280)), ('t10k', slice(1280, None))):
        kept, labels = images[part], data.target[part].astype(np.uint8)
        (folder / f'{split}-images-idx3-ubyte').write_bytes(
            struct.pack('>4i', 2051, len(kept), 28, 28) + kept.tobytes())
        (folder / f'{split}-labels-idx1-ubyte').write_bytes(struct.pack('>2i', 2049, len(labels)) + labels.tobytes())
    return folder


def test_missing_data_say_how_to_get_them(tmp_path):
    with pytest.raises(UserError, match='dataset-fashion-mnist'):
        prepare_data(tmp_path, tmp_path / 'data')
    (tmp_path / f'{FILES[0]}.gz').write_bytes(b'no gzip')
    with pytest.raises(UserError, match='cannot be unpacked'):
        prepare_data(tmp_path, tmp_path / 'data')


@pytest.mark.long
def test_run_from_data_to_table(small_fashion, tmp_path):
    command = ('benchmarks/mixers/run.py', '--quick', '--data', small_fashion, '--work-dir', tmp_path)
    run_python(*command)
    content = json.loads((tmp_path / 'results.json').read_text())
    results = content['results']
    assert list(results) == [*MIXERS, *ABLATIONS]
    for result in results.values():
        assert len(result['runs']) == 1 and len(result['runs'][0]['top1']) == 2
        assert result['macs'] > 1e6 and min(result['images_per_second'].values()) > 0
    table = (tmp_path / 'README.md').read_text()
    for name, result in results.items():
        assert f"| {name} | {result['parameters'] / 1e6:.2f} M |" in table
        assert f"{result['runs'][0]['top1'][-1]:.2f} |" in table
    smaller, usual, larger = (results[name]['parameters'] for name in ('static, 3×3', 'static', 'static, 9×9'))
    assert usual - smaller == 40 * (32 + 64 + 2 * 128 + 256) and larger > usual
    assert (tmp_path / 'curves.png').stat().st_size > 10_000 < (tmp_path / 'cost.png').stat().st_size

    kept = {file: file.stat().st_mtime for file in tmp_path.glob('*/result.json')}
    (tmp_path / 'dynamic-seed0/result.json').unlink()  # as if interrupted in its last moment
    run_python(*command)
    changed = [file.parent.name for file in kept if file.stat().st_mtime != kept[file]]
    assert changed == ['dynamic-seed0']
    again = json.loads((tmp_path / 'results.json').read_text())['results']
    assert {name: r['runs'][0]['top1'] for name, r in again.items()} == {
        name: r['runs'][0]['top1'] for name, r in results.items()}


@pytest.mark.long
def test_broken_mixer_shows(small_fashion, tmp_path):
    """Without its kernels the network is worse, trained without them and, much more, after it has relied on them."""
    from benchmarks.mixers.run import config_of
    from dwnet.engine import Runner

    args = argparse.Namespace(size='nano', epochs=6, images=None, data_root=small_fashion)
    top1 = {}
    for broken in (False, True):
        cfg: Config = config_of(MIXERS['static'], args)
        cfg.merge_from_dict(dict(work_dir=str(tmp_path / str(broken)), log_level='ERROR', randomness=dict(seed=0)))
        runner = Runner.from_cfg(cfg)
        if broken:
            runner.model.init_weights()
            runner.model.backbone.init_weights = runner.model.init_weights = lambda: None
            zero_kernels(runner.model)
            for module in kernels_of(runner.model):
                module.weight.requires_grad_(False)
        runner.train()
        top1[broken] = runner.val_loop.run()['accuracy/top1']
        if not broken:
            zero_kernels(runner.model)
            top1['zeroed'] = runner.val_loop.run()['accuracy/top1']
    assert top1[False] > 80 and top1[True] < top1[False] - 3 and top1['zeroed'] < 40, top1


def kernels_of(model):
    return [m for m in model.modules() if isinstance(m, StaticDepthwiseConv)]


def zero_kernels(model) -> None:
    assert len(kernels_of(model)) == 5
    with torch.no_grad():
        for module in kernels_of(model):
            module.weight.zero_()

