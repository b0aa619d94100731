#!/usr/bin/env python
"""Measures throughput and memory against Swin and ConvNeXt, all in one run.

What is compared takes turns, so a machine that slows down slows all of it; quoted are medians over the rounds, of
the throughput and of its ratio within a round. In inference, and of operators, the outputs are checked before
anything is timed. timm's Swin computes its attention by PyTorch's fused operator, which is faster and which timm
leaves off by default.
"""
import argparse
import contextlib
import itertools
import json
import math
import os
import re
import runpy
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import timm
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import dwnet  # noqa: F401  registers the timm models
from dwnet.commands._arguments import check_writable
from dwnet.config_names import config_path
from dwnet.engine.exit_codes import run_command
from dwnet.errors import UserError
from dwnet.models import DWNet
from dwnet.ops import choose_backend, depthwise_conv2d, dynamic_depthwise_conv2d, inhomogeneous_depthwise_conv2d
from dwnet.ops import reference as plain
from dwnet.toolboxes import toolbox_of

BASELINES = {'swin_tiny': 'swin_tiny_patch4_window7_224', 'swin_base': 'swin_base_patch4_window7_224',
             'convnext_tiny': 'convnext_tiny', 'convnext_base': 'convnext_base'}
TINY = ['swin_tiny', 'convnext_tiny', 'official_tiny', 'dwnet_tiny', 'dynamic_dwnet_tiny', 'i_dynamic_dwnet_tiny']
BASE = ['swin_base', 'convnext_base', 'dwnet_base', 'dynamic_dwnet_base', 'i_dynamic_dwnet_base']
# Channels and size of the map of each stage of a tiny model at 224×224
STAGES = [(96, 56), (192, 28), (384, 14), (768, 7)]
# Backbones in the published detector and segmentor, and the size of their training images
DENSE = {
    'swin_tiny': dict(type='SwinTransformer', embed_dims=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24),
                      window_size=7, drop_path_rate=.2),
    'dwnet_tiny': {}, 'dynamic_dwnet_tiny': dict(token_mixer='dynamic'),
    'i_dynamic_dwnet_tiny': dict(token_mixer='inhomogeneous')}
TASKS = {'detection': ('dwnet::detection/cascade-mask-rcnn_dwnet-tiny_fpn_3x_coco.py', (800, 1280)),
         'segmentation': ('dwnet::segmentation/upernet_dwnet-tiny_160k_ade20k-512x512.py', (512, 512))}
# What `--record` measures, by device, the most telling first: name → options
RECORDS = {
    'cpu': {
        'deploy': '--mode deploy --compile --threads 2 --rounds 5 --dtype float32 bfloat16 int8 '
                  '--models swin_tiny convnext_tiny dwnet_tiny dynamic_dwnet_tiny',
        'kernels': '--mode kernels --threads 2',
        'inference': f"--deploy --compile --threads 2 --rounds 11 --models {' '.join(TINY)}",
        'inference-bf16': '--deploy --threads 2 --rounds 11 --dtype float32 bfloat16 --models dwnet_tiny swin_tiny',
        'train': f"--mode train --threads 2 --rounds 7 --models {' '.join(TINY)}",
        'layers': '--mode layers --threads 2',
        'sizes': '--mode sizes --deploy --threads 2 --rounds 3 --batch 1 --models swin_tiny convnext_tiny dwnet_tiny',
        'pipeline': '--mode pipeline --threads 2'},
    'cuda': {
        'kernels': '--mode kernels',
        'layers': '--mode layers --dtype bfloat16 --batch 128',
        'inference': f"--deploy --compile --dtype bfloat16 --batch 128 --models {' '.join(TINY)}",
        'train': f"--mode train --dtype bfloat16 --batch 128 --models {' '.join(TINY)}",
        'inference-base': f"--deploy --dtype bfloat16 --batch 128 --models {' '.join(BASE)}",
        'sizes': '--mode sizes --deploy --dtype bfloat16 --batch 8',
        'detection': '--mode detection --dtype bfloat16 --batch 2',
        'segmentation': '--mode segmentation --dtype bfloat16 --batch 2',
        'pipeline': '--mode pipeline'}}


FUNCTIONS: dict[str, Callable] = dict(static=depthwise_conv2d, dynamic=dynamic_depthwise_conv2d,
                                      inhomogeneous=inhomogeneous_depthwise_conv2d)


@dataclass(frozen=True)
class Variant:
    """A line of a table."""
    model: str
    dtype: str = 'float32'
    compiled: bool = False

    def __str__(self) -> str:
        return ' '.join([self.model, *[self.dtype] * (self.dtype != 'float32'), *['compiled'] * self.compiled])


