"""The comparison of token mixers: its bodies, its matrices, and one run from the data to the table."""
import argparse
import gzip
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, run_python
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from mmpretrain.models import SwinTransformer
from mmpretrain.registry import DATASETS

sys.path.insert(0, str(ROOT))
from benchmarks.mixers import draw  # noqa: E402
from benchmarks.mixers.bodies import SharedDepthwiseConv, SwinBlockBody  # noqa: E402
from benchmarks.mixers.report import write_report  # noqa: E402
from benchmarks.mixers.run import (  # noqa: E402
    ABLATIONS,
    BATCH_SIZE,
    FILES,
    MIXERS,
    SIZES,
    config_of,
    finish,
    prepare_data,
    start,
    steps_done,
)
from dwnet import DWNet  # noqa: E402
from dwnet.errors import UserError  # noqa: E402
from dwnet.inspect.flops import count  # noqa: E402
from dwnet.models.mixers import StaticDepthwiseConv  # noqa: E402

NANO = dict(arch=SIZES['nano'], in_channels=1, out_indices=3)


def test_window_attention_is_that_of_swin():
    """One block of the body against mmpretrain's own, on the same weights; a map of two by two windows, shifted."""
    swin = SwinTransformer(dict(embed_dims=32, depths=[2, 2, 2, 2], num_heads=[1, 2, 4, 8]), window_size=7)
    swin.eval()  # which returns nothing
    body = SwinBlockBody('attention', 56, arch=dict(embed_dims=32, depths=(2, 2, 2, 2))).eval()
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


def body_of(name: str, **options) -> DWNet:
    variant = dict((MIXERS | ABLATIONS)[name])
    if variant.pop('type', None) == 'SwinBlockBody':
        return SwinBlockBody(image_size=56, **NANO, **options, **variant)
    return DWNet(**NANO, **options, **variant)


@pytest.mark.parametrize('name', [*MIXERS, *ABLATIONS])
def test_gradients_reach_every_layer(name):
    model = body_of(name)
    y, = model(torch.randn(4, 1, 56, 56))
    assert y.shape == (4, 256, 2, 2)
    (y * torch.randn_like(y)).sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize('name', [*MIXERS, *ABLATIONS])
def test_folded_bodies_compute_the_same(name):
    model = body_of(name).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # as after a training
            torch.nn.init.normal_(module.running_mean, std=.2)
            for tensor in (module.running_var, module.weight):
                torch.nn.init.uniform_(tensor, .5, 2)
            torch.nn.init.normal_(module.bias, std=.2)
    image = torch.randn(2, 1, 56, 56)
    before, = model(image)
    model.switch_to_deploy()
    torch.testing.assert_close(model(image)[0], before, atol=1e-5 * before.abs().max().item(), rtol=1e-4)


