"""Text that any terminal, page or file can show."""

from __future__ import annotations

import unicodedata

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def printable(text: str) -> str:
    """Return a text with what UTF-8 cannot encode (bytes of file names, mostly) replaced."""
    return text.encode("utf-8", "replace").decode("utf-8")


def drawable(text: str) -> str:
    """Return a text with a box in place of each character that matplotlib's font lacks."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties()))
    return "".join(
        character if character == "\n" or font.get_char_index(ord(character)) else "\u25a1"
        for character in text
    )


def one_line(value: object) -> str:
    """Return a value as printable text in which all white space is single blanks."""
    return " ".join(printable(str(value)).split())


def terminal_safe(text: str) -> str:
    """Return a text in which a terminal finds no commands: control characters are replaced."""
    return "".join(map(_visible, text))


def _visible(character: str) -> str:
    shown = character.isprintable() or character in "\n\t"
    return character if shown or unicodedata.category(character) == "Zs" else _REPLACEMENT
