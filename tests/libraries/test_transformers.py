"""DWNet in transformers: the backbone of its detectors and segmentors, and a classifier, through timm."""
import pytest
import torch

import dwnet  # noqa: F401  registers the timm models

transformers = pytest.importorskip('transformers', reason="needs pip install 'dwnet[libraries]'")


@pytest.fixture(scope='module')
def backbone():
    """The config of the backbone with random weights."""
    return lambda **more: transformers.TimmBackboneConfig(backbone='dwnet_tiny', use_pretrained_backbone=False, **more)


def first_gradient(model) -> torch.Tensor:
    return next(p for n, p in model.named_parameters() if n.endswith('patch_embed.proj.weight')).grad


def check_step(model, loss) -> None:
    loss.backward()
    gradient = first_gradient(model)
    assert loss.isfinite() and gradient.isfinite().all() and gradient.abs().sum() > 0


def test_upernet(backbone):
    config = transformers.UperNetConfig(backbone_config=backbone(out_indices=[0, 1, 2, 3]), hidden_size=32,
                                        num_labels=3, use_auxiliary_head=False)
    model = transformers.UperNetForSemanticSegmentation(config)
    out = model(torch.rand(2, 3, 64, 64), labels=torch.randint(0, 3, (2, 64, 64)))
    assert out.logits.shape == (2, 3, 64, 64)
    check_step(model, out.loss)


def test_mask2former(backbone):
    config = transformers.Mask2FormerConfig(
        backbone_config=backbone(out_indices=[0, 1, 2, 3]), feature_size=32, mask_feature_size=32, hidden_dim=32,
        encoder_feedforward_dim=32, encoder_layers=1, decoder_layers=2, num_attention_heads=4, dim_feedforward=32,
        num_queries=10, num_labels=3)
    model = transformers.Mask2FormerForUniversalSegmentation(config)
    masks = torch.zeros(2, 64, 64)
    masks[0, :32], masks[1, 32:] = 1, 1
    out = model(torch.rand(1, 3, 64, 64), mask_labels=[masks], class_labels=[torch.tensor([0, 2])])
    assert out.masks_queries_logits.shape == (1, 10, 16, 16)
    check_step(model, out.loss)


BOXES = [dict(class_labels=torch.tensor([1]), boxes=torch.tensor([[.5, .5, .4, .3]]))]


def test_detr(backbone):
    config = transformers.DetrConfig(
        backbone_config=backbone(out_indices=[3]), use_timm_backbone=False, backbone=None, d_model=32,
        encoder_layers=1, decoder_layers=1, encoder_ffn_dim=32, decoder_ffn_dim=32, encoder_attention_heads=4,
        decoder_attention_heads=4, num_queries=5, num_labels=3)
    model = transformers.DetrForObjectDetection(config)
    out = model(torch.rand(1, 3, 64, 64), labels=BOXES)
    assert out.pred_boxes.shape == (1, 5, 4) and out.logits.shape == (1, 5, 4)
    check_step(model, out.loss)


def test_rt_detr(backbone):
    config = transformers.RTDetrConfig(
        backbone_config=backbone(out_indices=[1, 2, 3]), encoder_in_channels=[192, 384, 768], encoder_hidden_dim=32,
        encoder_ffn_dim=32, encoder_attention_heads=4, d_model=32, decoder_in_channels=[32, 32, 32],
        decoder_ffn_dim=32, decoder_layers=1, decoder_attention_heads=4, num_queries=10, num_denoising=0, num_labels=3)
    model = transformers.RTDetrForObjectDetection(config)
    out = model(torch.rand(2, 3, 64, 64), labels=BOXES * 2)
    assert out.pred_boxes.shape == (2, 10, 4)
    check_step(model, out.loss)


def test_a_classifier_is_that_of_timm(tmp_path):
    """TimmWrapper, saved and read back: logits and weights are those of the timm model."""
    config = transformers.TimmWrapperConfig(architecture='dwnet_tiny', num_labels=4)
    model = transformers.TimmWrapperForImageClassification(config).eval()
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        logits = model(x).logits
        assert logits.shape == (2, 4) and torch.equal(logits, model.timm_model(x))
        model.save_pretrained(tmp_path)
        again = transformers.AutoModelForImageClassification.from_pretrained(tmp_path).eval()
        assert torch.equal(again(x).logits, logits)
    check_step(model, model(x, labels=torch.tensor([0, 3])).loss)