@pytest.mark.parametrize('share, kernels', [(1, 32), (8, 4), (0, 1)])
def test_shared_kernels(share, kernels):
    shared, plain = SharedDepthwiseConv(32, share=share), StaticDepthwiseConv(32, dict(type='BN'))
    assert shared.weight.shape == (kernels, 1, 7, 7)
    with torch.no_grad():
        plain.weight.copy_(torch.stack([shared.weight[c * kernels // 32] for c in range(32)]))
        plain.bias.copy_(shared.bias)
    x = torch.randn(2, 32, 9, 11)
    torch.testing.assert_close(shared(x), plain(x))


def test_multiply_adds_are_those_of_the_formulas(small_fashion):
    """A position costs attention 4 C² and 2 C a position of its window, convolution in its block 2 C² and k² C."""
    macs = {name: sum(part.macs for part in count(config_of((MIXERS | ABLATIONS)[name], arguments(small_fashion)),
                                                  (56, 56)))
            for name in ('window attention', "static, in attention's block", 'static', 'static, 9×9')}
    blocks = [(32, 14), (64, 7), (128, 4), (128, 4), (256, 2)]  # C, and height and width of the map
    assert macs['window attention'] - macs["static, in attention's block"] == sum(
        size**2 * dim * (2 * dim + 2 * min(size, 7)**2 - 49) for dim, size in blocks)
    assert macs['static, 9×9'] - macs['static'] == sum(size**2 * dim * (81 - 49) for dim, size in blocks)


def test_attention_is_trained_as_swin_is(small_fashion):
    cfg = config_of(MIXERS['window attention'], arguments(small_fashion))
    model = MODELS.build(cfg.model)
    model.init_weights()
    tables = [p for name, p in model.named_parameters() if name.endswith('relative_position_bias_table')]
    assert len(tables) == 5 and all(.01 < table.std() < .03 for table in tables[:4])
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    assert [g['weight_decay'] for table in tables for g in groups if any(p is table for p in g['params'])] == [0] * 5


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
    broken = gzip.compress(bytes(range(256)))
    for content in (b'no gzip', broken[:-9], broken[:12] + b'!!' + broken[14:]):
        (tmp_path / f'{FILES[0]}.gz').write_bytes(content)
        with pytest.raises(UserError, match='cannot be unpacked'):
            prepare_data(tmp_path, tmp_path / 'data')


def test_other_data_of_the_same_size_replace_those_of_before(small_fashion, tmp_path):
    prepare_data(small_fashion, tmp_path / 'data')
    other = shutil.copytree(small_fashion, tmp_path / 'other')
    (other / FILES[0]).write_bytes((small_fashion / FILES[0]).read_bytes()[::-1])
    prepare_data(other, tmp_path / 'data')
    assert (tmp_path / 'data' / FILES[0]).read_bytes() == (other / FILES[0]).read_bytes()


def arguments(data_root, **others) -> argparse.Namespace:
    return argparse.Namespace(**dict(
        size='nano', image_size=56, epochs=4, images=None, jobs=1, bf16=False, data_root=data_root) | others)


@pytest.mark.parametrize('images', [None, 500])
def test_the_config_that_is_trained(small_fashion, images):
    cfg = config_of(MIXERS['dynamic'], arguments(small_fashion, size='half-tiny', image_size=84, images=images))
    assert cfg.model.backbone.token_mixer == 'dynamic' and cfg.train_cfg.max_epochs == 4
    assert cfg.train_dataloader.batch_size == BATCH_SIZE
    train, test = (DATASETS.build(loader.dataset) for loader in (cfg.train_dataloader, cfg.val_dataloader))
    assert (len(train), len(test)) == (images or 1280, 517)
    assert train[0]['inputs'].shape == test[0]['inputs'].shape == (1, 84, 84)


def test_a_folder_is_of_one_training(tmp_path, monkeypatch):
    """A moved folder can be resumed, is not taken for another training, and is not removed."""
    started = []
    monkeypatch.setattr(subprocess, 'Popen', lambda command, **_: started.append(command) or 'process')
    before, after = tmp_path / 'before', tmp_path / 'after'
    assert start(MIXERS['static'], 0, before / 'run', arguments(before)) == 'process'
    before.rename(after)
    start(MIXERS['static'], 0, after / 'run', arguments(after))
    assert len(started) == 2 and all('--resume' in command for command in started)
    for variant, seed, options in ((MIXERS['static'], 0, dict(epochs=5)), (MIXERS['static'], 1, {}),
                                   (MIXERS['static'], 0, dict(bf16=True)), (MIXERS['dynamic'], 0, {}),
                                   (MIXERS['static'], 0, dict(image_size=84))):
        with pytest.raises(UserError, match='run is of another config or other settings: remove it'):
            start(variant, seed, after / 'run', arguments(after, **options))
    assert (after / 'run/signature.json').is_file() and len(started) == 2
    assert steps_done(after / 'run', 10) == 0
    (after / 'run/result.json').write_text('{}')
    assert start(MIXERS['static'], 0, after / 'run', arguments(after)) is None
    assert steps_done(after / 'run', 10) == 10


def test_report_has_mean_and_spread(tmp_path, capsys):
    results = {name: dict(runs=[dict(top1=[50., top1 + i], seconds=60) for top1 in (90., 91., 92.)],
                          parameters=1_250_000 + i, macs=14_100_000, images_per_second=dict(inference=20, training=10))
               for i, name in enumerate(MIXERS | ABLATIONS)}
    settings = dict(size='nano', image_size=56, seeds=3, epochs=2, images=30_000, jobs=2, bf16=False, date='2000-01-01',
                    device='2 CPU threads', torch='2.11')
    write_report(tmp_path, settings, results, list(MIXERS))
    table = (tmp_path / 'README.md').read_text()
    assert '2 epochs of 30,000 images, 3 seeds' in table and '30 minutes together, 2 at a time' in table
    assert '| static | 1.25 M | 14.1 M | 20 | 10 | 91.00 ± 1.00 |' in table
    assert '| window attention | 1.25 M | 14.1 M | 20 | 10 | 95.00 ± 1.00 |' in table
    assert json.loads((tmp_path / 'results.json').read_text()) == dict(settings=settings, results=results)
    assert min((tmp_path / name).stat().st_size for name in ('curves.png', 'cost.png')) > 10_000
    assert '95.00 ± 1.00' in capsys.readouterr().out


def test_the_page_says_what_was_measured(tmp_path):
    folder = ROOT / 'benchmarks/mixers/cpu'
    record = json.loads((folder / 'results.json').read_text())
    write_report(tmp_path, **record, mixers=list(MIXERS))
    table = [line for line in (tmp_path / 'README.md').read_text().splitlines() if line.startswith('|')]
    assert len(table) == 2 + len(MIXERS | ABLATIONS)
    assert (folder / 'README.md').read_text() == (tmp_path / 'README.md').read_text()
    page = (ROOT / 'docs/mixers.md').read_text()
    assert '\n'.join(table) in page
    for longer in json.loads((folder / 'static-longer.json').read_text())['trainings']:
        side, epochs, top1 = longer['image_size'], longer['epochs'], longer['top1']
        parts = count(config_of(MIXERS['static'], arguments('', size=longer['size'], image_size=side)), (side, side))
        cost = f'{sum(p.parameters for p in parts) / 1e6:.2f} M | {sum(p.macs for p in parts) / 1e6:.1f} M'
        cores = {1: 'one core', 2: 'two cores'}[longer['threads']]
        assert len(top1) == epochs
        row = (f"| {longer['size']}, {side}×{side} | {cost} | {epochs} | {longer['seconds'] / 60:.0f} on {cores} | "
               f"{top1[-1]:.2f} | {longer['top1_with_all_kernels_zeroed']:.2f} |")
        assert row in page.replace('**', '')


def test_a_training_that_fails_says_where_to_look(tmp_path):
    with pytest.raises(UserError, match='exit code 1, see .*output.txt; the same command goes on'):
        finish('static', 0, tmp_path, code=1, seconds=10., epochs=2)
    assert json.loads((tmp_path / 'seconds.json').read_text()) == 10
    assert not (tmp_path / 'result.json').exists()


def trainings_in(folder) -> int:
    """Processes that train below ``folder``."""
    lines = [file.read_bytes() for file in Path('/proc').glob('[0-9]*/cmdline') if os.access(file, os.R_OK)]
    return sum(b'tools/train.py' in line and bytes(folder) in line for line in lines)


def wait_for(condition, seconds=120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, 'waited in vain'
        time.sleep(.2)


@pytest.mark.long
def test_run_from_data_to_table(small_fashion, tmp_path):
    """Killed in the middle, gone on, and gone on once more."""
    command = ('benchmarks/mixers/run.py', '--quick', '--jobs', 2, '--data', small_fashion, '--work-dir', tmp_path)
    for number, death in enumerate((signal.SIGINT, signal.SIGKILL), 1):
        process = subprocess.Popen([sys.executable, *map(str, command)], cwd=ROOT, start_new_session=True)
        wait_for(lambda: len(list(tmp_path.glob('*/result.json'))) >= number and trainings_in(tmp_path))  # noqa: B023
        os.killpg(process.pid, death)  # as Ctrl-C does it: all of the group
        assert process.wait() == (130 if death == signal.SIGINT else -death)
        wait_for(lambda: trainings_in(tmp_path) == 0)  # by themselves
    kept = {file: file.stat().st_mtime for file in tmp_path.glob('*/result.json')}

    run_python(*command)
    assert {file: file.stat().st_mtime for file in kept} == kept
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
    from dwnet.engine import Runner

    args = arguments(small_fashion, epochs=6)
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
