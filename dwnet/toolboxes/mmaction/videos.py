"""mmaction's data set of frames, which looks for the frames first; imports mmaction."""
import os

from mmaction.datasets import RawframeDataset

from dwnet.errors import UserError, some
from dwnet.registry import DATASETS


@DATASETS.register_module()
class CheckedRawframeDataset(RawframeDataset):
    """mmaction's ``RawframeDataset``; folders that lack frames of their clip are named.

    mmaction finds out when a training comes to the frame.
    """

    def load_data_list(self) -> list[dict]:
        clips = super().load_data_list()
        bad = [f"{clip['frame_dir']} ({reason})" for clip in clips if (reason := self._fault(clip))]
        if bad:
            raise UserError(f'{len(bad)} of {len(clips)} clips of {self.ann_file} lack frames: {some(bad)}; put them '
                            'there again, or take the clips out of the list')
        return clips

    def _fault(self, clip: dict) -> str:
        try:
            there = set(os.listdir(clip['frame_dir']))
        except OSError as error:
            return str(error.strerror)
        first = self.start_index + clip.get('offset', 0)
        names = (self.filename_tmpl.format(*(['x'] if self.modality == 'Flow' else []), i)
                 for i in range(first, first + clip['total_frames']))
        missing = next((name for name in names if name not in there), '')
        return f'no {missing}' if missing else ''
