"""Triton kernels of the depth-wise convolutions, for GPUs; imported only where Triton is installed.

Source of the operators: "Demystifying Local Vision Transformer", Han et al., ICLR 2022, arXiv 2106.04263.
All kernels have stride 1, a padding of k//2 zeros and sums in float32.

**Static and dynamic kernels.** A 7×7 depth-wise convolution does 49 multiplications for each value that it reads, so
at half precision it is bound by arithmetic, not by memory, and every other instruction counts. Hence each lane slides
down a strip of COLS columns of a map. The lane holds the k² weights and the sums of k unfinished rows of outputs in
registers. Each row of the map is loaded once and added to k rows of outputs; then the oldest row of outputs is
complete and stored. Lanes run over channels (channels-last) or over neighbouring strips (contiguous), whichever are
adjacent in memory. The gradient of the input is the same with the kernel turned by 180°. For the gradient of the
weight a lane holds the k² sums and the last k rows of ``grad_y``; each program writes its sums to a place of its own,
and a final step adds them up. No atomics are used, and the partition depends on the shapes alone, so the result is the
same in every run. Kernels larger than 7 would not fit into the registers, so they use one row of weights at a time.

**Inhomogeneous kernels.** Each weight is used by C/G channels only, so reading the weights takes most of the time.
A program owns a row of positions × groups × channels of a group, and walks through the k² taps.

Sizes of maps and batches are run-time values. A new size of channels-last maps compiles nothing; contiguous maps
compile a handful of variants, for strides that are multiples of 16 and for widths in powers of two.
"""
import contextlib
import operator

import torch
import triton
import triton.language as tl
from torch import Tensor

from .torch_forms import empty_like

INTERPRETED = triton.knobs.runtime.interpret
ROLLING = tl.constexpr(7)  # the largest kernel whose k² weights are held in registers at once
THREADS = 128  # threads of a program: 4 warps
PROGRAMS = 528  # programs that sum the gradient of the weight: 4 on each multiprocessor of a large GPU


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def _rows_at_once(size: int) -> int:
    """Rows of weights that a lane holds."""
    return size if size in range(ROLLING.value + 1) else 1


# ---------------------------------------------------------------------------------------------------
# A row of values is a tuple of (BLOCK_P, BLOCK_C) blocks, since registers cannot be indexed at run time
# ---------------------------------------------------------------------------------------------------
@triton.jit
def _load_row(ptrs, col, width, mask, stride_w, N: tl.constexpr):
    """Loads N neighbouring columns; columns outside the map are zero."""
    row = ()
    for j in tl.static_range(N):
        inside = mask & (col + j >= 0) & (col + j < width)
        row = row + (tl.load(ptrs + j * stride_w, mask=inside, other=0), )
    return row


@triton.jit
def _store_row(row, ptrs, col, width, mask, stride_w, N: tl.constexpr, RELU: tl.constexpr):
    for j in tl.static_range(N):
        value = row[j]
        if RELU:
            value = tl.where(value < 0, 0., value)  # NaN stays NaN
        tl.store(ptrs + j * stride_w, value.to(ptrs.dtype.element_ty), mask=mask & (col + j < width))


@triton.jit
def _to_float(row, N: tl.constexpr):
    floats = ()
    for j in tl.static_range(N):
        floats = floats + (row[j].to(tl.float32), )
    return floats


@triton.jit
def _correlate(sums, factors, x, N: tl.constexpr, M: tl.constexpr, SKIP: tl.constexpr):
    """``sums[n] + Σ factors[m] · x[n + m]`` for N sums and M factors; x lacks SKIP zeros at both ends."""
    done = ()
    for n in tl.static_range(N):
        value = sums[n]
        for m in tl.static_range(M):
            if n + m >= SKIP and n + m < N + M - 1 - SKIP:
                value += factors[m] * x[n + m - SKIP]
        done = done + (value, )
    return done


@triton.jit
def _add(a, b):
    return a + b


