"""XML that others wrote, read with care: one that declares an entity is refused.

Entities are how XML is made to grow without end or to read other files. A DOCTYPE that names a file
on a server is nothing to us: expat opens no external entity by itself, and none is handled here.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any, NoReturn
from xml.parsers import expat


class XmlError(ValueError):
    """Text that is no XML, or declares entities; whoever asked for it says of which file."""


def parse_xml(text: str | bytes) -> ET.Element:
    """The root of a document.

    Raises:
        XmlError: it is no XML, or declares entities.
    """
    builder = ET.TreeBuilder()
    parser = expat.ParserCreate()
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = _refuse_entity
    try:
        parser.Parse(text, True)  # noqa: FBT003 (expat's signature)
        return builder.close()
    except (expat.ExpatError, LookupError, AssertionError) as error:
        raise XmlError(f"it is no XML ({error})") from error


def _refuse_entity(name: str, *_: Any) -> NoReturn:
    raise XmlError(f"it declares the entity {name!r}, which no such file does")
