"""DWNet in a LightningModule: a training, a validation, and a checkpoint that reads back."""
import pytest
import timm
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

lightning = pytest.importorskip('lightning', reason="needs pip install 'dwnet[libraries]'")


def test_a_training(tmp_path):

    class Classifier(lightning.LightningModule):

        def __init__(self) -> None:
            super().__init__()
            self.model = timm.create_model('dwnet_tiny', arch=dict(embed_dims=16, depths=(1, 1, 1, 1)), num_classes=2)

        def training_step(self, batch, _):
            images, labels = batch
            loss = F.cross_entropy(self.model(images), labels)
            self.log('loss', loss, on_step=False, on_epoch=True)
            return loss

        def validation_step(self, batch, _):
            images, labels = batch
            self.log('accuracy', (self.model(images).argmax(1) == labels).float().mean())

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=3e-3)

    lightning.seed_everything(0)
    labels = torch.arange(32) % 2
    images = torch.rand(32, 3, 32, 32) + labels.view(-1, 1, 1, 1)  # bright and dark ones
    loader = DataLoader(TensorDataset(images, labels), 8)
    module = Classifier()
    trainer = lightning.Trainer(max_epochs=3, accelerator='cpu', logger=False, enable_progress_bar=False,
                                enable_model_summary=False, default_root_dir=tmp_path)
    trainer.fit(module, loader, loader)
    assert trainer.callback_metrics['loss'] < .1 and 'accuracy' in trainer.callback_metrics
    trainer.save_checkpoint(tmp_path / 'a.ckpt')
    again = Classifier.load_from_checkpoint(tmp_path / 'a.ckpt', map_location='cpu')
    assert all(torch.equal(again.state_dict()[k], v.cpu()) for k, v in module.state_dict().items())
