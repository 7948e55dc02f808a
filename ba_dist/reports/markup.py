"""HTML and SVG as trees of elements: every text and attribute is escaped when it is written."""

import re
from typing import TypeAlias
from xml.etree import ElementTree

Element: TypeAlias = ElementTree.Element
# What HTML has no place for, and halves of pairs, as names of files that are no text have them.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def make(tag: str, *children: "Element | str | None", **attributes: object) -> Element:
    """An element.

    Args:
        tag: its name.
        children: elements and texts, in order; None is left out.
        attributes: `class_` for class, `_` for `-`; None is left out.
    """
    named = {
        name.rstrip("_").replace("_", "-"): clean(f"{value}")
        for name, value in attributes.items()
        if value is not None
    }
    element = ElementTree.Element(tag, named)
    last: Element | None = None
    for child in children:
        if isinstance(child, str):
            if last is None:
                element.text = (element.text or "") + clean(child)
            else:
                last.tail = (last.tail or "") + clean(child)
        elif child is not None:
            element.append(child)
            last = child
    return element


def clean(text: str) -> str:
    """A text without characters that HTML cannot hold."""
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)


def document(root: Element) -> str:
    """The text of a page."""
    return "<!DOCTYPE html>\n" + ElementTree.tostring(root, encoding="unicode", method="html")
