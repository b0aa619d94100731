"""Operators that gather pixels: masked convolution, CARAFE's upsampling, PSA's attention masks."""
import torch
from torch import Tensor
from torch.nn import functional

from .deform import gradients_of
from .precision import wide


def masked_im2col_forward(im: Tensor, mask_h_idx: Tensor, mask_w_idx: Tensor, col: Tensor, kernel_h: int,
                          kernel_w: int, pad_h: int, pad_w: int) -> None:
    """Writes the neighbourhoods of M pixels of ``im``, (1, C, H, W), into ``col``, (C * kh * kw, M)."""
    padded = functional.pad(im[0], (pad_w, kernel_w - 1 - pad_w, pad_h, kernel_h - 1 - pad_h))
    rows = mask_h_idx[:, None] + torch.arange(kernel_h, device=im.device)
    columns = mask_w_idx[:, None] + torch.arange(kernel_w, device=im.device)
    patches = padded[:, rows[:, :, None], columns[:, None]]  # (C, M, kh, kw)
    col.copy_(patches.permute(0, 2, 3, 1).reshape(col.shape))


def masked_col2im_forward(col: Tensor, mask_h_idx: Tensor, mask_w_idx: Tensor, im: Tensor, height: int, width: int,
                          channels: int) -> None:
    """Writes the columns of ``col``, (C, M), to M pixels of ``im``, (1, C, H, W)."""
    im[0, :, mask_h_idx, mask_w_idx] = col.to(im.dtype)


def carafe_forward(features: Tensor, masks: Tensor, rfeatures: Tensor, routput: Tensor, rmasks: Tensor, output: Tensor,
                   kernel_size: int, group_size: int, scale_factor: int) -> None:
    """Upsamples ``features``, (B, C, H, W), into ``output``, (B, C, sH, sW) (arXiv:1905.02188).

    Each output pixel is a sum over a window of ``kernel_size`` around the input pixel that contains it, weighted by
    ``masks``, (B, group_size * kernel_size ** 2, sH, sW).
    """
    rfeatures.copy_(features)  # mmcv passes rfeatures to carafe_backward
    carafe_naive_forward(features, masks, output, kernel_size, group_size, scale_factor)


def carafe_backward(top_grad: Tensor, rfeatures: Tensor, masks: Tensor, rtop_grad: Tensor, rbottom_grad_hs: Tensor,
                    rbottom_grad: Tensor, rmask_grad: Tensor, bottom_grad: Tensor, mask_grad: Tensor,
                    kernel_size: int, group_size: int, scale_factor: int) -> None:
    """Writes the gradients of :func:`carafe_forward` into ``bottom_grad`` and ``mask_grad``."""
    carafe_naive_backward(top_grad, rfeatures, masks, bottom_grad, mask_grad, kernel_size, group_size, scale_factor)


def carafe_naive_forward(features: Tensor, masks: Tensor, output: Tensor, kernel_size: int, group_size: int,
                         scale_factor: int) -> None:
    """As :func:`carafe_forward`."""
    output.copy_(_reassemble(wide(features), wide(masks), kernel_size, group_size, scale_factor))


def carafe_naive_backward(top_grad: Tensor, features: Tensor, masks: Tensor, bottom_grad: Tensor, mask_grad: Tensor,
                          kernel_size: int, group_size: int, scale_factor: int) -> None:
    """As :func:`carafe_backward`."""
    gradients = gradients_of(lambda f, m: _reassemble(f, m, kernel_size, group_size, scale_factor), (features, masks),
                             top_grad)
    bottom_grad.copy_(gradients[0]), mask_grad.copy_(gradients[1])


def _reassemble(features: Tensor, masks: Tensor, kernel: int, groups: int, scale: int) -> Tensor:
    height, width = features.shape[2:]
    windows = functional.unfold(features, kernel, padding=kernel // 2)
    windows = windows.unflatten(1, (groups, -1, kernel**2)).unflatten(-1, (height, width))
    masks = masks.unflatten(1, (groups, -1)).unflatten(4, (width, scale)).unflatten(3, (height, scale))
    with torch.autocast(features.device.type, enabled=False):  # autocast would multiply in 16 bits
        summed = torch.einsum('bgckhw,bgkhswt->bgchswt', windows, masks)
    return summed.reshape(len(features), -1, height * scale, width * scale)


def psamask_forward(input: Tensor, output: Tensor, psa_type: int, num_: int, h_feature: int, w_feature: int,
                    h_mask: int, w_mask: int, half_h_mask: int, half_w_mask: int) -> None:
    """Spreads each pixel's mask, centred on the pixel, over the map (PSANet): ``output`` is (B, H * W, H, W).

    ``input`` is (B, h_mask * w_mask, H, W). ``psa_type`` 0, collect: the mask of pixel (h, w) goes to
    ``output[:, :, h, w]``; 1, distribute: to ``output[:, h * W + w]``.
    """
    place, inside = _mask_places(h_feature, w_feature, h_mask, w_mask, half_h_mask, half_w_mask, input.device)
    spread = input.unflatten(1, (h_mask, w_mask))[place].where(inside, 0)  # (B, H, W, h, w)
    spread = spread if psa_type == 0 else spread.permute(0, 3, 4, 1, 2)
    output.copy_(spread.reshape(output.shape))


def psamask_backward(grad_output: Tensor, grad_input: Tensor, psa_type: int, num_: int, h_feature: int, w_feature: int,
                     h_mask: int, w_mask: int, half_h_mask: int, half_w_mask: int) -> None:
    """Writes the gradient of :func:`psamask_forward` into ``grad_input``."""
    place, inside = _mask_places(h_feature, w_feature, h_mask, w_mask, half_h_mask, half_w_mask, grad_output.device)
    size = (h_feature, w_feature)
    spread = grad_output.reshape(-1, *size, *size)
    spread = spread if psa_type == 0 else spread.permute(0, 3, 4, 1, 2)
    gradient = torch.zeros_like(grad_input).unflatten(1, (h_mask, w_mask))
    batch = torch.arange(len(gradient), device=gradient.device)[:, None, None, None, None]
    gradient.index_put_((batch, *place[1:]), spread.where(inside, 0), accumulate=True)
    grad_input.copy_(gradient.flatten(1, 2))


def _mask_places(height: int, width: int, h_mask: int, w_mask: int, half_h: int, half_w: int,
                 device: torch.device) -> tuple[tuple, Tensor]:
    """Place of pixel (y, x) in the mask of pixel (h, w): an index of (B, h_mask, w_mask, h, w) that gives
    (B, y, x, h, w), and whether (y, x) lies inside the mask."""
    y, x, h, w = torch.meshgrid(*(torch.arange(n, device=device) for n in (height, width, height, width)),
                                indexing='ij', )
    row, column = y - h + half_h, x - w + half_w
    inside = (row >= 0) & (row < h_mask) & (column >= 0) & (column < w_mask)
    return (slice(None), row.clamp(0, h_mask - 1), column.clamp(0, w_mask - 1), h, w), inside
