"""Damaged and hostile text, made from a whole file by a random generator: YOLO's labels and settings, and XML."""
import copy
import re
from collections.abc import Callable
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import yaml
from mutations import _ODD, BYTES, Mutation, _one_of
from numpy.random import Generator

# --- Words -----------------------------------------------------------------------------------------------

_WORDS = [b'nan', b'inf', b'-inf', b'-1', b'0', b'1e400', b'9' * 5000, b'0.5.5', b'cat', b'', b'#', b'1_0', b'-0.04',
          b'1.2', b'640', b'0x1', b'0,5', b'\0', b'\xff\xfe', '\u0663'.encode(), b'--', b'"0"', b'1.']


def words(rng: Generator, data: bytes) -> bytes:
    """A word is another."""
    parts = re.split(rb'(\s+)', data)
    parts[2 * rng.integers((len(parts) + 1) // 2)] = _one_of(rng, _WORDS)
    return b''.join(parts)


def order(rng: Generator, data: bytes) -> bytes:
    """A word, or a space, stands twice, is missing, or stands at another place."""
    parts = re.split(rb'(\s+)', data)
    place, other = rng.integers(len(parts), size=2)
    change = rng.integers(3)
    if change == 0:
        parts.insert(place, parts[other] + b' ')
    elif change == 1:
        del parts[place]
    else:
        parts[place], parts[other] = parts[other], parts[place]
    return b''.join(parts)


def many(rng: Generator, data: bytes) -> bytes:
    return data * _one_of(rng, [1, 2, 30]) + _one_of(rng, [
        b'', b'0 ' * 10**5, b'0 1 1\n' * 12, b'7 .5 .5 .1 .1\n' * 12, b'\n' * 10**5, b'0 ' + b'.5 .5 .6 .7 ' * 20_000])


LABELS: dict[str, Mutation] = {**BYTES, 'words altered': words, 'words exchanged': order, 'many words': many}

# --- YAML ------------------------------------------------------------------------------------------------


def _some_place(rng: Generator, content: dict) -> dict:
    return content if rng.random() < .7 else content['names']


def yaml_values(rng: Generator, data: bytes) -> bytes:
    content = yaml.safe_load(data)
    place = _some_place(rng, content)
    place[_one_of(rng, list(place))] = _one_of(
        rng, [*_ODD, 'images', '../..', '/', '.', 'data.yaml', '*', '\\', [None], ['.'] * 3, 'labels'])
    return yaml.dump(content).encode()


def yaml_keys(rng: Generator, data: bytes) -> bytes:
    content = yaml.safe_load(data)
    place = _some_place(rng, content)
    value = place.pop(_one_of(rng, list(place)))
    if rng.random() < .5:
        place[_one_of(rng, ['test', 'names', 'path', 'nc', 'x', -1, 10**30, None, 1.5])] = value
    return yaml.dump(content).encode()


_YAML = [
    b'{' * 5000, b'[' * 5000, b'- ' * 5000, b'&a [*a]', b'names: &a [*a, *a]\ntrain: *a', b'? {a: b} : c',
    b'!!python/object/apply:os.system [ls]', b'names: !!python/name:os.system\ntrain: images', b'---\n---\n',
    b'names: {? [a] : b}', b'names:\n  0: cat\n  0: dog\ntrain: images', b'%YAML 9.9\n---\nnames: [a]',
    b'names: |\n cat\n dog\ntrain: images', b'names: [' + b'cat, ' * 10_000 + b']', b'nc: 9999999999\ntrain: images',
    b'\n'.join(b'%c: &%c [*%c, *%c]' % (i, i, i - 1, i - 1) if i > 97 else b'a: &a [x]' for i in range(97, 123))
    + b'\nnames: *z\ntrain: *z']

SETTINGS: dict[str, Mutation] = {
    **BYTES, 'words altered': words, 'words exchanged': order, 'values altered': yaml_values, 'keys altered': yaml_keys,
    'another document': lambda rng, data: _one_of(rng, _YAML)}

# --- XML -------------------------------------------------------------------------------------------------


def _in_xml(mutate: Callable[[Generator, list[Element]], None]) -> Mutation:

    def mutate_bytes(rng: Generator, data: bytes) -> bytes:
        root = ElementTree.fromstring(data)
        mutate(rng, list(root.iter()))
        return ElementTree.tostring(root)

    return mutate_bytes


def xml_texts(rng: Generator, elements: list[Element]) -> None:
    _one_of(rng, elements).text = _one_of(rng, [
        None, '', ' ', 'nan', 'inf', '-1', '0', '1e400', '9' * 5000, '3.7', 'x', '../../etc/passwd', '/dev/zero', '-5'])


def xml_tags(rng: Generator, elements: list[Element]) -> None:
    _one_of(rng, elements).tag = _one_of(rng, elements).tag


def xml_removed(rng: Generator, elements: list[Element]) -> None:
    parent = _one_of(rng, [element for element in elements if len(element)])
    parent.remove(parent[rng.integers(len(parent))])


def xml_moved(rng: Generator, elements: list[Element]) -> None:
    """An element stands in another one, too."""
    leaf = _one_of(rng, [element for element in elements if not len(element)])
    _one_of(rng, elements).append(copy.copy(leaf))  # an element inside itself would have no end


_XML = [
    b'<annotation>' * 100_000, b'<annotation>' * 20_000 + b'</annotation>' * 20_000,
    b'<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb">' + b''.join(
        b'<!ENTITY c%d "%s">' % (i, (b'&c%d;' % (i - 1) if i else b'&b;') * 10) for i in range(12))
    + b']><annotation>&c11;</annotation>',
    b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotation><filename>&b;</filename></annotation>',
    '<?xml version="1.0" encoding="utf-16"?><annotation/>'.encode('utf-16'), b'<annotations/>', b'<annotation/>', b'{}',
    b'<?xml version="1.0" encoding="cp037"?><annotation/>', b'<annotation xmlns="x"><object/></annotation>',
    b'<annotation><object/></annotation>' * 2]

XML: dict[str, Mutation] = {
    **BYTES, 'texts altered': _in_xml(xml_texts), 'tags altered': _in_xml(xml_tags),
    'elements removed': _in_xml(xml_removed), 'elements moved': _in_xml(xml_moved),
    'another document': lambda rng, data: _one_of(rng, _XML)}