# ---------------------------------------------------------------------------------------------------
# Models
# ---------------------------------------------------------------------------------------------------
class OfficialStyle(nn.Module):
    """A static DWNet as the official code computes it: tokens (B, H·W, C) that become contiguous maps and back."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        model = self.model
        x = model.patch_embed.proj(x)
        size = x.shape[-2:]
        x = model.patch_embed.norm(x.flatten(2).transpose(1, 2))  # (B, L, C)
        for stage in model.stages:
            if stage.downsample is not None:
                x = x.transpose(1, 2).unflatten(2, size)
                x = stage.downsample(x)
                size = x.shape[-2:]
                x = x.flatten(2).transpose(1, 2)
            for block in stage.blocks:
                mixer = block.mixer
                y = x.transpose(1, 2).reshape(len(x), -1, *size)  # a copy, (B, C, H, W)
                y = mixer.bn_in(mixer.proj_in(y)).relu()
                y = mixer.bn_spatial(plain.depthwise_conv2d(y, mixer.spatial.weight, mixer.spatial.bias)).relu()
                x = x + mixer.bn_out(mixer.proj_out(y)).flatten(2).transpose(1, 2)
                y = block.bn(x.transpose(1, 2).reshape(len(x), -1, *size)).flatten(2).transpose(1, 2)
                x = x + block.mlp.fc2(block.mlp.act(block.mlp.fc1(y)))
        x = model.norms['ln3'](x).mean(1)
        return model.head.fc(x)


def build(variant: Variant, args: argparse.Namespace) -> nn.Module:
    """A model on the device, ready for the mode that is measured."""
    torch.manual_seed(0)
    name = variant.model
    if name.startswith('official_'):
        model: nn.Module = OfficialStyle(timm.create_model(name.replace('official', 'dwnet')))
    else:
        # without stochastic depth, which timm's Swin alone has by default
        options = dict(img_size=args.size) if 'swin' in name else {}
        model = timm.create_model(BASELINES.get(name, name), drop_path_rate=0., **options)
    for module in model.modules():  # statistics as after a training, so that folding them is no small thing
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=.1)
            nn.init.uniform_(module.running_var, .5, 1.5)
    return model.to(args.device).train(args.mode == 'train')


def prepare(model: nn.Module, variant: Variant, args: argparse.Namespace) -> nn.Module:
    """Deployed, in the memory format that suits it best, in the precision that is measured, compiled."""
    if args.mode != 'train' and args.deploy and isinstance(model, DWNet):
        model.switch_to_deploy()
    if 'convnext' in variant.model or isinstance(model, DWNet):
        model = model.to(memory_format=torch.channels_last)
    if args.mode != 'train':
        model = model.to(getattr(torch, variant.dtype))
    return torch.compile(model, dynamic=False) if variant.compiled else model


def example(args: argparse.Namespace, batch: int | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch or args.batch, 3, args.size, args.size, generator=generator).to(args.device)


def step_of(variant: Variant, args: argparse.Namespace, check: bool = True) -> Callable[[], None]:
    """One forward pass, or one training step, of a model, or of a detector or segmentor that holds it."""
    if args.mode in TASKS:
        return dense_step_of(variant, args)
    model, x, dtype = build(variant, args), example(args), getattr(torch, variant.dtype)
    if 'official' not in variant.model and 'swin' not in variant.model:
        x = x.contiguous(memory_format=torch.channels_last)
    if args.mode != 'train':
        with torch.inference_mode():
            expected = model(x) if check else None
            model, x = prepare(model, variant, args), x.to(dtype)
            error = ((model(x).float() - expected).norm() / expected.norm()).item() if check else 0.
        if not error < (1e-4 if dtype == torch.float32 else .1):
            raise UserError(f'{variant} differs from {variant.model} in plain float32 by {error:.1e}, so it is not '
                            'measured')

        @torch.inference_mode()
        def infer() -> None:
            model(x)

        return infer
    model = prepare(model, variant, args)
    target = torch.randint(0, 1000, (args.batch, ), device=args.device)
    return training_step(model, lambda: nn.functional.cross_entropy(model(x), target), dtype, args)


def training_step(model: nn.Module, loss: Callable[[], Tensor], dtype: torch.dtype,
                  args: argparse.Namespace) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=args.device == 'cuda')

    def train() -> None:
        with torch.autocast(args.device, dtype, enabled=dtype != torch.float32):
            value = loss()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    return train


def dense_step_of(variant: Variant, args: argparse.Namespace) -> Callable[[], None]:
    """A training step of the published detector or segmentor, with DWNet or with its toolbox's own Swin."""
    torch.manual_seed(0)
    config, size = TASKS[args.mode]
    size = (args.size, args.size) if args.size else size
    cfg = Config.fromfile(config_path(config))
    toolbox_of(cfg).load()
    init_default_scope(cfg.default_scope)
    backbone = DENSE[variant.model]
    cfg.model.backbone = backbone if 'type' in backbone else {**cfg.model.backbone, **backbone, 'init_cfg': None}
    cfg.model.data_preprocessor.pop('batch_augments', None)
    model = revert_sync_batchnorm(MODELS.build(cfg.model)).to(args.device).train()
    torch.manual_seed(0)  # the same images and boxes for every backbone
    data = model.data_preprocessor(toolbox_of(cfg).random_batch(args.batch, size), True)
    return training_step(model, lambda: model.parse_losses(model(**data, mode='loss'))[0],
                         getattr(torch, variant.dtype), args)


