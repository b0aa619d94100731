"""DWNet as an encoder of segmentation_models_pytorch, by its name in timm."""
import pytest
import torch

smp = pytest.importorskip('segmentation_models_pytorch', reason="needs pip install 'dwnet[libraries]'")

NAMES = ['Unet', 'UnetPlusPlus', 'MAnet', 'Linknet', 'FPN', 'PSPNet', 'PAN', 'DeepLabV3', 'DeepLabV3Plus', 'UPerNet',
         'Segformer', 'DPT']


@pytest.mark.parametrize('name', NAMES)
def test_each_architecture_trains(name):
    """Logits of the image's size; the loss's gradient reaches the first layer."""
    torch.manual_seed(0)
    model = smp.create_model(name, encoder_name='tu-dwnet_tiny', encoder_weights=None, classes=3)
    size = 128 if name == 'PAN' else 64  # PAN halves the last map three times
    images, truth = torch.rand(2, 3, size, size), torch.randint(0, 3, (2, size, size))
    logits = model(images)
    assert logits.shape == (2, 3, size, size)
    torch.nn.functional.cross_entropy(logits, truth).backward()
    first = next(p for n, p in model.named_parameters() if n.endswith('patch_embed.proj.weight'))
    assert first.grad.isfinite().all() and first.grad.abs().sum() > 0


@pytest.mark.parametrize('encoder', ['tu-dwnet_tiny', 'tu-dynamic_dwnet_tiny'])
def test_a_dilated_encoder(encoder):
    """DeepLabV3+ and PAN ask for maps of a sixteenth of the image."""
    model = smp.DeepLabV3Plus(encoder, encoder_weights=None, encoder_output_stride=16).eval()
    assert model.encoder(torch.rand(1, 3, 96, 64))[-1].shape == (1, 768, 6, 4)


def test_mixers_that_cannot_be_dilated_say_so():
    with pytest.raises(ValueError, match='token_mixer static or dynamic'):
        smp.DeepLabV3Plus('tu-local_mlp_dwnet_tiny', encoder_weights=None)
