#!/usr/bin/env python
"""Measures throughput and memory against timm's Swin and ConvNeXt, all in one run.

The models take turns, so a machine that slows down slows all of them; quoted are medians, and ratios to the first
model. Outputs are checked before anything is timed.
"""
import argparse
import contextlib
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import timm
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

import dwnet  # noqa: F401  registers the timm models
from dwnet.engine.cli import run_command
from dwnet.errors import UserError
from dwnet.models import DWNet
from dwnet.ops import depthwise_conv2d, dynamic_depthwise_conv2d, inhomogeneous_depthwise_conv2d, reference

BASELINES = {'swin_tiny': 'swin_tiny_patch4_window7_224', 'swin_base': 'swin_base_patch4_window7_224',
             'convnext_tiny': 'convnext_tiny', 'convnext_base': 'convnext_base'}
DEFAULT = ['swin_tiny', 'convnext_tiny', 'official_tiny', 'dwnet_tiny', 'dynamic_dwnet_tiny', 'i_dynamic_dwnet_tiny']
# Stage → channels and size of the map of a tiny model at 224×224
STAGES = [(96, 56), (192, 28), (384, 14), (768, 7)]


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
                y = mixer.bn_spatial(reference.depthwise_conv2d(y, mixer.spatial.weight, mixer.spatial.bias)).relu()
                x = x + mixer.bn_out(mixer.proj_out(y)).flatten(2).transpose(1, 2)
                y = block.bn(x.transpose(1, 2).reshape(len(x), -1, *size)).flatten(2).transpose(1, 2)
                x = x + block.mlp.fc2(block.mlp.act(block.mlp.fc1(y)))
        x = model.norms['ln3'](x).mean(1)
        return model.head.fc(x)


def build(name: str, args: argparse.Namespace) -> nn.Module:
    """A model by its name in the tables, on the device, ready for the mode that is measured."""
    torch.manual_seed(0)
    if name.startswith('official_'):
        model: nn.Module = OfficialStyle(timm.create_model(name.replace('official', 'dwnet')))
    else:
        model = timm.create_model(BASELINES.get(name, name), **(dict(img_size=args.size) if 'swin' in name else {}))
    for module in model.modules():  # statistics as after a training, so that folding them is no small thing
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=.1)
            nn.init.uniform_(module.running_var, .5, 1.5)
    model = model.to(args.device).train(args.mode == 'train')
    if args.mode != 'train' and isinstance(model, DWNet):
        expected = model(example(args, 2))
        if args.deploy:
            model.switch_to_deploy()
        error = ((model(example(args, 2)) - expected).abs().max() / expected.abs().max()).item()
        if error > 1e-4:
            raise UserError(f'{name} deployed differs from {name} by {error:.1e}, so it is not measured')
    if 'convnext' in name or (isinstance(model, DWNet)):
        model = model.to(memory_format=torch.channels_last)
    if args.dtype != 'float32' and args.mode != 'train':
        model = model.to(getattr(torch, args.dtype))
    return torch.compile(model) if args.compile else model


def example(args: argparse.Namespace, batch: int | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch or args.batch, 3, args.size, args.size, generator=generator).to(args.device)


