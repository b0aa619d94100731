"""Reading an XML file that a stranger may have written."""
from pathlib import Path
from xml.etree import ElementTree


def read_xml(path: Path) -> ElementTree.Element:
    """The root of an XML file.

    Raises:
        ValueError: If the file is no whole XML, or declares entities, which may expand without end or name other files.
    """
    content = path.read_bytes()
    if b'<!DOCTYPE' in content.replace(b'\0', b''):  # UTF-16 has zeros
        raise ValueError('it has a document type declaration, which no annotations need')
    try:
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # LookupError: an unknown encoding
        raise ValueError(str(error)) from error