def multiply_adds(variant: Variant, args: argparse.Namespace) -> float:
    """Of a forward pass of one image."""
    single = argparse.Namespace(**{**vars(args), 'mode': 'inference', 'device': 'cpu'})
    model = build(Variant(variant.model), single)
    with FlopCounterMode(display=False) as counter, torch.enable_grad():  # the form that holds all kernels at once
        model(example(single, 1))
    return counter.get_total_flops() / 2


def check_official_style() -> None:
    """The plain formulation and the network have to agree before one is called faster than the other."""
    official = OfficialStyle(timm.create_model('dwnet_tiny')).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        error = (official(x) - official.model(x)).abs().max().item()
    if error > 1e-5:
        raise UserError(f'the official formulation differs from the network by {error:.1e}')


# ---------------------------------------------------------------------------------------------------
# Time and memory
# ---------------------------------------------------------------------------------------------------
def seconds(step: Callable[[], object], repeats: int, args: argparse.Namespace) -> float:
    """Of one call, as the mean of ``repeats``."""
    synchronise(args)
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    synchronise(args)
    return (time.perf_counter() - start) / repeats


def synchronise(args: argparse.Namespace) -> None:
    if args.device == 'cuda':
        torch.cuda.synchronize()


def take_turns(steps: dict, args: argparse.Namespace, after_round: Callable[[dict], None] = lambda times: None) -> dict:
    """Each step's times, a round of all after another."""
    repeats = {}
    for name, step in track(steps.items(), description='warming up', disable=not sys.stderr.isatty()):
        step()  # compilation, choice of algorithms
        step()
        repeats[name] = max(1, round(.5 / seconds(step, 1, args)))  # about half a second a turn
    times: dict = {name: [] for name in steps}
    for _ in track(range(args.rounds), description='rounds', disable=not sys.stderr.isatty()):
        for name, step in steps.items():
            times[name].append(seconds(step, repeats[name], args))
        after_round(times)
    return times


def peak_memory(variant: Variant, args: argparse.Namespace) -> float:
    """MiB that a step takes beyond its model: by CUDA's count, or as the growth of a process of its own."""
    if args.device == 'cuda':
        step = step_of(variant, args, check=False)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    command = [sys.executable, '-W', 'ignore', __file__, *args.command, '--memory-of', variant.model, variant.dtype]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def print_memory(args: argparse.Namespace) -> None:
    step = step_of(Variant(*args.memory_of), args, check=False)
    Path('/proc/self/clear_refs').write_text('5')  # Linux: the peak counts from here

    def resident(what: str) -> int:
        return int(re.search(rf'{what}:\s+(\d+) kB', Path('/proc/self/status').read_text())[1])

    before = resident('VmRSS')
    step()
    step()
    print((resident('VmHWM') - before) / 1024)


def device_limits(dtype: str, args: argparse.Namespace) -> dict[str, float]:
    """What the device reaches at best: GB/s of a copy, and Tera multiply-adds a second of a matrix product.

    The depth-wise operators multiply in float32 whatever the maps are, without matrix units, so their limit is that of
    a product in float32.
    """
    a = torch.randn(64 << 20 if args.device == 'cuda' else 16 << 20, device=args.device)
    b = torch.empty_like(a)
    copying = min(seconds(lambda: b.copy_(a), 3, args) for _ in range(5))
    n = 8192 if args.device == 'cuda' else 2048

    def tera_macs(dtype: torch.dtype) -> float:
        m = torch.randn(n, n, device=args.device).to(dtype)
        return n**3 / min(seconds(lambda: m @ m, 2, args) for _ in range(5)) / 1e12

    return dict(copy_gb_s=2 * a.numel() * 4 / copying / 1e9, tera_macs=tera_macs(getattr(torch, dtype)),
                tera_macs_float32=tera_macs(torch.float32))


