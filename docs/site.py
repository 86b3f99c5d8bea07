"""Generate the pages of the site: one for every method, metric, baseline, module and notebook.

A hook of mkdocs (see mkdocs.yml). The pages exist only while the site is built. Pages of `docs`
that the navigation leaves out come under "How to". Settings are explained by `site_settings.py`.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from markdown import Extension, Markdown
from markdown.extensions.toc import slugify
from markdown.preprocessors import Preprocessor
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from site_settings import required_settings, settings_tables

import unilens
from unilens.baselines import baselines
from unilens.methods import methods
from unilens.metrics import MetricCard, metrics
from unilens.registry import TRAITS, Card, Entry, Registry

DOCS = Path(__file__).parent
REGISTRIES: dict[str, Registry[Any]] = {
    "methods": methods,
    "metrics": metrics,
    "baselines": baselines,
}
PAGE_OF_FAMILY = {
    "unlearning": "uni.md",
    "path": "paths.md",
    "gradient": "gradients.md",
    "smoothing": "gradients.md",
    "references": "gradients.md",
    "activation": "activations.md",
    "attention": "attention.md",
    "rules": "rules.md",
    "perturbation": "perturbation.md",
    "control": "controls.md",
}
MODULES = (
    "unilens",
    "unilens.attribution",
    "unilens.path_attribution",
    "unilens._engine.evaluator",
    "unilens.scores",
    "unilens.groups",
    "unilens.tables",
    "unilens.quadrature",
    "unilens.methods",
    "unilens.baselines",
    "unilens.paths",
    "unilens.weightings",
    "unilens.metrics",
    "unilens.diagnostics",
    "unilens.registry",
    "unilens.models",
    "unilens.output.viz",
    "unilens.errors",
)
"""The modules of the reference; a package shows what its `__all__` names."""
NEEDS = {
    "method": 'method="{method}"',
    "mask": "mask=mask",
    "without_parts": "without_parts=without_parts",
    "path": "",
}
DIRECTIONS = {True: "Higher is better.", False: "Lower is better.", None: "Neither end is good."}


def pages() -> dict[str, str]:
    """Return the text of every generated page, by its path in the site."""
    generated = {f"methods/{name}.md": method_page(name) for name in methods}
    generated |= {f"metrics/{name}.md": metric_page(name) for name in metrics}
    generated |= {f"baselines/{name}.md": baseline_page(name) for name in baselines}
    generated |= {f"{kind}/all.md": list_page(kind) for kind in REGISTRIES}
    generated |= {f"api/{name}.md": reference_page(name) for name in MODULES}
    return generated | {f"notebooks/{path.stem}.md": notebook_page(path) for path in notebooks()}


def notebooks() -> list[Path]:
    """Return the notebooks, in order of their names."""
    return sorted((DOCS / "notebooks").glob("*.ipynb"))


def method_page(name: str) -> str:
    """Return the page of a method, from its card."""
    entry = methods[name]
    family = PAGE_OF_FAMILY[entry.card.family]
    required = required_settings(entry)
    given = "".join(f", {key}={key}" for key in required)
    return "\n".join(
        [
            *_head(entry.card, "method"),
            "```python",
            f'attribution = unilens.explain(model, images, "{name}"{given})',
            "```",
            "",
            "```sh",
            f"unilens explain photo.jpg --method {name}{':' * bool(required)}"
            + ",".join(f"{setting}=samples" for setting in required),
            "```",
            "",
            f"Formulas, and what was measured: [{_title(family)}](../{family}).",
            "",
            *_picture(family),
            *_cost(entry),
            *settings_tables(entry),
            *_docstring(entry.build),
        ]
    )


def metric_page(name: str) -> str:
    """Return the page of a metric, from its card."""
    entry = metrics[name]
    card = entry.card
    if not isinstance(card, MetricCard):
        raise TypeError(f"expected the card of a metric, got {type(card).__name__}")
    low, high = ("no bound" if bound is None else f"{bound:g}" for bound in card.bounds)
    given = "".join(f", {NEEDS[need].format(method='uni')}" for need in card.needs if NEEDS[need])
    return "\n".join(
        [
            *_head(card, "metric"),
            f"{DIRECTIONS[card.higher_is_better]} Lowest value: {low}; highest: {high}; "
            "NaN where it is undefined.",
            "",
            "```python",
            f'values = unilens.evaluate(model, images, attribution, "{name}"{given})',
            "```",
            "",
            f"How to read it, and how it misleads: [Metrics](../metrics.md#{_anchor(name)}).",
            "",
            *_cost(entry),
            *settings_tables(entry),
            *_docstring(entry.build),
        ]
    )


def baseline_page(name: str) -> str:
    """Return the page of a baseline, from its card."""
    entry = baselines[name]
    required = required_settings(entry)
    given = "".join(f", {key}={key}" for key in required)
    return "\n".join(
        [
            *_head(entry.card, "baseline"),
            "```python",
            f'attribution = unilens.explain(model, images, "ig", baseline="{name}"{given})',
            "```",
            "",
            "All of them: [Baselines](../baselines.md); which to take: "
            "[Which baseline?](../which-baseline.md).",
            "",
            *_cost(entry),
            *settings_tables(entry),
            *_docstring(entry.build),
        ]
    )


def list_page(kind: str) -> str:
    """Return the page that lists what a registry has."""
    lines = [f"# All {kind}", ""]
    lines += ["| name | what it is | passes |", "|---|---|---|"]
    for name, entry in REGISTRIES[kind].items():
        cost = "by its settings" if entry.cost is None else f"{entry.cost[0]} + {entry.cost[1]}"
        lines.append(f"| [`{name}`]({name}.md) | {entry.card.summary} | {cost} |")
    return "\n".join([*lines, "", "Passes are forward + backward, at most, for one photograph."])


def llms_text() -> str:
    """Return `llms.txt` with the links of the site in place of those of the sources."""
    text = (DOCS.parent / "llms.txt").read_text(encoding="utf-8")
    return re.sub(r"\(docs/([\w-]+)\.md", r"(\1/", text)


def reference_page(module: str) -> str:
    """Return the page of a module, which mkdocstrings fills from the docstrings."""
    if module != "unilens":
        return f"# {module}\n\n::: {module}\n"
    named_as_modules = [name for name in unilens.__all__ if find_spec(f"unilens.{name}")]
    members = [name for name in unilens.__all__ if name not in named_as_modules]
    functions = "\n".join(
        f"## `unilens.{name}()`\n\n{inspect.getdoc(getattr(unilens, name))}\n"
        for name in named_as_modules
    )
    return f"# unilens\n\n::: unilens\n    options:\n      members: {members}\n\n{functions}"


def notebook_page(path: Path) -> str:
    """Return a notebook's text and code, without outputs."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells]
    return "\n\n".join(
        text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```"
        for cell, text in zip(cells, texts, strict=True)
    )


def _head(card: Card, kind: str) -> Iterator[str]:
    """Yield title, summary and the table of the card."""
    number = re.search(r"arXiv (\d+\.\d+)", card.reference)
    link = f" ([arXiv](https://arxiv.org/abs/{number[1]}))" if number else ""
    stop = "" if card.summary.endswith("?") else "."
    yield from (f"# `{card.name}`", "", f"{card.summary[0].upper()}{card.summary[1:]}{stop}", "")
    yield from ("| | |", "|---|---|", f"| {kind} of the family | {card.family} |")
    yield f"| reference | {card.reference}{link} |"
    yield f"| random | {'no' if card.deterministic else 'yes, by the seed and the input alone'} |"
    if card.higher_precision:
        yield "| precision | float64 is advised: rounding decides much of the result |"
    for trait in card.traits:
        yield f"| note | {TRAITS[trait]} |"
    needs = getattr(card, "needs", ())
    if needs:
        yield f"| needs beside the map | {', '.join(needs)} |"
    yield ""


def _picture(family: str) -> Iterator[str]:
    """Yield the picture of a family's page, if it has one."""
    name = "chelsea" if family == "uni.md" else Path(family).stem
    if (DOCS / "images" / f"{name}.jpg").exists():
        yield f"![Methods of this family on the same photograph](../images/{name}.jpg)"
        yield ""


def _cost(entry: Entry[Any]) -> Iterator[str]:
    """Yield what a component costs with its defaults."""
    if entry.cost is None:
        return
    forward, backward = entry.cost
    maps = getattr(entry(), "explanations", 0)
    more = f", and {maps} more maps" if maps else ""
    yield from (f"At most {forward} forward and {backward} backward passes per input{more}.", "")


def _docstring(build: Callable[..., Any]) -> Iterator[str]:
    """Yield the reference of the class that the entry builds, if it is a class."""
    if inspect.isclass(build):
        place = f"{build.__module__}.{build.__qualname__}"
        yield from ("## Reference", "", f"::: {place}", "    options:", "      heading_level: 3")
        yield from ("      members: false", "")


def _title(page: str) -> str:
    """Return the title of a page of `docs`."""
    return (DOCS / page).read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")


def _anchor(name: str) -> str:
    """Return the anchor of a metric's section in metrics.md."""
    text = (DOCS / "metrics.md").read_text(encoding="utf-8")
    headings = re.findall(r"^#{2,4} (.*)$", text, re.MULTILINE)
    heading = next(heading for heading in headings if f"`{name}`" in heading)
    return slugify(heading.replace("`", ""), "-")


class Doctests(Extension, Preprocessor):
    """Fences the doctests of docstrings, from each first `>>>` to the next empty line."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802  # named by the library
        """Run before the fences of code are read, which superfences does at priority 25."""
        md.preprocessors.register(self, "doctests", 30)

    def run(self, lines: list[str]) -> list[str]:
        """Return the lines of a page with a fence around each doctest."""
        doctest = re.compile(r"^( *)>>> .*(?:\n.*\S.*)*", re.MULTILINE)
        return doctest.sub(r"\n\1```pycon\n\g<0>\n\1```\n", "\n".join(lines)).split("\n")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Render doctests as code; add generated and unnamed pages to the navigation."""
    config.markdown_extensions.append(Doctests())  # type: ignore[arg-type]
    sections = {title: pages for section in config.nav or [] for title, pages in section.items()}
    known = set(re.findall(r"[\w-]+\.md", json.dumps(sections)))
    generated = list(pages())
    sections["How to"].append({"Notebooks": _under(generated, "notebooks")})
    for kind in REGISTRIES:
        sections["Reference"].append({f"All {kind}": _under(generated, kind)})
    sections["Reference"].append({"Python": _under(generated, "api")})
    others = sorted(path.name for path in DOCS.glob("*.md") if path.name not in known)
    if others:
        sections["How to"].append({"More": others})
    config.nav = [{title: pages} for title, pages in sections.items()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for place, text in {**pages(), "llms.txt": llms_text()}.items():
        files.append(File.generated(config, place, content=text))
    return files


def _under(generated: list[str], folder: str) -> list[Mapping[str, str]]:
    """Return the navigation of a folder, the page that lists all of it first."""
    places = [place for place in generated if place.startswith(f"{folder}/")]
    places.sort(key=lambda place: not place.endswith("/all.md"))
    return [{Path(place).stem: place} for place in places]
