"""mmpose's data set of COCO, which says what is wrong with an annotation."""
from mmpose.datasets import CocoDataset

from dwnet.errors import UserError


class CheckedCocoDataset(CocoDataset):
    """mmpose's ``CocoDataset``; an annotation of another number of keypoints than the data set is an error.

    mmpose would fail while it makes a batch of such annotations, without the name of the file.
    """

    def parse_data_info(self, raw_data_info: dict) -> dict | None:
        """Raises a ``UserError`` that names the file and the annotation."""
        annotation, wanted = raw_data_info['raw_ann_info'], self.metainfo['num_keypoints']
        numbers = annotation.get('keypoints')
        if numbers is not None and len(numbers) != 3 * wanted:
            raise UserError(f"{self.ann_file}: annotation {annotation['id']} has {len(numbers)} numbers in keypoints, "
                            f'and {wanted} keypoints of x, y and visibility need {3 * wanted}: mend it, or set the '
                            "data set's metainfo")
        return super().parse_data_info(raw_data_info)
