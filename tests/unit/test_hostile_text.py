"""Texts of strangers (names, labels, settings, reasons) do nothing wherever they are written."""

import csv
import html.parser
import io
import json
import logging
import re
import unicodedata
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image

import unilens
from unilens.benchmark.report.comparison import write_comparison
from unilens.benchmark.report.page import write_report
from unilens.benchmark.report.tables import as_csv
from unilens.cli import output
from unilens.errors import UnilensWarning
from unilens.output import records
from unilens.output.html import environment
from unilens.output.text import LogFormatter, csv_cell, latex, terminal_safe, visible

TEXTS = {
    "script": "<script>alert(1)</script>",
    "closed title": "</title></style><script>alert(1)</script>",
    "attribute": "\" onmouseover='alert(1)' x=\"",
    "attribute in single quotes": "' onload=alert(1) '",
    "picture": "<img src=x onerror=alert(1)>",
    "svg": "<svg onload=alert(1)><animate onbegin=alert(1)></svg>",
    "link": "javascript:alert(1)",
    "comment": "--><script>alert(1)</script><!--",
    "cdata": "]]><script>alert(1)</script>",
    "template": "{{ 7 * 7 }}{% include '/etc/passwd' %}${7*7}",
    "entity": "&lt;script&gt;&#x202e;",
    "formula": '=HYPERLINK("http://example.com","x")',
    "plus": "+cmd|' /C calc'!A0",
    "minus": "-2+3+cmd|' /C calc'!A0",
    "at": "@SUM(1+1)*cmd|' /C calc'!A0",
    "tab and formula": "\t=1+1",
    "return and formula": "\r=1+1",
    "line and formula": "\n=1+1",
    "blank and formula": "  =1+1",
    "hidden and formula": "\u200b=1+1",
    "macro": "%APPDATA%|calc",
    "cells": 'a,b;c\t"d\n=1+1,"=2"',
    "latex input": r"\input{/etc/passwd}",
    "latex write": r"\immediate\write18{touch x}",
    "latex end": r"}\end{table}\begin{verbatim}",
    "latex accents": '^^5cinput{x} ~ # $ % & _ " | < > [ ]',
    "latex comment": "% \\\\ \n\\input x",
    "colour": "\x1b[31mred\x1b[0m",
    "title of the terminal": "\x1b]0;title\x07",
    "link of the terminal": "\x1b]8;;http://example.com\x1b\\x\x1b]8;;\x1b\\",
    "screen": "\x1b[2J\x1b[H",
    "answer": "\x1b[6n\x05",
    "c1": "\x9b31m\x9d0;title\x9c",
    "bell": "a\x07\x08\x08b",
    "null": "a\x00b",
    "delete": "a\x7fb",
    "line breaks": "a\nerror: all is lost\r\n2026-01-01 00:00:00,000 ERROR x",
    "return": "a\rb",
    "other line breaks": "a\x0bb\x0cc\x1cd\x85e\u2028f\u2029g",
    "right to left": "a\u202egnp.exe",
    "isolates": "\u2066a\u2069\u2067b\u2068c",
    "marks": "a\u200eb\u200fc\u061cd",
    "invisible": "a\u200bb\u2060c\ufeffd\xade",
    "tags": "a\U000e0041\U000e0042b",
    "lone surrogate": "a\udcffb",
    "rich markup": "[bold]x[/bold][link=http://example.com]y[/link][/]",
    "percent": "%s %(name)s %n {0} {self}",
    "path": "../../../etc/passwd",
    "long": "x" * 3000,
    "combining": "a" + "\u0301" * 200,
}
each = pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
HIDDEN = set(map(chr, [*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x61C]))


def controls(text, allowed="\n\t\r"):
    """Return what a reader does not see: control characters and those of direction."""
    return {
        character
        for character in text
        if (unicodedata.category(character) in ("Cc", "Zl", "Zp") and character not in allowed)
        or character in HIDDEN
    }


