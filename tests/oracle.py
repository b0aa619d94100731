"""The official network written down a second time, as functions on the official names.

An oracle for the project's own network: no modules, nothing shared with the package, only a state dict whose keys are
the official ones. The kind of token mixer and the number of stages and blocks are read off the keys. Maps are
(B, C, H, W) between the functions. There is no drop path; all else holds for training too, gradients included.
"""
import torch.nn.functional as F
from torch import Tensor, cat

Weights = dict[str, Tensor]


def classify(weights: Weights, image: Tensor, training: bool = False) -> Tensor:
    """Logits (B, classes); with ``training``, batch statistics, and the running ones in ``weights`` move in place."""
    x = patch_embed(weights, image)
    for stage in range(count(weights, 'layers.')):
        x = merge(weights, stage - 1, x) if stage else x
        x = blocks(weights, stage, x, training, window=1)
    return linear(weights, 'head', layer_norm(weights, 'norm', x).mean((2, 3)))


def dense(weights: Weights, image: Tensor, training: bool = False) -> list[Tensor]:
    """The map (B, C_i, H_i, W_i) of each stage after its own BatchNorm, padded inside as for detection."""
    x, maps = patch_embed(weights, pad(image, 4)), []
    for stage in range(count(weights, 'layers.')):
        x = merge(weights, stage - 1, x) if stage else x
        x = blocks(weights, stage, x, training, window=7)
        maps.append(batch_norm(weights, f'norm{stage}', x, training))  # the next stage goes on from x without it
    return maps


def patch_embed(w: Weights, image: Tensor) -> Tensor:
    x = F.conv2d(image, w['patch_embed.proj.weight'], w['patch_embed.proj.bias'], stride=4)
    return layer_norm(w, 'patch_embed.norm', x)


def merge(w: Weights, stage: int, x: Tensor) -> Tensor:
    """Half the size and twice the channels, behind stage ``stage``."""
    x, name = pad(x, 2), f'layers.{stage}.downsample'
    x = cat([x[:, :, row::2, col::2] for row, col in ((0, 0), (1, 0), (0, 1), (1, 1))], dim=1)  # B 4C H/2 W/2
    return linear(w, f'{name}.reduction', layer_norm(w, f'{name}.norm', x))


def blocks(w: Weights, stage: int, x: Tensor, training: bool, window: int) -> Tensor:
    for i in range(count(w, f'layers.{stage}.blocks.')):
        name = f'layers.{stage}.blocks.{i}'
        height, width = x.shape[2:]
        x = x + mix(w, f'{name}.attn2conv', pad(x, window), training)[:, :, :height, :width]
        hidden = F.gelu(linear(w, f'{name}.mlp.fc1', batch_norm(w, f'{name}.bn', x, training)))
        x = x + linear(w, f'{name}.mlp.fc2', hidden)
    return x


def mix(w: Weights, name: str, x: Tensor, training: bool) -> Tensor:
    x = F.relu(batch_norm(w, f'{name}.bn0', F.conv2d(x, w[f'{name}.conv0.weight']), training))
    x = F.relu(batch_norm(w, f'{name}.bn', spatial(w, f'{name}.conv', x, training), training))
    return batch_norm(w, f'{name}.bn2', F.conv2d(x, w[f'{name}.conv2.weight']), training)


def spatial(w: Weights, name: str, x: Tensor, training: bool) -> Tensor:
    """The 7x7 operation itself, one of three kinds."""
    b, c, h, wd = x.shape
    if f'{name}.weight' in w:  # static
        return F.conv2d(x, w[f'{name}.weight'], w[f'{name}.bias'], padding=3, groups=c)
    if f'{name}.conv1.weight' in w:  # dynamic: one kernel per image and channel
        z = F.conv2d(x.mean((2, 3), keepdim=True), w[f'{name}.conv1.weight'])  # B C/4 1 1
        z = F.relu(batch_norm(w, f'{name}.bn', z, training))
        kernel = F.conv2d(z, w[f'{name}.conv2.weight'], w[f'{name}.conv2.bias'])  # B C*49 1 1
        y = F.conv2d(x.reshape(1, b * c, h, wd), kernel.reshape(b * c, 1, 7, 7), padding=3, groups=b * c)
        return y.reshape(b, c, h, wd) + w[f'{name}.bias'].reshape(1, c, 1, 1)
    # inhomogeneous: one kernel per image, position and group of neighbouring channels
    z = F.conv2d(x, w[f'{name}.conv1.0.weight'], w[f'{name}.conv1.0.bias'])
    z = F.relu(batch_norm(w, f'{name}.conv1.1', z, training))
    kernel = F.conv2d(z, w[f'{name}.conv2.0.weight'], w[f'{name}.conv2.0.bias'])  # B G*49 H W
    groups = kernel.shape[1] // 49
    neighbours = F.unfold(x, 7, padding=3).reshape(b, groups, c // groups, 49, h * wd)  # B C*49 HW -> B G C/G 49 HW
    return (neighbours * kernel.reshape(b, groups, 1, 49, h * wd)).sum(3).reshape(b, c, h, wd)


def batch_norm(w: Weights, name: str, x: Tensor, training: bool) -> Tensor:
    if training:
        w[f'{name}.num_batches_tracked'] += 1
    mean, var, weight, bias = (w[f'{name}.{key}'] for key in ('running_mean', 'running_var', 'weight', 'bias'))
    return F.batch_norm(x, mean, var, weight, bias, training, momentum=.1, eps=1e-5)


def layer_norm(w: Weights, name: str, x: Tensor) -> Tensor:
    y = F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2], w[f'{name}.weight'], w[f'{name}.bias'])  # B H W C
    return y.permute(0, 3, 1, 2)  # B C H W


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    """On the channels: the second dimension of (B, C) and (B, C, H, W) alike."""
    return F.linear(x.movedim(1, -1), w[f'{name}.weight'], w.get(f'{name}.bias')).movedim(-1, 1)  # B ... C and back