# ---------------------------------------------------------------------------------------------------
# Modes
# ---------------------------------------------------------------------------------------------------
def compare_models(args: argparse.Namespace) -> dict:
    """Images a second of each model, in inference or in training."""
    check_official_style()
    variants = [Variant(model, dtype, compiled) for model in args.models for dtype in args.dtype
                for compiled in ([False, True] if args.compile and 'official' not in model else [False])]
    with torch.set_grad_enabled(args.mode != 'inference'):
        times = take_turns({v: step_of(v, args) for v in variants}, args,
                           lambda times: write(dict(models=rates_of(times, args)), args, partial=True))
    rows = rates_of(times, args)
    limits = {dtype: device_limits(dtype, args) for dtype in args.dtype}
    passes = 1 if args.mode == 'inference' else 3  # the backward pass costs about two forward ones
    for v in variants:
        row = rows[str(v)]
        if args.mode in ('inference', 'train'):
            row['matrix_rate'] = row['images_s'] * passes * multiply_adds(v, args) / limits[v.dtype]['tera_macs'] / 1e12
        if not v.compiled:
            row['peak_mib'] = peak_memory(v, args)
    show(f"images/s, batch {args.batch}", {
        'images/s': [f"{r['images_s']:.1f}" for r in rows.values()],
        'lowest – highest': [f"{r['low']:.1f} – {r['high']:.1f}" for r in rows.values()],
        f'× {args.models[0]}': [f"{r['ratio']:.2f}" for r in rows.values()],
        'of the matrix rate': [f"{r['matrix_rate']:.0%}" if 'matrix_rate' in r else '' for r in rows.values()],
        'peak MiB': [f"{r['peak_mib']:.0f}" if 'peak_mib' in r else '' for r in rows.values()]}, list(rows))
    for dtype, limit in limits.items():
        print(f"this device: copies {limit['copy_gb_s']:.1f} GB/s, multiplies {limit['tera_macs']:.3f} T "
              f'multiply-adds/s ({dtype})')
    return dict(models=rows, limits=limits)


