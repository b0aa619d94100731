"""mmdet's reader of panoptic PNGs, which have to be whole and as large as their image."""
import io

from mmdet.datasets.transforms import LoadPanopticAnnotations
from mmengine import fileio
from mmengine.registry import TRANSFORMS
from PIL import Image

from dwnet.data.loading import check_whole


@TRANSFORMS.register_module()
class LoadWholePanoptic(LoadPanopticAnnotations):
    """mmdet's ``LoadPanopticAnnotations``, which raises an error for a damaged PNG.

    OpenCV decodes the start of a damaged file, and the rest would be pixels of no segment. A PNG of another size than
    its image, turned for example, may give masks that lie elsewhere.
    """

    def transform(self, results: dict) -> dict:
        """Raises a ``ValueError`` that names the file; ``results`` has ``ori_shape``, (height, width) of the image."""
        if path := results.get('seg_map_path'):
            try:
                content = fileio.get(path, backend_args=self.backend_args)
                check_whole(content)
                with Image.open(io.BytesIO(content)) as segments:
                    width, height = segments.size
                if (height, width) != tuple(results['ori_shape']):
                    wanted = '{1}×{0}'.format(*results['ori_shape'])
                    raise ValueError(f'it has {width}×{height} pixels, and its image {wanted}')
            except Exception as error:  # the file system and Pillow raise many kinds
                raise ValueError(f'{path} does not show the segments of its image: {error}') from error
        return super().transform(results)
