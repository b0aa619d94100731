"""Deformable attention and the pixel decoder of Mask2Former for graphs, in the place of mmcv's and mmdet's modules.

Those keep the sizes of the maps in a tensor, whose values a graph cannot have as sizes. These take them as numbers.
"""
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmcv.ops import MultiScaleDeformableAttention
from mmdet.models.layers import MSDeformAttnPixelDecoder
from torch import Tensor, nn


class DeformableAttention(nn.Module):
    """What mmcv's ``MultiScaleDeformableAttention`` computes in inference, with its weights."""

    def __init__(self, attention: MultiScaleDeformableAttention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, query: Tensor, key: Tensor | None = None, value: Tensor | None = None,
                identity: Tensor | None = None, query_pos: Tensor | None = None,
                reference_points: Tensor | None = None, spatial_shapes: Sequence[tuple[int, int]] = (),
                **kwargs) -> Tensor:
        """(B, N, C) → (B, N, C), or (N, B, C) if the attention is not ``batch_first``.

        Args:
            query: (B, N, C).
            key: Is not used, as in mmcv.
            value: (B, cells of all maps, C); ``query`` by default.
            identity: What is added to the output; ``query`` by default.
            query_pos: Is added to ``query``.
            reference_points: (B, N, maps, 2 or 4), x and y and perhaps width and height, 0 to 1.
            spatial_shapes: Height and width of each map.
            **kwargs: Masks, which images of one size have not, and what else mmcv takes.
        """
        part = self.attention
        value = query if value is None else value
        identity = query if identity is None else identity
        query = query if query_pos is None else query + query_pos
        if not part.batch_first:
            query, value = query.transpose(0, 1), value.transpose(0, 1)
        batch, number, _ = query.shape
        shape = (batch, number, part.num_heads, part.num_levels, part.num_points)
        offsets = part.sampling_offsets(query).view(*shape, 2)
        weights = part.attention_weights(query).view(*shape[:3], -1).softmax(-1)
        # (B, N, 1, maps, 1, 2)
        points, sides = (reference_points[:, :, None, :, None, i:i + 2] for i in (0, 2))
        if reference_points.shape[-1] == 2:
            sizes = torch.stack([_width_and_height(*size) for size in spatial_shapes])
            places = points + offsets / sizes.to(offsets)[:, None]
        else:
            places = points + offsets / part.num_points * sides * .5
        values = part.value_proj(value).view(batch, -1, part.num_heads, part.value_proj.out_features // part.num_heads)
        output = part.output_proj(_sample(values, spatial_shapes, places, weights))
        return (output if part.batch_first else output.transpose(0, 1)) + identity


class PixelDecoder(nn.Module):
    """What mmdet's ``MSDeformAttnPixelDecoder`` computes in inference, with its weights."""

    def __init__(self, decoder: MSDeformAttnPixelDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, feats: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The backbone's maps, each (B, C, h, w), to the map of mask features, and the maps for the queries."""
        part = self.decoder
        levels = list(range(part.num_input_levels))[:-part.num_encoder_levels - 1:-1]  # of the smallest map first
        sizes = [tuple(feats[level].shape[2:]) for level in levels]
        queries, positions, points = [], [], []
        for i, level in enumerate(levels):
            query = part.input_convs[i](feats[level])
            position = part.postional_encoding(None, input=query) + part.level_encoding.weight[i].view(1, -1, 1, 1)
            grid = part.point_generator.single_level_grid_priors(sizes[i], level, device=query.device)
            queries.append(query.flatten(2).transpose(1, 2))
            positions.append(position.flatten(2).transpose(1, 2))
            points.append(grid / (_width_and_height(*sizes[i]).to(grid) * part.strides[level]))
        points = torch.cat(points)[None, :, None].repeat(len(feats[0]), 1, len(levels), 1)
        memory = part.encoder(
            query=torch.cat(queries, 1), query_pos=torch.cat(positions, 1), key_padding_mask=None, spatial_shapes=sizes,
            reference_points=points, level_start_index=None, valid_ratios=None).transpose(1, 2)
        maps = [level.unflatten(2, size) for level, size in zip(memory.split([h * w for h, w in sizes], 2), sizes)]
        for i, level in enumerate(range(part.num_input_levels - part.num_encoder_levels - 1, -1, -1)):
            lateral = part.lateral_convs[i](feats[level])
            above = F.interpolate(maps[-1], lateral.shape[2:], mode='bilinear', align_corners=False)
            maps.append(part.output_convs[i](lateral + above))
        return part.mask_feature(maps[-1]), maps[:part.num_outs]


def replace_deformable(model: nn.Module) -> None:
    """Puts this module's parts in the place of mmcv's and mmdet's in ``model``."""
    kinds = {MultiScaleDeformableAttention: DeformableAttention, MSDeformAttnPixelDecoder: PixelDecoder}
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) in kinds:
                setattr(module, name, kinds[type(child)](child))


def _width_and_height(height: int, width: int) -> Tensor:
    """(2,), of numbers that a graph keeps as symbols."""
    return torch.stack([torch.scalar_tensor(side) for side in (width, height)])


def _sample(values: Tensor, shapes: Sequence[tuple[int, int]], places: Tensor, weights: Tensor) -> Tensor:
    """The weighted mean of each head's values at its places.

    Args:
        values: (B, cells of all maps, heads, c).
        shapes: Height and width of each map.
        places: (B, N, heads, maps, points, 2), x and y, 0 to 1.
        weights: (B, N, heads, maps · points).

    Returns:
        (B, N, heads · c).
    """
    batch, number, heads, _, points, _ = places.shape
    grids = (2 * places - 1).permute(3, 0, 2, 1, 4, 5).flatten(1, 2)  # (maps, B · heads, N, points, 2)
    values = values.permute(0, 2, 3, 1).flatten(0, 1)  # (B · heads, c, cells)
    sampled = [F.grid_sample(part.unflatten(2, (height, width)), grid, align_corners=False)
               for part, (height, width), grid in zip(values.split([h * w for h, w in shapes], 2), shapes, grids)]
    weights = weights.transpose(1, 2).reshape(batch * heads, 1, number, -1)
    mean = (torch.cat(sampled, 3) * weights).sum(3)  # (B · heads, c, N)
    return mean.unflatten(0, (batch, heads)).permute(0, 3, 1, 2).flatten(2)
