"""Parts of a web page, built as elements: text is escaped because nothing is pasted."""

from __future__ import annotations

import base64
import io
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.image import imsave
from numpy.typing import NDArray

NUMBER = "number"
"""Class of cells that hold numbers."""


def add(parent: ET.Element, tag: str, text: str = "", /, **attributes: object) -> ET.Element:
    """A new element at the end of another.

    Args:
        parent: the other.
        tag: its name.
        text: in it; may hold any characters.
        attributes: with `class_` for class, and dashes written as underscores.
    """
    named = {key.rstrip("_").replace("_", "-"): str(value) for key, value in attributes.items()}
    element = ET.SubElement(parent, tag, named)
    element.text = text or None
    return element


def add_table(
    parent: ET.Element, head: Sequence[str], *, label: str, row_header: bool = True
) -> ET.Element:
    """A table that scrolls by itself where the window is narrow.

    Args:
        parent: to put it in.
        head: of the columns; the first stands left, the others right.
        label: what the table is, for screen readers.
        row_header: whether the first column names the rows.

    Returns:
        Its body, to add rows to.
    """
    frame = add(parent, "div", class_="scroll", role="region", aria_label=label, tabindex="0")
    table = add(frame, "table")
    line = add(add(table, "thead"), "tr")
    for position, name in enumerate(head):
        kind = "" if position == 0 and row_header else NUMBER
        add(line, "th", name, class_=kind, scope="col")
    return add(table, "tbody")


def add_class_name(row: ET.Element, name: str, color: str) -> ET.Element:
    """The first cell of a row: a class with its colour."""
    cell = add(row, "th", scope="row")
    named = add(cell, "span", class_="named")
    add(named, "span", class_="swatch", style=f"background:{color}")
    add(named, "span", name)
    return cell


def add_picture(
    parent: ET.Element, pixels: NDArray[np.uint8], *, alt: str, aspect: float
) -> ET.Element:
    """A picture that is part of the page.

    Args:
        parent: a figure to put it in, which becomes as wide as the picture.
        pixels: (height, width, 3 or 4) uint8.
        alt: what it shows.
        aspect: width to height on the ground.

    Returns:
        The box of the picture, to lay something over it.
    """
    buffer = io.BytesIO()
    # Without it the file names the library's version: the same pixels give the same bytes.
    unnamed: dict[str, Any] = {"Software": None}
    imsave(buffer, pixels, format="png", metadata=unnamed)
    source = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    # A tall map would otherwise fill more than a window.
    width = f"calc(34rem * {min(aspect, 3):.5f})"
    parent.set("style", f"max-width:max({width}, 12rem)")
    box = add(parent, "div", class_="picture", style=f"aspect-ratio:{aspect:.5f};max-width:{width}")
    add(box, "img", src=source, alt=alt)
    return box


def page_text(root: ET.Element) -> str:
    """The page as a file holds it."""
    text: str = ET.tostring(root, encoding="unicode", method="html")
    return f"<!DOCTYPE html>\n{text}\n"


def percent(share: Any) -> str:
    """A share as a length in a style: 62.5%."""
    return f"{100 * float(share):.3f}%"
