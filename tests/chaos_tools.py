"""LabelMe's and CVAT's data with a damaged annotation file, as cases of chaos_files.py."""
import json
from xml.etree import ElementTree

import tool_mutations
from annotation_files import cvat_image, cvat_polygon, pairs, shape
from chaos_forms import SCENES, OwnData

from dwnet.data import cvat, labelme


class LabelMe(OwnData):
    """Polygons, a file an image, beside a folder of images."""
    form = labelme
    damage = [('labels', tool_mutations.LABELME)]

    def write(self) -> dict[str, str]:
        return {f'labels/{scene.stem}.json': json.dumps(dict(
            version='5.4.1', flags={}, shapes=[shape(name, pairs(polygon)) for name, polygon in scene.objects],
            imagePath=f'../images/{scene.stem}.jpg', imageData=None, imageHeight=scene.size[1],
            imageWidth=scene.size[0])) for scene in SCENES}

    def objects_in(self, text: str) -> int:
        try:
            return len(json.loads(text)['shapes'])
        except Exception:  # no file of LabelMe
            return 1


class Cvat(OwnData):
    """Polygons, in an export for each image, beside a folder of images."""
    form = cvat
    damage = [('tasks', tool_mutations.CVAT)]

    def write(self) -> dict[str, str]:
        images = {scene.stem: cvat_image(f'{scene.stem}.jpg', *(
            cvat_polygon(name, polygon) for name, polygon in scene.objects), size=scene.size) for scene in SCENES}
        return {f'tasks/{stem}.xml': f'<annotations><version>1.1</version>{image}</annotations>'
                for stem, image in images.items()}

    def objects_in(self, text: str) -> int:
        try:
            root = ElementTree.fromstring(text)
        except ElementTree.ParseError:
            return 1
        shapes = [each for image in root.findall('image') for each in image]
        return sum(each.tag != 'tag' and each.get('outside') != '1' for each in shapes)
