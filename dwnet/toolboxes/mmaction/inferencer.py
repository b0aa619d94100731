"""mmaction's inferencer on OpenCV; imports mmaction."""
from mmaction.apis.inferencers import ActionRecogInferencer
from mmaction.datasets.transforms import DecordDecode, DecordInit, OpenCVDecode, OpenCVInit
from mmengine.config import Config
from mmengine.dataset import Compose


class VideoInferencer(ActionRecogInferencer):
    """mmaction's inferencer of video files, which reads them by OpenCV.

    mmaction reads them by decord, which may be missing, and which fails for narrow videos, such as 96 pixels wide
    (decord2 3.4.0).
    """

    def _init_pipeline(self, cfg: Config) -> Compose:
        pipeline = super()._init_pipeline(cfg)
        readers = {DecordInit: OpenCVInit, DecordDecode: OpenCVDecode}
        pipeline.transforms = [readers[type(step)]() if type(step) in readers else step
                               for step in pipeline.transforms]
        return pipeline
