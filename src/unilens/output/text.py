"""Text that any terminal, page or file can show."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Callable, Iterator

_LONGEST = 600
"""Characters of a label in a picture."""
_PIECES = re.compile(r"[^:,=_/-]*[:,=_/-]+|[^:,=_/-]+")
"""A word breaks after these characters, if it is longer than a line."""
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_HIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
"""Control characters but for white space, what changes the direction of a text, and what is not
seen; joiners stay, which some scripts and symbols are written with."""
_FORMULA = ("=", "+", "-", "@", "|", "%", "\t", "\r", "\n")
"""What a cell begins with that spreadsheets run as a formula."""
_LATEX = {character: f"\\{character}" for character in "{}$&#_%"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "[": "{[}",
    "]": "{]}",
    _REPLACEMENT: "?",
}


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


def wrapped(text: str, width: float, size: float, *, bold: bool = False) -> str:
    """Return a label in lines that are at most `width` inches wide, as matplotlib draws them.

    Lines break at blanks; a longer word after a colon, a comma and the like, or anywhere.

    Args:
        text: the label; characters that the font lacks become boxes.
        width: in inches.
        size: of the font, in points.
        bold: whether the font is bold.
    """

    def fits(line: str) -> bool:
        return text_width(line, size, bold=bold) <= 0.97 * width

    label = drawable(text)
    label = label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}…"
    lines = [""]
    for word in label.split():
        joined = f"{lines[-1]} {word}".lstrip()
        if fits(joined):
            lines[-1] = joined
        elif fits(word):
            lines.append(word)
        else:
            for piece in _pieces(f"{' ' * bool(lines[-1])}{word}", fits):
                lines[-1:] = [lines[-1] + piece] if fits(lines[-1] + piece) else [lines[-1], piece]
    return "\n".join(line for line in lines if line)


def _pieces(word: str, fits: Callable[[str], bool]) -> Iterator[str]:
    """Yield the pieces of a word that may be on lines of their own, characters if need be."""
    for piece in _PIECES.findall(word):
        yield from [piece] if fits(piece) else piece


def text_width(line: str, size: float, *, bold: bool = False) -> float:
    """Return the width of a line in inches, as matplotlib draws it; see `wrapped`."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=size, weight="bold" if bold else "normal")
    return float(text_to_path.get_text_width_height_descent(line, font, False)[0]) / 72


def one_line(value: object) -> str:
    """Return a value as printable text in which all white space is single blanks."""
    return " ".join(printable(str(value)).split())


def probability_text(value: float) -> str:
    """Return a probability that is never rounded to 0 or 1: two decimals, or more near the ends."""
    if not 0 < value < 1:
        return f"{value:.2f}"
    for decimals in (2, 3, 4):
        text = f"{value:.{decimals}f}"
        if min(value, 1 - value) >= 10**-decimals:
            return text
    return f"{value:.1g}" if value < 0.5 else "over 0.9999"


def terminal_safe(text: str) -> str:
    """Return a text in which a terminal finds no commands: control characters are replaced."""
    return "".join(map(_shown, text))


def _shown(character: str) -> str:
    shown = character.isprintable() or character in "\n\t"
    return character if shown or unicodedata.category(character) == "Zs" else _REPLACEMENT


def visible(text: str) -> str:
    """Return a text without hidden characters, which are replaced: what is read is what is there.

    Of HTML, where `<` and the like are escaped besides, see `output.html`.
    """
    return _HIDDEN.sub(_REPLACEMENT, text)


def csv_cell(cell: object) -> object:
    """Return a cell of a CSV file that no spreadsheet runs and no terminal obeys.

    Before a text that a spreadsheet would take for a formula stands an apostrophe. Numbers stay.
    """
    if not isinstance(cell, str):
        return cell
    text = re.sub("\r\n?", "\n", visible(cell))  # csv.writer does not quote a lone return
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", text, re.IGNORECASE) is not None


def latex(text: str) -> str:
    """Return a text in one line as LaTeX prints it."""
    shown = visible(" ".join(printable(text).split()))
    return "".join(_LATEX.get(character, character) for character in shown)


class LogFormatter(logging.Formatter):
    """Formats records so that no text begins a line of its own, or commands a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record; further lines are indented."""
        return terminal_safe(super().format(record)).replace("\n", "\n    ")
