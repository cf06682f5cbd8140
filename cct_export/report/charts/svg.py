"""Elements of SVG drawings that are as wide as the page and keep the size of their text.

Horizontal positions are shares of the width, so that one drawing fits a phone and a desk; vertical
ones are pixels.
"""

import unicodedata
from math import isfinite
from xml.etree.ElementTree import Element, tostring

from cct_export.text import one_line

# Pixels: of the font in page.css, and from one line of text to the next.
FONT_SIZE, LINE_HEIGHT = 12.0, 16.0
# Widths in the widest of the common sans serif fonts, as shares of the font size.
_WIDTHS = {
    **dict.fromkeys("fijlrtI.,:;'|!()[]-/ ", 0.45),
    **dict.fromkeys("mwMW%@—…", 1.0),
}
_EAST_ASIAN, _CAPITAL, _OTHER = 1.05, 0.8, 0.66


def element(tag: str, *children: Element, text: str = "", **attributes: str | float) -> Element:
    """Returns an SVG element.

    Args:
        tag: of the element.
        *children: elements in it.
        text: in it, before its children; any string, since it is put on one line here and escaped
            when it is written.
        **attributes: ``_`` stands for ``-``, and is left out at the end of a Python keyword.
            Numbers get at most two decimals.
    """
    made = Element(tag, {_name(name): _value(value) for name, value in attributes.items()})
    made.text = one_line(text) or None
    made.extend(children)
    return made


def _name(name: str) -> str:
    # What SVG writes in camel case has no hyphen.
    return name.rstrip("_").replace("_", "-")


def _value(value: str | float) -> str:
    if isinstance(value, str):
        return one_line(value)
    # NaN and infinity are no lengths.
    return f"{value:.2f}".rstrip("0").rstrip(".") if isfinite(value) else "0"


def percent(share: float) -> str:
    """Returns a horizontal position or width, 0 to 1, as an attribute."""
    return f"{_value(100 * share)}%"


def tooltip(text: str) -> Element:
    """Returns a child that shows ``text`` while the pointer is on its parent."""
    return element("title", text=text)


def drawing(*children: Element, height: float, layout: str) -> str:
    """Returns the markup of a drawing.

    Args:
        *children: elements in it.
        height: pixels.
        layout: class of page.css that sets the margins.
    """
    return tostring(element("svg", *children, class_=layout, height=height), encoding="unicode")


def text_width(text: str) -> float:
    """Returns the pixels that ``text`` takes at most in a common font; readers have different ones.

    Args:
        text: on one line.
    """
    return FONT_SIZE * sum(map(_character_width, text))


def _character_width(character: str) -> float:
    if unicodedata.east_asian_width(character) in "WF":
        return _EAST_ASIAN
    return _WIDTHS.get(character, _CAPITAL if character.isupper() else _OTHER)
