"""Damaged and hostile files of LabelMe and CVAT, made from a whole one by a random generator."""
import contextlib
import copy
import json
from collections.abc import Callable
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from mutations import _ODD, BYTES, Mutation, _one_of
from numpy.random import Generator

_HUGE = [float('nan'), float('inf'), -float('inf'), 1e300, 10**400, -1e9, 0, -5]
_PATHS = ['../../../../etc/passwd', '/etc/passwd', 'missing.jpg', '', '.', '..', '\0', 'x' * 5000, 'C:\\', '\\',
          'http://127.0.0.1:9/x.jpg', 'file:///dev/zero', '/dev/zero', '~/x.jpg', 'images/']

# --- LabelMe ---------------------------------------------------------------------------------------------


def _in_json(mutate: Callable[[Generator, dict], None]) -> Mutation:

    def mutate_bytes(rng: Generator, data: bytes) -> bytes:
        content = json.loads(data)
        with contextlib.suppress(ValueError):  # an image without shapes has nothing to alter
            mutate(rng, content)
        return json.dumps(content).encode()

    return mutate_bytes


def _place(rng: Generator, content: dict) -> dict:
    return content if rng.random() < .4 else _one_of(rng, content['shapes'])


def json_keys(rng: Generator, content: dict) -> None:
    place = _place(rng, content)
    del place[_one_of(rng, list(place))]


def json_types(rng: Generator, content: dict) -> None:
    place = _place(rng, content)
    place[_one_of(rng, list(place))] = _one_of(rng, _ODD)


def json_shapes(rng: Generator, content: dict) -> None:
    content['shapes'][rng.integers(len(content['shapes']))] = _one_of(rng, _ODD)


def json_points(rng: Generator, content: dict) -> None:
    points = _one_of(rng, content['shapes'])['points']
    place = rng.integers(len(points))
    change = rng.integers(4)
    if change == 0:
        points[place] = _one_of(rng, _ODD)
    elif change == 1:
        points[place][rng.integers(2)] = _one_of(rng, [*_HUGE, *_ODD])
    elif change == 2:
        del points[place:]
    else:
        points[:] = [points[place]] * _one_of(rng, [1, 3, 50_000])


def json_kinds(rng: Generator, content: dict) -> None:
    shape = _one_of(rng, content['shapes'])
    shape['shape_type'] = _one_of(rng, [
        'circle', 'rectangle', 'mask', 'line', 'point', 'rotation', 'x' * 5000, '', None, 5, [], 'cuboid'])
    shape['mask'] = _one_of(rng, [None, '', 'x', 'iVBORw0KGgo=', 5, 'A' * 10**6])


def json_paths(rng: Generator, content: dict) -> None:
    content['imagePath'] = _one_of(rng, _PATHS)
    content['imageData'] = _one_of(rng, [None, None, '', 'x', 'iVBORw0KGgo=', 5, 'A' * 10**6])


def json_sizes(rng: Generator, content: dict) -> None:
    content[_one_of(rng, ['imageWidth', 'imageHeight'])] = _one_of(rng, [*_HUGE, '40', 2**31, 39, True, None])


def json_groups(rng: Generator, content: dict) -> None:
    _one_of(rng, content['shapes'])['group_id'] = _one_of(rng, [1, 1.5, '1', [], {}, -1, float('nan'), 10**400])


LABELME: dict[str, Mutation] = {
    **BYTES, **{mutate.__name__.replace('json_', 'altered '): _in_json(mutate) for mutate in (
        json_keys, json_types, json_shapes, json_points, json_kinds, json_paths, json_sizes, json_groups)},
    'nested without end': lambda rng, data: b'{"shapes":' + b'[' * 100_000,
    'another document': lambda rng, data: json.dumps(_one_of(rng, _ODD[:-8] + [[], 'shapes', {'shapes': 5}])).encode(),
    'many broken': lambda rng, data: json.dumps({**json.loads(data), 'shapes': [None] * 20}).encode()}

# --- CVAT ------------------------------------------------------------------------------------------------


def _in_xml(mutate: Callable[[Generator, Element], None]) -> Mutation:

    def mutate_bytes(rng: Generator, data: bytes) -> bytes:
        root = ElementTree.fromstring(data)
        mutate(rng, root)
        return ElementTree.tostring(root)

    return mutate_bytes


def _element(rng: Generator, root: Element) -> Element:
    """An image or a shape."""
    return _one_of(rng, [element for element in root.iter() if element.attrib])


def xml_values(rng: Generator, root: Element) -> None:
    element = _element(rng, root)
    element.set(_one_of(rng, list(element.attrib)), _one_of(rng, [
        '', ' ', 'nan', 'inf', '-1', '0', '1e400', '9' * 5000, '3.7', 'x', ';', ',', '1,2;3', '\u0663', '1_0', '5, 5',
        '-5', '0, 4', '1,1;' * 50_000 + '1,1', *(path for path in _PATHS if path != '\0')]))


def xml_keys(rng: Generator, root: Element) -> None:
    element = _element(rng, root)
    value = element.attrib.pop(_one_of(rng, list(element.attrib)))
    element.set(_one_of(rng, ['rotation', 'outside', 'group_id', 'x', 'subset']), value)


def xml_tags(rng: Generator, root: Element) -> None:
    _one_of(rng, list(root.iter())).tag = _one_of(rng, [
        'box', 'polygon', 'mask', 'ellipse', 'polyline', 'tag', 'image', 'track', 'label', 'annotations', 'skeleton'])


def xml_places(rng: Generator, root: Element) -> None:
    """An element is removed, or stands in another one, too."""
    parent = _one_of(rng, [element for element in root.iter() if len(element)])
    child = parent[rng.integers(len(parent))]
    if rng.random() < .5:
        parent.remove(child)
    else:
        _one_of(rng, [element for element in root.iter() if not len(element)]).append(copy.deepcopy(child))


_XML = [
    b'<annotations>' * 100_000, b'<annotations>' * 20_000 + b'</annotations>' * 20_000,
    b'<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb">' + b''.join(
        b'<!ENTITY c%d "%s">' % (i, (b'&c%d;' % (i - 1) if i else b'&b;') * 10) for i in range(12))
    + b']><annotations>&c11;</annotations>',
    b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotations><image name="&b;"/></annotations>',
    '<?xml version="1.0" encoding="utf-16"?><annotations/>'.encode('utf-16'), b'<annotations/>', b'<annotation/>',
    b'{}', b'<?xml version="1.0" encoding="cp037"?><annotations/>', b'<annotations xmlns="x"><image/></annotations>',
    b'<annotations><image/></annotations>' * 2, b'<annotations><image><box/></image></annotations>']

CVAT: dict[str, Mutation] = {
    **BYTES, **{mutate.__name__.replace('xml_', 'altered '): _in_xml(mutate) for mutate in (
        xml_values, xml_keys, xml_tags, xml_places)},
    'another document': lambda rng, data: _one_of(rng, _XML)}