class Tags(html.parser.HTMLParser):
    """The tags and attributes of a page, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.names, self.text = [], set(), ""
        self.links = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.names |= {name for name, _ in attrs}
        self.links += [value for name, value in attrs if name in ("href", "src", "action")]

    def handle_data(self, data):
        self.text += data


@each
def test_html_shows_a_text_and_does_nothing(text):
    template = environment().from_string('<p title="{{ t }}">{{ t }}{{ [t, t] | join(" ") }}</p>')
    page = template.render(t=text)
    seen = Tags(page)
    assert (seen.tags, seen.names) == (["p"], {"title"})
    assert not controls(page, "\n\t\r")
    assert seen.text.startswith(visible(text))


@each
def test_csv_cell_is_one_cell_and_no_formula(text):
    written = as_csv([text, "value"], [[text, -0.5], [text, None]])
    assert not controls(written)
    rows = list(csv.reader(io.StringIO(written, newline="")))
    assert [len(row) for row in rows] == [2, 2, 2]
    assert rows[1][1] == "-0.5"
    for cell in (row[0] for row in rows):
        assert not cell.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r", "\n", "%", "|"))
        lines = re.sub("\r\n?", "\n", visible(text))
        assert cell in (lines, f"'{lines}")


@pytest.mark.parametrize("text", ["-1", "+1.5", "-1e-5", "-.5", "1", "0.25", "-3."])
def test_csv_cell_that_is_a_number_stays(text):
    assert csv_cell(text) == text


@each
def test_latex_prints_a_text(text):
    printed = latex(text)
    assert len(printed.splitlines()) <= 1
    assert not controls(printed, "")
    rest = re.sub(r"\\text[a-z]+\{\}|\\[{}$&#_%]|\{[\[\]]\}", "", printed)
    assert not set(rest) & set('\\{}$&#_%^~<>|"[]')


@each
def test_terminal_obeys_no_text(text, capsys):
    output.show(text, title=text)
    output.show_table((text, "n"), [(text, "2")], right={1})
    output.show_written(Path(text))
    output.show_error(text)
    with output.warnings_in_one_line():
        warnings.warn(text, UnilensWarning, stacklevel=1)
        warnings.simplefilter("always")
        warnings.warn(text, RuntimeWarning, stacklevel=1)
    shown = capsys.readouterr()
    assert not controls(shown.out + shown.err, "\n\t")
    errors = [line for line in shown.err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1


@each
def test_table_on_the_terminal_has_a_line_for_each_row(text, capsys):
    if len(text) > 100:
        text = text[:60]
    output.show_table((), [(text, "1"), ("b", "2")], whole={0, 1})
    assert len(capsys.readouterr().out.splitlines()) == 2


@each
def test_json_holds_a_text_as_it_is(text, capsys, tmp_path):
    output.show_json({"name": text})
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {"name": text}
    records.write_json(tmp_path / "x", {text: [text]})
    written = (tmp_path / "x.json").read_text(encoding="ascii")
    assert json.loads(written) == {text: [text]}
    assert not controls(line + written, "\n")


@each
def test_log_has_one_line_that_begins_with_a_time(text):
    try:
        raise ValueError(text)
    except ValueError as error:
        record = logging.LogRecord("unilens", 40, "", 0, "%s: %s", (text, 1), None)
        record.exc_info = (type(error), error, error.__traceback__)
    formatted = LogFormatter("%(asctime)s %(levelname)s %(message)s").format(record)
    first, *others = formatted.split("\n")
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ERROR ", first)
    assert all(line.startswith("    ") for line in others)
    assert not controls(formatted, "\n\t")


ALL = " ".join(text for text in TEXTS.values() if len(text) < 300).replace("\udcff", "")


def dirty(rows):
    for number, row in enumerate(rows):
        texts = [text.replace("\udcff", "") for text in TEXTS.values()]
        text = texts[number % len(texts)]
        row["image"] = f"{row['image']} {text}"
        row["method_settings"], row["metric_settings"] = text, json.dumps({text: text})
        row["warnings"] = [text, "saturation"]
        row["parts"] = [(text, 0.5), ("²_steps", 1.0), ("9" * 400 + "_steps", 1.0)]
        row["curves"] = [(text, [0.1, float("nan")]), ("curve", [1.0, 0.5])]
        row["content"] = text
        row["picture"] = text.encode() if row["picture"] else None
        if number % 3 == 0:
            row["status"], row["reason"], row["value"] = "failed", text, None
        if number % 11 == 0:
            row["status"] = text


def check_page(path, own_links):
    page = path.read_text(encoding="utf-8")
    seen = Tags(page)
    assert "script" not in seen.tags
    assert not {name for name in seen.names if name.startswith("on")}
    assert all(link.startswith(own_links) for link in seen.links)
    assert not controls(page)


def test_report_of_hostile_rows_does_nothing(make_run, tmp_path):
    name = "=run \u202e<b>"
    store = make_run(name=name, images=8, change=dirty)
    for path in write_report(store, tmp_path / "report"):
        text = path.read_text(encoding="utf-8")
        assert not controls(text)
    check_page(tmp_path / "report" / "report.html", ("#", "data:image/webp;base64,", "https://arx"))
    summary = (tmp_path / "report" / "summary.csv").read_text(encoding="utf-8")
    for row in csv.reader(summary.splitlines()):
        assert not [cell for cell in row if cell.startswith(("=", "+", "@"))]
    other = make_run(name="other", images=8, change=dirty, seed=1)
    write_comparison(store, other, tmp_path / "both")
    check_page(tmp_path / "both" / "comparison.html", ("#",))


def test_query_prints_hostile_rows_inert(make_run, command):
    folder = make_run(images=2, change=dirty).folder
    sql = "SELECT image, reason, method_settings, warnings, parts FROM rows"
    for option, allowed in (((), "\n"), (("--csv",), "\n\r\t"), (("--json",), "\n")):
        code, out, err = command("query", folder, sql, *option)
        assert (code, err) == (0, "")
        assert not controls(out, allowed)


def test_query_prints_no_formula(make_run, command):
    sql = "SELECT '=1+1' AS \"=2\", '-0.5' AS b, -0.5 AS c, '@x' AS d, '-x' AS e"
    _, out, _ = command("query", make_run(rows=[]).folder, sql, "--csv")
    assert out == "'=2,b,c,d,e\n'=1+1,-0.5,-0.5,'@x,'-x\n"


def test_files_of_an_explanation_hold_texts_inert(tmp_path):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2)).eval()
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    maps = {ALL: unilens.explain(model, image, "gradient", 0)}
    content = {"source": f"/x/{ALL}.png", "target": {"label": ALL}, "confidence": 0.5}
    records.write(tmp_path / "x", image[0], maps, content, "signed")
    with Image.open(tmp_path / "x.png") as picture:
        picture.load()
        assert set(picture.info) <= {"Software", "dpi"}
        assert picture.info["Software"].startswith("Matplotlib")
    assert json.loads((tmp_path / "x.json").read_text(encoding="ascii")) == content


SOURCES = sorted((Path(unilens.__file__).parent).rglob("*.py"))


@pytest.mark.parametrize(
    ("pattern", "places"),
    [
        (r"csv\.(writer|DictWriter)\(", {"app/csv_files.py", "benchmark/report/tables.py"}),
        (r"(?<![\w.])(jinja2\.)?Environment\(", {"output/html.py"}),
        (r"\.to_csv\(", {"cli/explain_table.py", "app/table_tab.py"}),
        (r"\.to_(html|latex|markdown|excel)\(", set()),
        (r"\|\s*safe\b", set()),
    ],
)
def test_each_format_has_one_writer(pattern, places):
    """A file that writes one of the formats is one whose texts the tests above cover."""
    root = Path(unilens.__file__).parent
    found = {
        path.relative_to(root).as_posix()
        for path in [*SOURCES, *root.rglob("*.html")]
        if re.search(pattern, path.read_text(encoding="utf-8"))
    }
    assert found == places


def test_names_that_are_no_trouble_stay_as_they_are():
    for name in ("photo 1.png", "café – naïve.jpg", "写真.png", "می‌خواهم", "👩‍🚀.png", "a_b-c+d=e"):
        assert visible(name) == csv_cell(name) == name
    assert terminal_safe("写真 é") == "写真 é"