# ---------------------------------------------------------------------------------------------------
# One kernel for all images (static), or one for each image (dynamic)
# ---------------------------------------------------------------------------------------------------
def _tile(channels: int, strips: int, channels_last: bool, lane_channels: int = 1) -> tuple[int, int]:
    """Number of neighbouring strips and of channels of a program, both powers of two.

    Channels-last: 32 channels or a multiple (64 bytes at half precision); the remaining lanes take neighbouring
    strips, which share their margins in the cache. Contiguous: all lanes take strips.
    """
    lanes, all_channels = THREADS * lane_channels, triton.next_power_of_2(channels)
    block_c = 1
    if channels_last:  # a divisor of the channels, so that no lane idles
        block_c = min(all_channels, max(32, min(32 * lane_channels, channels & -channels)))
    block_p = min(lanes // block_c, triton.next_power_of_2(strips))
    return block_p, min(lanes // block_p, all_channels)


# most_rows and COLS: rows and columns of a strip. LANE: channels of a lane, loaded together.
_CONFIGS = [
    triton.Config(dict(most_rows=most_rows, COLS=cols, LANE=lane), num_warps=THREADS // 32)
    for most_rows in (28, 64) for cols, lane in ((7, 1), (4, 1), (4, 2), (7, 2), (4, 4), (2, 8))
]


def _suited_configs(configs: list[triton.Config], args: dict, K: int, CHANNELS_LAST: bool, **_) -> list[triton.Config]:
    """The configs that suit the layout and the height and leave some of a lane's 255 registers for addresses."""
    held = _rows_at_once(K)

    def suits(most_rows: int, COLS: int, LANE: int) -> bool:
        values = held * K + max(held - 1, 1) * COLS + COLS + K - 1
        return LANE * values <= 210 and (LANE == 1 or CHANNELS_LAST) and (most_rows == 28 or args['height'] > 28)

    return [config for config in configs if suits(**config.kwargs)]


def _tile_of(args: dict) -> tuple[int, int]:
    return _tile(args['channels'], args['batch'] * _ceil_div(args['width'], args['COLS']), args['CHANNELS_LAST'],
                 args['LANE'])


@triton.autotune(
    _CONFIGS[:1] if INTERPRETED else _CONFIGS, key=['channels', 'size_class', 'K', 'CHANNELS_LAST', 'PER_IMAGE'],
    prune_configs_by=dict(early_config_prune=_suited_configs), cache_results=True)
@triton.heuristics(dict(
    BLOCK_P=lambda args: _tile_of(args)[0],
    BLOCK_C=lambda args: _tile_of(args)[1],
    FITS=lambda args: args['width'] <= args['COLS']))
@triton.jit(do_not_specialize=['batch', 'height', 'width', 'size_class', 'most_rows'])
def _forward_kernel(
        x_ptr, x_stride_b, x_stride_c, x_stride_h, x_stride_w,
        w_ptr, w_stride_b, w_stride_c, w_stride_u, w_stride_v, bias_ptr,
        y_ptr, y_stride_b, y_stride_c, y_stride_h, y_stride_w,
        batch, channels, height, width, size_class, most_rows,
        K: tl.constexpr, FLIP: tl.constexpr, PER_IMAGE: tl.constexpr, RELU: tl.constexpr,
        CHANNELS_LAST: tl.constexpr, COLS: tl.constexpr, LANE: tl.constexpr,
        BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, FITS: tl.constexpr):
    """y[i, j] = bias + Σ w[u, v] · x[i + u - K//2, j + v - K//2], the strips' rows from top to bottom."""
    # Program → channels (the fastest), part of the height, strips side by side through all images.
    pid = tl.program_id(0)
    c_blocks = (channels + BLOCK_C - 1) // BLOCK_C
    parts = (height + most_rows - 1) // most_rows
    rows = (height + parts - 1) // parts
    strips = (width + COLS - 1) // COLS
    c = pid % c_blocks * BLOCK_C + tl.arange(0, BLOCK_C)[None, :]  # (1, BLOCK_C)
    first = pid // c_blocks % parts * rows
    last = tl.minimum(first + rows, height)
    p = pid // c_blocks // parts * BLOCK_P + tl.arange(0, BLOCK_P)[:, None]  # (BLOCK_P, 1)
    image = (p // strips).to(tl.int64)
    col = p % strips * COLS
    mask = (image < batch) & (c < channels)  # (BLOCK_P, BLOCK_C)

    R: tl.constexpr = K // 2
    SKIP: tl.constexpr = R if FITS else 0  # if a strip spans the map, its margins are zeros
    N: tl.constexpr = COLS + K - 1 - 2 * SKIP
    x_stride_h = tl.cast(x_stride_h, tl.int64)
    x_stride_w = tl.cast(x_stride_w, tl.int64)
    y_stride_h = tl.cast(y_stride_h, tl.int64)
    y_stride_w = tl.cast(y_stride_w, tl.int64)
    x_col = col - R + SKIP
    x_ptrs = x_ptr + image * x_stride_b + x_col * x_stride_w + c * tl.cast(x_stride_c, tl.int64)
    y_ptrs = y_ptr + image * y_stride_b + col * y_stride_w + c * tl.cast(y_stride_c, tl.int64)
    w_ptrs = w_ptr + c * tl.cast(w_stride_c, tl.int64)
    w_mask = c < channels
    if PER_IMAGE:
        w_ptrs += image * w_stride_b
        w_mask = mask
    if FLIP:
        w_ptrs += (K - 1) * (w_stride_u + w_stride_v)
        w_stride_u = -w_stride_u
        w_stride_v = -w_stride_v
    start = tl.full((BLOCK_P, BLOCK_C), 0, tl.float32)
    if bias_ptr is not None:
        start += tl.load(bias_ptr + c, mask=c < channels, other=0).to(tl.float32)

    if K > ROLLING:
        for i in range(first, last):
            sums = (start, ) * COLS
            for u in range(tl.maximum(R - i, 0), tl.minimum(K, height + R - i)):
                taps = _to_float(_load_row(w_ptrs + u * w_stride_u, 0, K, w_mask, w_stride_v, K), K)
                x = _to_float(_load_row(x_ptrs + (i + u - R) * x_stride_h, x_col, width, mask, x_stride_w, N), N)
                sums = _correlate(sums, taps, x, COLS, K, SKIP)
            _store_row(sums, y_ptrs + i * y_stride_h, col, width, mask, y_stride_w, COLS, RELU)
    else:
        taps = ()
        for u in tl.static_range(K):
            taps += _to_float(_load_row(w_ptrs + u * w_stride_u, 0, K, w_mask, w_stride_v, K), K)
        # Row i of x, times row u of the kernel, is added to row i + R - u of y. K - 1 rows of y are unfinished.
        sums = (start, ) * ((K - 1) * COLS)
        begin = tl.maximum(first - R, 0)
        end = tl.minimum(last + R, height)
        next_x = _load_row(x_ptrs + begin * x_stride_h, x_col, width, mask, x_stride_w, N)
        for i in range(begin, end):
            x = _to_float(next_x, N)
            next_x = _load_row(x_ptrs + (i + 1) * x_stride_h, x_col, width, mask & (i + 1 < end), x_stride_w, N)
            sums = (start, ) * COLS + sums
            updated = ()
            for t in tl.static_range(K):  # oldest row first: the next row can reuse the registers
                updated = _correlate(sums[(K - 1 - t) * COLS:(K - t) * COLS], taps[(K - 1 - t) * K:(K - t) * K], x,
                                     COLS, K, SKIP) + updated
            sums = updated[:(K - 1) * COLS]
            _store_row(updated[(K - 1) * COLS:], y_ptrs + (i - R) * y_stride_h, col, width,
                       mask & (i - R >= first), y_stride_w, COLS, RELU)
        for t in tl.static_range(R):  # the last R rows of outputs
            i = end - R + t
            _store_row(sums[(2 * R - 1 - t) * COLS:(2 * R - t) * COLS], y_ptrs + i * y_stride_h, col, width,
                       mask & (i >= first) & (i < last), y_stride_w, COLS, RELU)


@triton.jit(do_not_specialize=['images', 'height', 'width', 'most_rows', 'chunks', 'units'])
def _weight_kernel(
        g_ptr, g_stride_b, g_stride_c, g_stride_h, g_stride_w,
        x_ptr, x_stride_b, x_stride_c, x_stride_h, x_stride_w, out_ptr,
        images, channels, height, width, most_rows, chunks, units,
        K: tl.constexpr, COLS: tl.constexpr,
        BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, FITS: tl.constexpr):
    """out[n, chunk, c, u, v] = Σ g[i, j] · x[i + u - K//2, j + v - K//2] over a chunk of the images of set n."""
    # Program → channels (the fastest), chunk, row of the kernel (for K > ROLLING), set of images.
    U: tl.constexpr = K if K <= ROLLING else 1  # rows of the kernel at once
    pid = tl.program_id(0)
    c_blocks = (channels + BLOCK_C - 1) // BLOCK_C
    c = pid % c_blocks * BLOCK_C + tl.arange(0, BLOCK_C)[None, :]
    chunk = pid // c_blocks % chunks
    first_u = pid // c_blocks // chunks % (K // U)
    n = (pid // c_blocks // chunks // (K // U)).to(tl.int64)
    parts = (height + most_rows - 1) // most_rows
    rows = (height + parts - 1) // parts
    strips = (width + COLS - 1) // COLS

    R: tl.constexpr = K // 2
    SKIP: tl.constexpr = R if FITS else 0
    N: tl.constexpr = COLS + K - 1 - 2 * SKIP
    g_stride_h = tl.cast(g_stride_h, tl.int64)
    g_stride_w = tl.cast(g_stride_w, tl.int64)
    x_stride_h = tl.cast(x_stride_h, tl.int64)
    x_stride_w = tl.cast(x_stride_w, tl.int64)
    zero = tl.full((BLOCK_P, BLOCK_C), 0, tl.float32)
    sums = (zero, ) * (U * K)
    for unit in range(chunk * units, (chunk + 1) * units):  # a unit: part of the height of BLOCK_P strips
        first = unit % parts * rows
        last = tl.minimum(first + rows, height)
        p = unit // parts * BLOCK_P + tl.arange(0, BLOCK_P)[:, None]
        image = n * images + p // strips
        col = p % strips * COLS
        x_col = col - R + SKIP
        mask = (p < images * strips) & (c < channels)
        g_ptrs = g_ptr + image * g_stride_b + col * g_stride_w + c * tl.cast(g_stride_c, tl.int64)
        x_ptrs = x_ptr + image * x_stride_b + x_col * x_stride_w + c * tl.cast(x_stride_c, tl.int64)
        # Row i of x, for row u of the kernel, is multiplied by row i + R - u of g. The last U - 1 rows of g are held.
        begin = tl.maximum(first - R + first_u, 0)
        end = tl.minimum(last - R + first_u + U - 1, height)
        held = (zero, ) * ((U - 1) * COLS)
        for i in range(first, begin + R - first_u):
            g = _to_float(_load_row(g_ptrs + i * g_stride_h, col, width, mask & (i < last), g_stride_w, COLS), COLS)
            held = (g + held)[:(U - 1) * COLS]
        for i in range(begin, end):
            x = _to_float(_load_row(x_ptrs + i * x_stride_h, x_col, width, mask, x_stride_w, N), N)
            new = i + R - first_u
            g = _to_float(_load_row(g_ptrs + new * g_stride_h, col, width, mask & (new < last), g_stride_w, COLS), COLS)
            g += held
            updated = ()
            for u in tl.static_range(U):
                updated += _correlate(sums[u * K:(u + 1) * K], g[u * COLS:(u + 1) * COLS], x, K, COLS, SKIP)
            sums = updated
            held = g[:(U - 1) * COLS]

    out_ptrs = out_ptr + ((n * chunks + chunk) * channels + c) * (K * K) + first_u * K
    for t in tl.static_range(U * K):
        total = tl.reduce(sums[t], 0, _add, keep_dims=True)  # (1, BLOCK_C)
        tl.store(out_ptrs + t, total, mask=c < channels)


def _is_channels_last(x: Tensor) -> bool:
    """Whether channels are adjacent in memory, also for slices; False for maps that are contiguous as well."""
    return x.stride(1) == 1 and not x.is_contiguous()


def _on_device_of(x: Tensor):
    """Makes the device of ``x`` current: Triton launches on the current device."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool, flip: bool) -> Tensor:
    batch, channels, height, width = x.shape
    y, channels_last = empty_like(x), _is_channels_last(x)
    if not y.numel():
        return y
    if channels_last:  # copy the few weights so that neighbouring lanes read adjacent weights
        weight = weight.contiguous(memory_format=torch.channels_last)

    def grid(args: dict) -> tuple[int]:
        parts = _ceil_div(height, operator.index(args['most_rows']))  # the interpreter hands over a tensor
        strips = batch * _ceil_div(width, args['COLS'])
        return (_ceil_div(channels, args['BLOCK_C']) * parts * _ceil_div(strips, args['BLOCK_P']), )

    with _on_device_of(x):
        _forward_kernel[grid](
            x, *x.stride(), weight, *weight.stride(), bias, y, *y.stride(), batch, channels, height, width,
            triton.next_power_of_2(batch * height * width), K=weight.shape[-1], FLIP=flip,
            PER_IMAGE=weight.shape[0] > 1, RELU=relu, CHANNELS_LAST=channels_last)
    return y


def depthwise_forward(x: Tensor, weight: Tensor, bias: Tensor | None = None, relu: bool = False) -> Tensor:
    """Depth-wise convolution with static or dynamic kernels.

    Args:
        x: Maps, (B, C, H, W), of any strides; float16, bfloat16 or float32.
        weight: (1, C, k, k), the same kernels for all images, or (B, C, k, k), k odd; of any strides.
        bias: (C,), contiguous, or None.
        relu: Apply ReLU to the output.

    Returns:
        (B, C, H, W) of the dtype of ``x``, channels-last if ``x`` is, otherwise contiguous.
    """
    return _convolve(x, weight, bias, relu, flip=False)


def depthwise_backward_input(grad_y: Tensor, weight: Tensor) -> Tensor:
    """Gradient of ``depthwise_forward`` with regard to ``x``.

    Args:
        grad_y: Gradient of the output, (B, C, H, W), of any strides.
        weight: As in ``depthwise_forward``, (1, C, k, k) or (B, C, k, k).

    Returns:
        (B, C, H, W) of the dtype and memory format of ``grad_y``.
    """
    return _convolve(grad_y, weight, None, relu=False, flip=True)


def depthwise_backward_weight(grad_y: Tensor, x: Tensor, size: int, per_image: bool) -> Tensor:
    """Gradient of ``depthwise_forward`` with regard to ``weight``; bitwise the same in every run.

    Args:
        grad_y: Gradient of the output, (B, C, H, W), of any strides.
        x: Input of the forward pass, (B, C, H, W), of any strides.
        size: k, odd.
        per_image: Whether the kernels are dynamic.

    Returns:
        (B, C, k, k) if ``per_image``, otherwise (1, C, k, k), contiguous; always float32.
    """
    batch, channels, height, width = x.shape
    sets = batch if per_image else 1
    if not x.numel():
        return torch.zeros((sets, channels, size, size), dtype=torch.float32, device=x.device)
    channels_last = _is_channels_last(x)
    if _is_channels_last(grad_y) != channels_last:  # lanes can follow only one memory order
        grad_y = grad_y.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    most_rows, cols = 28, 7 if channels_last else 4  # no autotuning: the order of the sums stays fixed
    strips = batch // sets * _ceil_div(width, cols)
    block_p, block_c = _tile(channels, strips, channels_last)
    programs = sets * _ceil_div(channels, block_c) * (size // _rows_at_once(size))  # programs of a chunk
    units = _ceil_div(strips, block_p) * _ceil_div(height, most_rows)
    units_of_chunk = _ceil_div(units, _ceil_div(PROGRAMS, programs))
    chunks = _ceil_div(units, units_of_chunk)
    out = torch.empty((sets, chunks, channels, size, size), dtype=torch.float32, device=x.device)
    with _on_device_of(x):
        _weight_kernel[(programs * chunks, )](
            grad_y, *grad_y.stride(), x, *x.stride(), out, batch // sets, channels, height, width, most_rows,
            chunks, units_of_chunk, K=size, COLS=cols, BLOCK_P=block_p, BLOCK_C=block_c, FITS=width <= cols,
            num_warps=THREADS // 32)
    return out.sum(1)


# ---------------------------------------------------------------------------------------------------
# A kernel for each position (inhomogeneous)
# ---------------------------------------------------------------------------------------------------
@triton.jit
def _place(height, width, groups, BLOCK_W: tl.constexpr, BLOCK_G: tl.constexpr, BLOCK_M: tl.constexpr):
    """Maps a program to groups (the fastest), columns, row and image; and numbers the channels in a group."""
    pid = tl.program_id(0)
    g_blocks = (groups + BLOCK_G - 1) // BLOCK_G
    w_blocks = (width + BLOCK_W - 1) // BLOCK_W
    g = pid % g_blocks * BLOCK_G + tl.arange(0, BLOCK_G)[None, :, None]
    col = pid // g_blocks % w_blocks * BLOCK_W + tl.arange(0, BLOCK_W)[:, None, None]
    row = pid // g_blocks // w_blocks % height
    image = pid // g_blocks // w_blocks // height
    return image.to(tl.int64), row.to(tl.int64), col.to(tl.int64), g.to(tl.int64), tl.arange(0, BLOCK_M)[None, None, :]


@triton.jit(do_not_specialize=['height', 'width'])
def _inhomogeneous_kernel(
        x_ptr, x_stride_b, x_stride_c, x_stride_h, x_stride_w,
        w_ptr, w_stride_b, w_stride_g, w_stride_u, w_stride_v, w_stride_h, w_stride_w,
        y_ptr, y_stride_b, y_stride_c, y_stride_h, y_stride_w, groups, height, width,
        K: tl.constexpr, M: tl.constexpr, TRANSPOSED: tl.constexpr,
        BLOCK_W: tl.constexpr, BLOCK_G: tl.constexpr, BLOCK_M: tl.constexpr):
    """y[i, j] = Σ w[u, v, i, j] · x[i + u - K//2, j + v - K//2] for the M channels of each group.

    TRANSPOSED: y[i, j] = Σ w[u, v, p, q] · x[p, q] with p = i + K//2 - u, q = j + K//2 - v.
    """
    image, row, col, g, m = _place(height, width, groups, BLOCK_W, BLOCK_G, BLOCK_M)
    here = (col < width) & (g < groups)  # (BLOCK_W, BLOCK_G, 1)
    c = g * M + m
    x_ptrs = x_ptr + image * x_stride_b + c * x_stride_c
    w_ptrs = w_ptr + image * w_stride_b + g * w_stride_g
    sums = tl.full((BLOCK_W, BLOCK_G, BLOCK_M), 0, tl.float32)
    for u in range(K):
        p = row + (K // 2 - u if TRANSPOSED else u - K // 2)
        for v in tl.static_range(K):
            q = col + (K // 2 - v if TRANSPOSED else v - K // 2)
            mask = here & (p >= 0) & (p < height) & (q >= 0) & (q < width)
            x = tl.load(x_ptrs + p * x_stride_h + q * x_stride_w, mask=mask & (m < M), other=0)
            w = tl.load(w_ptrs + u * tl.cast(w_stride_u, tl.int64) + v * tl.cast(w_stride_v, tl.int64)
                        + (p if TRANSPOSED else row) * w_stride_h + (q if TRANSPOSED else col) * w_stride_w,
                        mask=mask, other=0)
            sums += w.to(tl.float32) * x.to(tl.float32)
    tl.store(y_ptr + image * y_stride_b + c * y_stride_c + row * y_stride_h + col * y_stride_w,
             sums.to(y_ptr.dtype.element_ty), mask=here & (m < M))


@triton.jit(do_not_specialize=['height', 'width'])
def _inhomogeneous_weight_kernel(
        g_ptr, g_stride_b, g_stride_c, g_stride_h, g_stride_w,
        x_ptr, x_stride_b, x_stride_c, x_stride_h, x_stride_w,
        out_ptr, out_stride_b, out_stride_g, out_stride_u, out_stride_v, out_stride_h, out_stride_w,
        groups, height, width, K: tl.constexpr, M: tl.constexpr,
        BLOCK_W: tl.constexpr, BLOCK_G: tl.constexpr, BLOCK_M: tl.constexpr):
    """out[u, v, i, j] = Σ g[i, j] · x[i + u - K//2, j + v - K//2] over the M channels of each group."""
    image, row, col, group, m = _place(height, width, groups, BLOCK_W, BLOCK_G, BLOCK_M)
    here = (col < width) & (group < groups)  # (BLOCK_W, BLOCK_G, 1)
    c = group * M + m
    g = tl.load(g_ptr + image * g_stride_b + c * g_stride_c + row * g_stride_h + col * g_stride_w,
                mask=here & (m < M), other=0).to(tl.float32)
    x_ptrs = x_ptr + image * x_stride_b + c * x_stride_c
    out_ptrs = out_ptr + image * out_stride_b + group * out_stride_g + row * out_stride_h + col * out_stride_w
    for u in range(K):
        p = row + u - K // 2
        for v in tl.static_range(K):
            q = col + v - K // 2
            mask = here & (p >= 0) & (p < height) & (q >= 0) & (q < width)
            x = tl.load(x_ptrs + p * x_stride_h + q * x_stride_w, mask=mask & (m < M), other=0)
            total = tl.reduce(g * x.to(tl.float32), 2, _add, keep_dims=True)
            tl.store(out_ptrs + u * tl.cast(out_stride_u, tl.int64) + v * tl.cast(out_stride_v, tl.int64),
                     total.to(out_ptr.dtype.element_ty), mask=here)


def _inhomogeneous_launch(x: Tensor, groups: int) -> tuple[tuple[int], dict[str, int]]:
    """The grid and the tile: all channels of a group, up to 4 values a lane; few tile widths, so few compilations."""
    batch, channels, height, width = x.shape
    power = triton.next_power_of_2
    block_m = power(channels // groups)
    if _is_channels_last(x):  # lanes run over the channels
        block_g = min(power(groups), max(1, THREADS // block_m))
        block_w = min(power(width), max(1, 4 * THREADS // (block_m * block_g)), 16)
    else:  # over the columns
        block_w = min(power(width), max(1, 16 * THREADS // block_m), 64)
        block_g = min(power(groups), max(1, 4 * THREADS // (block_w * block_m)))
    grid = (batch * height * _ceil_div(width, block_w) * _ceil_div(groups, block_g), )
    return grid, dict(M=channels // groups, BLOCK_W=block_w, BLOCK_G=block_g, BLOCK_M=block_m, num_warps=THREADS // 32)


def _inhomogeneous(x: Tensor, weight: Tensor, transposed: bool) -> Tensor:
    y, groups = empty_like(x), weight.shape[1]
    if y.numel():
        grid, tile = _inhomogeneous_launch(x, groups)
        with _on_device_of(x):
            _inhomogeneous_kernel[grid](x, *x.stride(), weight, *weight.stride(), y, *y.stride(), groups, *x.shape[2:],
                                        K=weight.shape[2], TRANSPOSED=transposed, **tile)
    return y


def inhomogeneous_forward(x: Tensor, weight: Tensor) -> Tensor:
    """Depth-wise convolution with a kernel for each image, group of channels and position.

    Args:
        x: Maps, (B, C, H, W), of any strides; float16, bfloat16 or float32.
        weight: (B, G, k, k, H, W), k odd, C a multiple of G, of any strides. Channel c uses group
            c // (C/G). Fastest if groups (for channels-last ``x``) or columns are adjacent in memory.

    Returns:
        (B, C, H, W) of the dtype of ``x``, channels-last if ``x`` is, otherwise contiguous.
    """
    return _inhomogeneous(x, weight, transposed=False)


def inhomogeneous_backward_input(grad_y: Tensor, weight: Tensor) -> Tensor:
    """Gradient of ``inhomogeneous_forward`` with regard to ``x``.

    Args:
        grad_y: Gradient of the output, (B, C, H, W), of any strides.
        weight: As in ``inhomogeneous_forward``, (B, G, k, k, H, W).

    Returns:
        (B, C, H, W) of the dtype and memory format of ``grad_y``.
    """
    return _inhomogeneous(grad_y, weight, transposed=True)


def inhomogeneous_backward_weight(grad_y: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Gradient of ``inhomogeneous_forward`` with regard to ``weight``.

    Args:
        grad_y: Gradient of the output, (B, C, H, W), of any strides.
        x: Input of the forward pass, (B, C, H, W), of any strides.
        weight: As in ``inhomogeneous_forward``, (B, G, k, k, H, W); only its dtype and layout are read.

    Returns:
        (B, G, k, k, H, W) in the dtype of ``weight``, and in its memory order if ``weight`` is dense.
    """
    out, groups = torch.empty_like(weight), weight.shape[1]
    if x.numel():
        grid, tile = _inhomogeneous_launch(x, groups)
        with _on_device_of(x):
            _inhomogeneous_weight_kernel[grid](grad_y, *grad_y.stride(), x, *x.stride(), out, *out.stride(),
                                               groups, *x.shape[2:], K=weight.shape[2], **tile)
    return out
