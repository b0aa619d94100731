"""mmseg's data set of pairs, each an image and its label image, whatever their names and folders."""
import json
import os

from mmengine import fileio
from mmseg.datasets import BaseSegDataset

from dwnet.registry import DATASETS


@DATASETS.register_module()
class PairedSegDataset(BaseSegDataset):
    """mmseg's ``BaseSegDataset`` on the pairs that ``ann_file``, a JSON list, names relative to ``data_root``.

    mmseg itself derives the name of a label image from that of its image, with one ending for each in a data set.
    """

    def load_data_list(self) -> list[dict]:
        pairs = json.loads(fileio.get_text(self.ann_file, backend_args=self.backend_args))
        return [dict(img_path=os.path.join(self.data_root, image), seg_map_path=os.path.join(self.data_root, mask),
                     label_map=self.label_map, reduce_zero_label=self.reduce_zero_label, seg_fields=[])
                for image, mask in pairs]
