"""Untrusted XML: a document that declares an entity is refused.

Entities can make XML grow without end or read other files. A DOCTYPE that names a file on a server
is harmless: expat opens no external entity by itself, and none is handled here.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any, NoReturn
from xml.parsers import expat


class XmlError(ValueError):
    """The text is not XML, or declares entities; the caller adds the name of the file."""


def parse_xml(text: str | bytes) -> ET.Element:
    """The root element of a document; raises XmlError."""
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
        raise XmlError(f"it is not XML ({error})") from error


def _refuse_entity(name: str, *_: Any) -> NoReturn:
    raise XmlError(f"it declares the entity {name!r}, which no such file does")