def rates_of(times: dict[Variant, list[float]], args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Images a second, and the ratio to the first model at its best of eager and compiled."""
    rates, rows = {v: [args.batch / t for t in values] for v, values in times.items()}, {}
    for v in rates:
        first = max((w for w in rates if (w.model, w.dtype) == (args.models[0], v.dtype)),
                    key=lambda w: statistics.median(rates[w]))
        rows[str(v)] = dict(images_s=statistics.median(rates[v]), low=min(rates[v]), high=max(rates[v]),
                            ratio=statistics.median(a / b for a, b in zip(rates[v], rates[first])))
    return rows


def check_kernels(args: argparse.Namespace) -> dict:
    """Whether each operator is right: the largest error of output and gradients, relative to the largest value."""
    rows = []
    backends = ('torch', 'triton') if args.device == 'cuda' else ('torch', )
    for (operator, function), dtype, memory_format, backend in itertools.product(
            FUNCTIONS.items(), ('float32', 'bfloat16', 'float16'), (torch.channels_last, torch.contiguous_format),
            backends):
        channels, size = STAGES[2]
        x = torch.randn(2, channels, size, size, device=args.device).to(memory_format=memory_format)
        weight = torch.randn(kernels_of(operator, x), device=args.device)
        inputs = [t.to(getattr(torch, dtype)).requires_grad_() for t in (x, weight)]
        wide = [t.detach().double().requires_grad_() for t in inputs]
        layout = 'channels-last' if memory_format == torch.channels_last else 'contiguous'
        row = dict(operator=operator, dtype=dtype, layout=layout, by=backend)
        try:
            y, expected = function(*inputs, backend=backend), getattr(plain, function.__name__)(*wide)
            pairs = zip((y, *torch.autograd.grad(y, inputs, torch.ones_like(y))),
                        (expected, *torch.autograd.grad(expected, wide, torch.ones_like(expected))), strict=True)
            row['error'] = max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)
        except Exception as error:  # a kernel that does not compile is a finding, and the others are looked at, too
            row['failure'] = f'{type(error).__name__}: {error}'.partition('\n')[0]
        rows.append(row)
        write(dict(kernels=rows), args, partial=True)
    columns = {key: [verdict_of(r) if key == 'verdict' else str(r[key]) for r in rows]
               for key in ('dtype', 'layout', 'by', 'verdict')}
    show('kernels against float64', columns, [r['operator'] for r in rows])
    return dict(kernels=rows)


def verdict_of(row: dict) -> str:
    """Right up to rounding, or not."""
    if 'failure' in row:
        return row['failure']
    right = row['error'] <= max(4 * torch.finfo(getattr(torch, row['dtype'])).eps, 1e-5)
    return f"{'right' if right else 'WRONG'}, {row['error']:.0e}"


def kernels_of(operator: str, x: Tensor) -> tuple[int, ...]:
    """The shape of an operator's kernels."""
    batch, channels, height, width = x.shape
    return dict(static=(channels, 1, 7, 7), dynamic=(batch, channels, 7, 7),
                inhomogeneous=(batch, 32, 7, 7, height, width))[operator]


def compare_layers(args: argparse.Namespace) -> dict:
    """Forward and backward of each operator at each stage's shape."""
    dtype, rows = getattr(torch, args.dtype[0]), []
    limits = device_limits(args.dtype[0], args)
    for channels, size in STAGES:
        x = torch.randn(args.batch, channels, size, size, device=args.device).to(dtype)
        x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
        print(f'{tuple(x.shape)}: {choose_backend(x)[1]}')
        for operator in FUNCTIONS:
            weight = torch.randn(kernels_of(operator, x), device=args.device).to(dtype)
            if operator == 'inhomogeneous' and (args.device == 'cuda' or size <= 16):  # as the network predicts them
                weight = weight.permute(0, 4, 5, 2, 3, 1).contiguous().permute(0, 5, 3, 4, 1, 2)
            weight.requires_grad_()
            steps = operator_steps(FUNCTIONS[operator], x, weight, args)
            for (name, direction), values in take_turns(steps, args).items():
                # what has to be read and written at least: x, weight, y; or x, weight, and all three gradients
                moved = (2 * x.nbytes + weight.nbytes if direction == 'forward' else 3 * x.nbytes + 2 * weight.nbytes)
                time_s = statistics.median(values)
                rows.append(dict(operator=operator, shape=list(x.shape), by=name, direction=direction,
                                 ms=time_s * 1e3, copy_rate=moved / time_s / 1e9 / limits['copy_gb_s']))
            write(dict(layers=rows, limits=limits), args, partial=True)
    show('operators', {
        'shape': [' × '.join(map(str, r['shape'])) for r in rows], 'by': [r['by'] for r in rows],
        'pass': [r['direction'] for r in rows], 'ms': [f"{r['ms']:.3f}" for r in rows],
        'of its ceiling': [ceiling(r, limits) for r in rows]}, [r['operator'] for r in rows])
    return dict(layers=rows, limits=limits)


def ceiling(row: dict, limits: dict[str, float]) -> str:
    """How near an operator comes to what is nearer: the rate of a copy, or that of float32 multiply-adds."""
    multiply_adds = 49 * math.prod(row['shape']) * (1 if row['direction'] == 'forward' else 2)
    # records of float32 have one rate of multiply-adds
    rate = limits.get('tera_macs_float32', limits['tera_macs'])
    multiplying = multiply_adds / (row['ms'] / 1e3) / 1e12 / rate
    if multiplying > row['copy_rate']:
        return f'{multiplying:.0%} (multiply-adds)'
    return f"{row['copy_rate']:.0%} (copies)"


def operator_steps(function: Callable, x: Tensor, weight: Tensor, args: argparse.Namespace) -> dict:
    """(name, direction) → step: plainly written in both memory formats, and ours by each backend."""
    reference = getattr(plain, function.__name__)
    on_gpu = args.device == 'cuda'
    candidates: dict[str, tuple[Callable, Tensor]] = {
        'cuDNN, channels-last' if on_gpu else 'plain, channels-last': (reference, x),
        'native, contiguous' if on_gpu else 'plain, contiguous': (reference, x.detach().contiguous().requires_grad_())}
    for backend in ('torch', 'triton') if on_gpu else ('torch', ):
        candidates[f'dwnet, {backend}'] = (lambda x, w, b=backend: function(x, w, backend=b), x)
    expected, steps = reference(x, weight).detach(), {}
    for name, (call, own_x) in candidates.items():
        y = call(own_x, weight)
        if (y - expected).abs().max() > .05 * expected.abs().max():
            raise UserError(f'{function.__name__} by {name} is wrong at {tuple(x.shape)}, so it is not measured')
        steps[name, 'forward'] = partial(call, own_x.detach(), weight.detach())
        steps[name, 'backward'] = partial(torch.autograd.grad, y, (own_x, weight), y.detach(), retain_graph=True)
    return steps


def grow(args: argparse.Namespace) -> dict:
    """Images a second at growing sizes."""
    result: dict[int, dict[str, float]] = {}
    models = [name for name in args.models if 'official' not in name]
    for size in args.sizes:
        args.size = size
        with torch.no_grad():
            times = take_turns({name: step_of(Variant(name, args.dtype[0]), args) for name in models}, args)
        result[size] = {name: args.batch / statistics.median(values) for name, values in times.items()}
        write(dict(sizes=result), args, partial=True)
    show(f'images/s, batch {args.batch}', {
        str(size): [f'{rate:.2f}' for rate in rates.values()] for size, rates in result.items()}, models)
    return dict(sizes=result)


def deploy_script() -> dict:
    """What benchmarks/deploy.py defines."""
    script = Path(__file__).resolve().parent.parent / 'benchmarks/deploy.py'
    if not script.is_file():
        raise UserError(f'{script} is missing: --mode deploy needs a clone of the repository')
    return runpy.run_path(str(script))


def compare_runtimes(args: argparse.Namespace) -> dict:
    """The models in each runtime and precision of a CPU."""
    script = deploy_script()
    args.threads = args.threads or torch.get_num_threads()
    args.batches = [args.batch] if '--batch' in args.command else [1, 8]
    result = script['compare'](args, lambda name: build(Variant(name), args).eval(),
                               lambda name: multiply_adds(Variant(name), args),
                               lambda result: write(result, args, partial=True))
    rows = [script['cells'](row) for row in result['deploy']]
    columns = {heading: [row[place] for row in rows] for place, heading in enumerate(script['HEADINGS']) if place}
    show('runtimes', columns, [row[0] for row in rows])
    for name, rate in result['tera_macs'].items():
        print(f'{name}: {rate:.3f} T multiply-adds/s')
    return result


def run_pipeline(args: argparse.Namespace) -> dict:
    """An epoch of ``tools/train.py``, data pipeline and all: images a second, and the share that waits for data."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, '-W', 'ignore', str(Path(__file__).with_name('train.py')), args.config,
                   '--work-dir', folder, '--cfg-options', 'train_cfg.max_epochs=1', 'default_hooks.logger.interval=1',
                   'log_processor.window_size=1']
        environment = {**os.environ, 'OMP_NUM_THREADS': str(torch.get_num_threads())}
        if args.device == 'cpu':
            environment['CUDA_VISIBLE_DEVICES'] = ''
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode:
            raise UserError(f"{args.config} does not train: {(done.stderr.splitlines() or ['?'])[-1]}")
        lines = next(Path(folder).glob('*/vis_data/scalars.json')).read_text().splitlines()
    steps = [record for record in map(json.loads, lines) if 'loss' in record][5:]  # behind the start
    if not steps:
        raise UserError(f'{args.config}: an epoch of 5 steps or fewer is too short to be measured')
    batch = Config.fromfile(config_path(args.config)).train_dataloader.batch_size
    time_s, waiting = (statistics.median(step[key] for step in steps) for key in ('time', 'data_time'))
    row = dict(images_s=batch / time_s, waiting=waiting / time_s)
    show('tools/train.py', {'images/s': [f"{row['images_s']:.1f}"], 'waits for data': [f"{row['waiting']:.0%}"]},
         [args.config])
    return dict(pipeline={args.config: row})


def show(title: str, columns: dict[str, list[str]], names: list[str]) -> None:
    table = Table(title)
    for column in columns:
        table.add_column(column, justify='right')
    for name, *cells in zip(names, *columns.values()):
        table.add_row(name, *cells)
    Console(width=None if sys.stdout.isatty() else 120).print(table)


# ---------------------------------------------------------------------------------------------------
# The record
# ---------------------------------------------------------------------------------------------------
def write(result: dict, args: argparse.Namespace, partial: bool = False) -> None:
    """Writes what is known so far, or the whole result and its picture; nothing without ``--out``."""
    if not args.out:
        return
    out = Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    record = dict(command='python tools/benchmark.py ' + ' '.join(args.command), date=time.strftime('%Y-%m-%d'),
                  device=device_name(args), threads=torch.get_num_threads(), torch=torch.__version__,
                  timm=timm.__version__, **dict(partial=True) if partial else {}, **result)
    new = out.with_suffix('.new')
    new.write_text(json.dumps(record, indent=1) + '\n')
    new.replace(out.with_suffix('.json'))  # whole at any moment
    if partial:
        return
    if 'models' in result:
        plot(result['models'], out.with_suffix('.png'))
    print(f"written: {out.with_suffix('.json')}")


def plot(models: dict, path: Path) -> None:
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot
    names = list(models)
    figure, axes = pyplot.subplots(figsize=(7, .36 * len(names) + 1))
    colours = ['#2a6f97' if 'dwnet' in name else '#b0b7bf' for name in names]
    rates = [models[name]['images_s'] for name in names]
    spread = [[models[name]['images_s'] - models[name]['low'] for name in names],
              [models[name]['high'] - models[name]['images_s'] for name in names]]
    bars = axes.barh(names, rates, color=colours, xerr=spread, error_kw=dict(ecolor='#555', lw=.8))
    axes.bar_label(bars, [f'{rate:.1f}' for rate in rates], padding=4)
    axes.invert_yaxis()
    axes.set_xlabel('images per second: median, lowest and highest')
    axes.spines[['top', 'right']].set_visible(False)
    axes.margins(x=.12)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def device_name(args: argparse.Namespace) -> str:
    if args.device == 'cuda':
        return torch.cuda.get_device_name()
    lines = [line for line in Path('/proc/cpuinfo').read_text().splitlines() if line.startswith('model name')]
    return lines[0].partition(':')[2].strip() if lines else 'CPU'


def record_all(args: argparse.Namespace) -> None:
    """Every measurement of the record, each in a process of its own, and their tables.

    With ``--minutes`` a measurement gets at most half of the time that is left, and what it has written by then stays.
    """
    end = time.monotonic() + 60 * args.minutes if args.minutes else math.inf
    names = [name for name in RECORDS[args.device] if not args.only or name in args.only]
    failed = []
    for name in names:
        if (left := end - time.monotonic()) <= 0:
            print(f'{name}: no time is left', flush=True)
            continue
        limit = left if name == names[-1] else left / 2
        print(f'--- {name}', flush=True)
        command = [sys.executable, '-W', 'ignore', __file__, *RECORDS[args.device][name].split(), '--device',
                   args.device, '--out', str(Path(args.record, name))]
        code = run_for(command, limit)
        if code is None:
            print(f'{name}: cut off after {limit:.0f} s', flush=True)
        elif code:
            failed.append(name)
        if tables := tables_of(Path(args.record)):
            Path(args.record, 'README.md').write_text(tables)
    if failed:
        raise UserError(f"these measurements failed: {', '.join(failed)}; the others are in {args.record}")


def run_for(command: list[str], limit: float) -> int | None:
    """Runs a command and whatever it starts; returns its exit status, or None if it took longer than ``limit``."""
    with subprocess.Popen(command, start_new_session=True) as process:
        try:
            return process.wait(None if limit == math.inf else limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def tables_of(folder: Path) -> str:
    """The record of a folder as Markdown."""
    text = []
    for name in dict.fromkeys(name for record in RECORDS.values() for name in record):
        if not (path := folder / f'{name}.json').is_file():
            continue
        record = json.loads(path.read_text())
        if not text:
            text += [f"# {record['device']}", 'Written by `python tools/benchmark.py --record FOLDER`; what the '
                     'columns mean is in [the page above](../README.md).']
        text += [f'## {name}', f"`{record['command'].partition(' --out')[0]}`, {record['date']}, torch "
                 f"{record['torch']}, timm {record['timm']}, {record['threads']} threads"
                 + ('; **cut off before its end**' if record.get('partial') else '')]
        if 'kernels' in record:
            text.append(markdown(['operator', 'dtype', 'layout', 'by', 'verdict'], [
                [r['operator'], r['dtype'], r['layout'], r['by'], verdict_of(r)] for r in record['kernels']]))
        elif 'models' in record:
            text.append(markdown(
                ['model', 'images/s', 'lowest – highest', '× first', 'of the matrix rate', 'peak MiB'],
                [[name, f"{r['images_s']:.1f}", f"{r['low']:.1f} – {r['high']:.1f}", f"{r['ratio']:.2f}",
                  f"{r['matrix_rate']:.0%}" if 'matrix_rate' in r else '',
                  f"{r['peak_mib']:.0f}" if 'peak_mib' in r else ''] for name, r in record['models'].items()]))
            if (folder / f'{name}.png').is_file():
                text.append(f'![{name}]({name}.png)')
        elif 'deploy' in record:
            script, rows = deploy_script(), record['deploy']
            text.append(markdown(script['best_headings'](rows), script['best'](rows)))
            text.append(markdown(script['HEADINGS'], [script['cells'](row) for row in rows]))
        elif 'layers' in record:
            text.append(markdown(
                ['operator', 'shape', 'by', 'pass', 'ms', 'of its ceiling'],
                [[r['operator'], ' × '.join(map(str, r['shape'])), r['by'], r['direction'], f"{r['ms']:.2f}",
                  ceiling(r, record['limits'])] for r in record['layers']]))
        elif 'sizes' in record:
            sizes = record['sizes']
            text.append(markdown(['images/s', *(f'{size}²' for size in sizes)], [
                [model, *(f'{rates[model]:.2f}' for rates in sizes.values())] for model in next(iter(sizes.values()))]))
        else:
            text.append(markdown(['config', 'images/s', 'waits for data'], [
                [config, f"{r['images_s']:.1f}", f"{r['waiting']:.0%}"] for config, r in record['pipeline'].items()]))
    return '\n\n'.join(text) + '\n' if text else ''


def markdown(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ['---', *['---:'] * (len(columns) - 1)], *rows]
    return '\n'.join(f"| {' | '.join(line)} |" for line in lines)


MODES: dict[str, Callable[[argparse.Namespace], dict]] = dict(
    inference=compare_models, train=compare_models, detection=compare_models, segmentation=compare_models,
    kernels=check_kernels, layers=compare_layers, sizes=grow, pipeline=run_pipeline, deploy=compare_runtimes)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='example: python tools/benchmark.py --deploy --batch 8 --threads 2 --out benchmarks/mine/inference\n'
        'example: python tools/benchmark.py --record benchmarks/mine')
    parser.add_argument('--mode', choices=MODES, default='inference',
                        help='forward passes, training steps; training steps of whole detectors or segmentors, with '
                        'DWNet or Swin; whether the operators are right (kernels), and their time (layers); growing '
                        'sizes; tools/train.py with its data; exported files in the runtimes of a CPU (deploy)')
    parser.add_argument('--models', nargs='+', help=f"of {', '.join(BASELINES)}, official_tiny, official_base, and "
                        f"dwnet's names in timm; detection and segmentation: of {', '.join(DENSE)}")
    parser.add_argument('--batch', type=int, default=8)
    parser.add_argument('--size', type=int, help='of the square images (default: 224; of detection 800×1280, of '
                        'segmentation 512×512)')
    parser.add_argument('--sizes', type=int, nargs='+', default=[224, 448, 896, 1344], help='for --mode sizes')
    parser.add_argument('--dtype', nargs='+', choices=('float32', 'bfloat16', 'float16', 'int8'),
                        default=['float32'], help='of the weights in inference, of autocast in training; several are '
                        'compared; int8 for --mode deploy')
    parser.add_argument('--runtime', nargs='+', choices=('torch', 'onnxruntime', 'openvino'),
                        default=['torch', 'onnxruntime', 'openvino'], help='for --mode deploy')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--threads', type=int, help='of the CPU (default: all)')
    parser.add_argument('--deploy', action='store_true', help='fold the BatchNorms of dwnet models')
    parser.add_argument('--compile', action='store_true',
                        help='measure every model eager and compiled (on a CPU this needs g++)')
    parser.add_argument('--rounds', type=int, default=7, help='turns of each model')
    parser.add_argument('--config', default='dwnet::classification/dwnet-nano_digits.py', help='for --mode pipeline')
    parser.add_argument('--out', help='where to write: OUT.json, and OUT.png for models')
    parser.add_argument('--record', metavar='FOLDER', help='measure all that benchmarks/ keeps, and write it there')
    parser.add_argument('--minutes', type=float, help='end the record in time; the most telling comes first')
    parser.add_argument('--only', nargs='+', metavar='NAME', choices=sorted({n for r in RECORDS.values() for n in r}),
                        help='parts of the record, such as inference or layers')
    parser.add_argument('--memory-of', nargs=2, help=argparse.SUPPRESS)
    return parser


def known_models(mode: str) -> list[str]:
    return list(DENSE) if mode in TASKS else [
        *BASELINES, 'official_tiny', 'official_base', *timm.list_models('*dwnet*')]


def main() -> None:
    args = make_parser().parse_args()
    args.command = sys.argv[1:]
    args.models = args.models or (list(DENSE) if args.mode in TASKS else TINY)
    known = known_models(args.mode)
    if unknown := [name for name in args.models if name not in known]:
        raise UserError(f"--models {' '.join(unknown)}: unknown; there are {', '.join(known)}")
    for flag, folder in (('--out', args.out and Path(args.out).parent), ('--record', args.record)):
        if folder:
            check_writable(flag, folder)
    if args.mode not in TASKS:
        args.size = args.size or 224
    if 'int8' in args.dtype and args.mode != 'deploy' and not args.record:
        raise UserError('--dtype int8 is for --mode deploy')
    if args.threads:
        torch.set_num_threads(args.threads)
    # the whole of float32 in convolutions, as in matrix products: with TF32 in one of them models were not comparable
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    timm.layers.set_fused_attn(True, experimental=True)
    if args.record:
        return record_all(args)
    if args.memory_of:
        with torch.set_grad_enabled(args.mode != 'inference'):
            return print_memory(args)
    write(MODES[args.mode](args), args)


if __name__ == '__main__':
    run_command(main)