def step_of(name: str, args: argparse.Namespace) -> Callable[[], None]:
    """One forward pass, or one training step, of a model."""
    model, x = build(name, args), example(args)
    if 'official' not in name and 'swin' not in name:
        x = x.contiguous(memory_format=torch.channels_last)
    if args.mode != 'train':
        x = x.to(getattr(torch, args.dtype))

        @torch.inference_mode()
        def infer() -> None:
            model(x)

        return infer
    target = torch.randint(0, 1000, (args.batch, ), device=args.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=args.device == 'cuda')
    dtype = getattr(torch, args.dtype)

    def train() -> None:
        with torch.autocast(args.device, dtype, enabled=dtype != torch.float32):
            loss = nn.functional.cross_entropy(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return train


def synchronise(args: argparse.Namespace) -> None:
    if args.device == 'cuda':
        torch.cuda.synchronize()


def seconds(step: Callable[[], None], repeats: int, args: argparse.Namespace) -> float:
    """Of one call, as the mean of ``repeats``."""
    synchronise(args)
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    synchronise(args)
    return (time.perf_counter() - start) / repeats


def take_turns(steps: dict[str, Callable[[], None]], args: argparse.Namespace) -> dict[str, list[float]]:
    """Each step's times, a round of all after another."""
    repeats = {}
    for name, step in steps.items():
        step()  # warm-up: compilation, choice of algorithms
        step()
        repeats[name] = max(1, round(.5 / seconds(step, 1, args)))  # about half a second a turn
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in track(range(args.rounds), description='rounds', disable=not sys.stderr.isatty()):
        for name, step in steps.items():
            times[name].append(seconds(step, repeats[name], args))
    return times


def peak_memory(name: str, args: argparse.Namespace) -> float:
    """MiB that a step takes beyond its model: by CUDA's count, or as the growth of a process of its own."""
    if args.device == 'cuda':
        step = step_of(name, args)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    command = [sys.executable, __file__, *sys.argv[1:], '--memory-of', name]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def print_memory(args: argparse.Namespace) -> None:
    step = step_of(args.memory_of, args)
    step()
    Path('/proc/self/clear_refs').write_text('5')  # Linux: the peak counts from here

    def resident(what: str) -> int:
        return int(re.search(rf'{what}:\s+(\d+) kB', Path('/proc/self/status').read_text())[1])

    before = resident('VmRSS')
    step()
    print((resident('VmHWM') - before) / 1024)


def device_limits(args: argparse.Namespace) -> dict[str, float]:
    """What the device reaches at best: GB/s of a copy, and Tera multiply-adds a second of a matrix product."""
    dtype = getattr(torch, args.dtype)
    a = torch.randn(64 << 20 if args.device == 'cuda' else 16 << 20, device=args.device)
    b = torch.empty_like(a)
    copy = min(seconds(lambda: b.copy_(a), 3, args) for _ in range(5))
    n = 8192 if args.device == 'cuda' else 2048
    m = torch.randn(n, n, device=args.device).to(dtype)
    product = min(seconds(lambda: m @ m, 2, args) for _ in range(5))
    return dict(copy_gb_s=2 * a.numel() * 4 / copy / 1e9, tera_macs=n**3 / product / 1e12)


def compare_models(args: argparse.Namespace) -> dict:
    check_official_style(args)
    with grad_mode(args):
        times = take_turns({name: step_of(name, args) for name in args.models}, args)
    limits, rows = device_limits(args), {}
    for name, values in times.items():
        rate = [args.batch / t for t in values]
        rows[name] = dict(images_s=statistics.median(rate), low=min(rate), high=max(rate),
                          peak_mib=peak_memory(name, args))
    first = rows[args.models[0]]['images_s']
    table = Table('model')
    for column in ('images/s', 'lowest – highest', f'× {args.models[0]}', 'peak MiB'):
        table.add_column(column, justify='right')
    for name, row in rows.items():
        row['ratio'] = row['images_s'] / first
        table.add_row(name, f"{row['images_s']:.1f}", f"{row['low']:.1f} – {row['high']:.1f}", f"{row['ratio']:.2f}",
                      f"{row['peak_mib']:.0f}")
    Console().print(table)
    print(f"this device: copies {limits['copy_gb_s']:.1f} GB/s, multiplies {limits['tera_macs']:.3f} T multiply-adds/s "
          f'({args.dtype})')
    return dict(models=rows, limits=limits)


def check_official_style(args: argparse.Namespace) -> None:
    """The plain formulation and the network have to agree before one is called faster than the other."""
    official = OfficialStyle(timm.create_model('dwnet_tiny')).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        error = (official(x) - official.model(x)).abs().max().item()
    if error > 1e-5:
        raise UserError(f'the official formulation differs from the network by {error:.1e}')


@contextlib.contextmanager
def grad_mode(args: argparse.Namespace) -> Iterator[None]:
    with torch.set_grad_enabled(args.mode == 'train'):
        yield


def compare_layers(args: argparse.Namespace) -> dict:
    """Forward and backward of each operator at each stage's shape: torch's own, and ours by backend."""
    dtype, rows = getattr(torch, args.dtype), []
    backends = ['torch', 'triton'] if args.device == 'cuda' else ['torch']
    for channels, size in STAGES:
        x = torch.randn(args.batch, channels, size, size, device=args.device).to(dtype)
        x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
        weights = dict(
            static=torch.randn(channels, 1, 7, 7, device=args.device),
            dynamic=torch.randn(args.batch, channels, 7, 7, device=args.device),
            inhomogeneous=torch.randn(args.batch, 32, 7, 7, size, size, device=args.device))
        functions = dict(static=depthwise_conv2d, dynamic=dynamic_depthwise_conv2d,
                         inhomogeneous=inhomogeneous_depthwise_conv2d)
        for operator, weight in weights.items():
            weight = weight.to(dtype).requires_grad_()
            plain = getattr(reference, functions[operator].__name__)
            candidates = {'plain': lambda x, w, plain=plain: plain(x, w)} | {
                backend: lambda x, w, f=functions[operator], b=backend: f(x, w, backend=b) for backend in backends}
            expected = plain(x, weight)
            steps: dict[str, Callable] = {}
            for name, function in candidates.items():
                y = function(x, weight)
                if (y - expected).abs().max() > .05 * expected.abs().max():
                    raise UserError(f'{operator} by {name} is wrong at {tuple(x.shape)}, so it is not measured')
                steps[f'{name} forward'] = lambda f=function, x=x, w=weight: f(x.detach(), w.detach())
                steps[f'{name} backward'] = lambda y=y, inputs=(x, weight): torch.autograd.grad(
                    y, inputs, y, retain_graph=True)
            for name, values in take_turns(steps, args).items():
                rows.append(dict(operator=operator, shape=list(x.shape), what=name,
                                 ms=statistics.median(values) * 1e3))
    table = Table('operator', 'shape', 'what', 'ms')
    for row in rows:
        table.add_row(row['operator'], str(row['shape']), row['what'], f"{row['ms']:.2f}")
    Console().print(table)
    return dict(layers=rows)


def grow(args: argparse.Namespace) -> dict:
    """Images a second at growing sizes."""
    result = {}
    for size in args.sizes:
        args.size = size
        with grad_mode(args):
            times = take_turns({name: step_of(name, args) for name in args.models if 'official' not in name}, args)
        result[size] = {name: args.batch / statistics.median(values) for name, values in times.items()}
    table = Table('model', *map(str, args.sizes))
    for name in result[args.sizes[0]]:
        table.add_row(name, *(f'{result[size][name]:.2f}' for size in args.sizes))
    Console().print(table)
    return dict(sizes=result)


def plot(models: dict, path: Path) -> None:
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot
    names = list(models)
    figure, axes = pyplot.subplots(figsize=(7, .45 * len(names) + 1.2))
    colours = ['#2a6f97' if 'dwnet' in name else '#b0b7bf' for name in names]
    bars = axes.barh(names, [models[name]['images_s'] for name in names], color=colours)
    axes.bar_label(bars, fmt='%.1f', padding=3)
    axes.invert_yaxis()
    axes.set_xlabel('images per second, median')
    axes.spines[['top', 'right']].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='example: python tools/benchmark.py --deploy --batch 8 --threads 2 --out benchmarks/cpu')
    parser.add_argument('--mode', choices=('inference', 'train', 'layers', 'sizes'), default='inference',
                        help='what is measured: forward passes, training steps, single operators, or growing sizes')
    parser.add_argument('--models', nargs='+', default=DEFAULT,
                        help=f"of {', '.join(BASELINES)}, official_tiny, official_base, and dwnet's names in timm")
    parser.add_argument('--batch', type=int, default=8)
    parser.add_argument('--size', type=int, default=224)
    parser.add_argument('--sizes', type=int, nargs='+', default=[224, 448, 896, 1344], help='for --mode sizes')
    parser.add_argument('--dtype', choices=('float32', 'bfloat16', 'float16'), default='float32',
                        help='of the weights in inference, of autocast in training')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--threads', type=int, help='of the CPU (default: all)')
    parser.add_argument('--deploy', action='store_true', help='fold the BatchNorms of dwnet models')
    parser.add_argument('--compile', action='store_true', help='torch.compile every model (on a CPU this needs g++)')
    parser.add_argument('--rounds', type=int, default=7, help='turns of each model')
    parser.add_argument('--out', help='folder for results.json and a plot')
    parser.add_argument('--memory-of', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.memory_of:
        with grad_mode(args):
            return print_memory(args)
    result = dict(inference=compare_models, train=compare_models, layers=compare_layers, sizes=grow)[args.mode](args)
    if args.out:
        folder = Path(args.out)
        folder.mkdir(parents=True, exist_ok=True)
        record = dict(command=' '.join(sys.argv), date=time.strftime('%Y-%m-%d'), torch=torch.__version__,
                      timm=timm.__version__, threads=torch.get_num_threads(), device=device_name(args), **result)
        (folder / 'results.json').write_text(json.dumps(record, indent=1))
        if 'models' in result:
            plot(result['models'], folder / 'throughput.png')
        print(f'written to {folder}')


def device_name(args: argparse.Namespace) -> str:
    if args.device == 'cuda':
        return torch.cuda.get_device_name()
    lines = [line for line in Path('/proc/cpuinfo').read_text().splitlines() if line.startswith('model name')]
    return lines[0].partition(':')[2].strip() if lines else 'CPU'


if __name__ == '__main__':
    run_command(main)