def pad(x: Tensor, multiple: int) -> Tensor:
    """Zeros at the right and the bottom, up to the next multiple."""
    return F.pad(x, (0, -x.shape[3] % multiple, 0, -x.shape[2] % multiple))


def count(w: Weights, prefix: str) -> int:
    """How many numbered parts follow a prefix."""
    return len({key[len(prefix):].split('.')[0] for key in w if key.startswith(prefix)})


def layout(model: str, task: str) -> dict[str, list[int]]:
    """Official keys and shapes, in the official order: of 'dwnet_tiny', say, for 'classification' or 'dense'.

    'nano' is the small network of the digits configs, for tests of files.
    """
    kind, size = model.split('dwnet_')
    width, depths = {'tiny': (96, (2, 2, 6, 2)), 'base': (128, (2, 2, 18, 2)), 'nano': (32, (1, 1, 2, 1))}[size]

    def layer(name: str, *shape: int) -> dict:
        return {f'{name}.weight': list(shape), f'{name}.bias': [shape[0]]}

    def bn(name: str, c: int) -> dict:
        return layer(name, c) | {f'{name}.running_mean': [c], f'{name}.running_var': [c],
                                 f'{name}.num_batches_tracked': []}

    def conv(name: str, c: int) -> dict:
        return {'': layer(name, c, 1, 7, 7),
                'dynamic_': {f'{name}.bias': [c], f'{name}.conv1.weight': [c // 4, c, 1, 1],
                             **bn(f'{name}.bn', c // 4), **layer(f'{name}.conv2', c * 49, c // 4, 1, 1)},
                'i_dynamic_': {**layer(f'{name}.conv1.0', c // 4, c, 1, 1), **bn(f'{name}.conv1.1', c // 4),
                               **layer(f'{name}.conv2.0', 32 * 49, c // 4, 1, 1)}}[kind]  # 32 groups in every stage

    shapes = layer('patch_embed.proj', width, 3, 4, 4) | layer('patch_embed.norm', width)
    channels = [width * 2 ** stage for stage in range(4)]
    for stage, (c, depth) in enumerate(zip(channels, depths)):
        for name in (f'layers.{stage}.blocks.{i}' for i in range(depth)):
            mixer = f'{name}.attn2conv'
            shapes |= {f'{mixer}.conv0.weight': [c, c, 1, 1], **bn(f'{mixer}.bn0', c), **conv(f'{mixer}.conv', c),
                       **bn(f'{mixer}.bn', c), f'{mixer}.conv2.weight': [c, c, 1, 1], **bn(f'{mixer}.bn2', c),
                       **layer(f'{name}.mlp.fc1', 4 * c, c), **layer(f'{name}.mlp.fc2', c, 4 * c),
                       **bn(f'{name}.bn', c)}
        if stage < 3:
            name = f'layers.{stage}.downsample'
            shapes |= {f'{name}.reduction.weight': [2 * c, 4 * c], **layer(f'{name}.norm', 4 * c)}
    if task == 'classification':
        return shapes | layer('norm', channels[-1]) | layer('head', 1000, channels[-1])
    if task != 'dense':
        raise ValueError(f"task '{task}' is neither 'classification' nor 'dense'")
    for stage, c in enumerate(channels):
        shapes |= bn(f'norm{stage}', c)
    return shapes
