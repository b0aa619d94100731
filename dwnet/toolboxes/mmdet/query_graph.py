"""A detector with queries as one graph, without NMS: DETR, Conditional DETR, DAB-DETR, Deformable DETR, DINO.

The layers are mmdet's. mmdet keeps the sizes of the maps in a tensor, whose values a graph cannot have as sizes; here
they are numbers, and images have no padding to be masked.
"""
from collections.abc import Sequence
from types import MethodType, SimpleNamespace

import torch
from mmdet.models.dense_heads import DDQDETRHead, DETRHead
from mmdet.models.detectors import DeformableDETR
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from torch import Tensor, nn

from dwnet.errors import UserError

from .deformable import replace_deformable
from .detector_graph import DetectorGraph, clip


class QueryDetector(DetectorGraph):
    """(1, C, H, W) → boxes (N, 4) as x1, y1, x2, y2 in pixels, scores (N,), labels (N,) of the N best queries."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        head = model.bbox_head
        single = '_predict_by_feat_single'
        if getattr(type(head), single, None) is not getattr(DETRHead, single) or isinstance(head, DDQDETRHead):
            raise UserError(f'{type(model).__name__} with a {type(head).__name__} cannot be exported: that head '
                            'has its own way from queries to boxes; the backbone alone can, by --backbone')
        if self.normalise.divisor > 1:
            raise UserError(f'{type(model).__name__} cannot be exported with pad_size_divisor='
                            f'{self.normalise.divisor}: set data_preprocessor.pad_size_divisor=1')
        replace_deformable(model)
        if isinstance(model, DeformableDETR):
            model.gen_encoder_output_proposals = MethodType(_propose, model)
            self.trial_scale = 2  # photographs have to have as many cells as there are queries

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        head, size = self.model.bbox_head, image.shape[2:]
        maps = self.model.extract_feat(self.normalise(image))
        logits, boxes = (outputs[-1][0] for outputs in head(**self._decode(maps, size)))  # of the last layer
        if head.loss_cls.use_sigmoid:
            scores, order = logits.sigmoid().flatten().topk(head.test_cfg.get('max_per_img', len(logits)))
            labels, query = order % head.num_classes, order // head.num_classes
        else:
            scores, labels = logits.softmax(-1)[:, :-1].max(-1)
            scores, query = scores.topk(head.test_cfg.get('max_per_img', len(logits)))
            labels = labels[query]
        height, width = (torch.scalar_tensor(length, dtype=boxes.dtype, device=boxes.device) for length in size)
        boxes = bbox_cxcywh_to_xyxy(boxes[query]) * torch.stack([width, height, width, height])
        return clip(boxes, size), scores, labels

    def _decode(self, maps: tuple[Tensor, ...], size: torch.Size) -> dict[str, Tensor]:
        """What mmdet's ``forward_transformer`` gives to the head."""
        model = self.model
        if isinstance(model, DeformableDETR):
            memory, decoder = _encode(model, maps)
        else:
            sample = SimpleNamespace(batch_input_shape=size, img_shape=size)
            encoder, decoder = model.pre_transformer(maps, [sample])
            memory = model.forward_encoder(**encoder)
        decoder_inputs, _ = model.pre_decoder(**memory)
        return model.forward_decoder(**(decoder | decoder_inputs))

    def find_more(self, model: nn.Module, photographs: list[Tensor]) -> None:
        """There is no threshold: the best queries are the output."""


def _encode(model: DeformableDETR, maps: tuple[Tensor, ...]) -> tuple[dict, dict]:
    """The encoder's output, as ``pre_decoder`` takes it, and what else ``forward_decoder`` takes."""
    sizes = [tuple(level.shape[2:]) for level in maps]
    query = torch.cat([level.flatten(2).transpose(1, 2) for level in maps], 1)
    positions = torch.cat([model.positional_encoding(None, input=level).flatten(2).transpose(1, 2) + embedding
                           for level, embedding in zip(maps, model.level_embed)], 1)
    points = torch.cat([_centres(*size).to(query) for size in sizes])[None, :, None].expand(-1, -1, len(maps), -1)
    shared = dict(spatial_shapes=sizes, level_start_index=None, valid_ratios=query.new_ones(1, len(maps), 2))
    for layer in model.encoder.layers:
        query = layer(query=query, query_pos=positions, key_padding_mask=None, reference_points=points, **shared)
    return dict(memory=query, memory_mask=None, spatial_shapes=sizes), dict(memory_mask=None, **shared)


def _propose(model: DeformableDETR, memory: Tensor, mask: None, sizes: Sequence[tuple[int, int]]
             ) -> tuple[Tensor, Tensor]:
    """mmdet's ``gen_encoder_output_proposals``: the memory, transformed, and a box around each cell, as logits."""
    boxes = torch.cat([torch.cat([centres, torch.full_like(centres, .05 * 2**level)], 1)
                       for level, centres in enumerate(_centres(*size).to(memory) for size in sizes)])[None]
    inside = ((boxes > .01) & (boxes < .99)).all(-1, keepdim=True)
    memory = model.memory_trans_norm(model.memory_trans_fc(memory.masked_fill(~inside, 0.)))
    return memory, torch.log(boxes / (1 - boxes)).masked_fill(~inside, torch.inf)


def _centres(height: int, width: int) -> Tensor:
    """The centres of a map's cells, (height · width, 2), x and y of 0 to 1."""
    x, y = ((torch.arange(length) + .5) / length for length in (width, height))
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)], 2).flatten(0, 1)
