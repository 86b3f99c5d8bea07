"""Generate the pages of the site: one for every method, metric, baseline, module and notebook.

A hook of mkdocs (see mkdocs.yml). The pages exist only while the site is built. Pages of `docs`
that the navigation leaves out come under "More".
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

import unilens
from unilens.baselines import baselines
from unilens.methods import methods
from unilens.metrics import MetricCard, metrics
from unilens.registry import Card, Entry

DOCS = Path(__file__).parent
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
    "path": "",
}
DIRECTIONS = {True: "Higher is better.", False: "Lower is better.", None: "Neither end is good."}


def pages() -> dict[str, str]:
    """Return the text of every generated page, by its path in the site."""
    generated = {f"methods/{name}.md": method_page(name) for name in methods}
    generated |= {f"metrics/{name}.md": metric_page(name) for name in metrics}
    generated |= {f"baselines/{name}.md": baseline_page(name) for name in baselines}
    generated |= {f"api/{name}.md": reference_page(name) for name in MODULES}
    return generated | {f"notebooks/{path.stem}.md": notebook_page(path) for path in notebooks()}


def notebooks() -> list[Path]:
    """Return the notebooks, in order of their names."""
    return sorted((DOCS / "notebooks").glob("*.ipynb"))


def method_page(name: str) -> str:
    """Return the page of a method, from its card."""
    entry = methods[name]
    family = PAGE_OF_FAMILY[entry.card.family]
    picture = DOCS / "images" / f"{Path(family).stem}.jpg"
    required = _required(entry)
    given = "".join(f", {key}={key}" for key in required)
    return "\n".join(
        [
            *_head(entry.card, "method"),
            "```python",
            f'attribution = unilens.explain(model, images, "{name}"{given})',
            "```",
            "",
            "```sh",
            f"unilens explain photo.jpg --method {_spec(name, required)}",
            "```",
            "",
            f"Formulas, and what was measured: [{_title(family)}](../{family}).",
            "",
            *(
                [f"![The methods of this family on the same photograph](../images/{picture.name})"]
                if picture.exists()
                else []
            ),
            *_settings(entry),
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
            *_settings(entry),
            *_docstring(entry.build),
        ]
    )


def baseline_page(name: str) -> str:
    """Return the page of a baseline, from its card."""
    entry = baselines[name]
    required = _required(entry)
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
            *_settings(entry),
            *_docstring(entry.build),
        ]
    )


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
    yield from (f"# `{card.name}`", "", f"{card.summary[0].upper()}{card.summary[1:]}.", "")
    yield from ("| | |", "|---|---|", f"| {kind} of the family | {card.family} |")
    yield f"| reference | {card.reference}{link} |"
    yield f"| random | {'no' if card.deterministic else 'yes, by the seed and the input alone'} |"
    if card.higher_precision:
        yield "| precision | float64 is advised: rounding decides much of the result |"
    needs = getattr(card, "needs", ())
    if needs:
        yield f"| needs beside the map | {', '.join(needs)} |"
    yield ""


def _settings(entry: Entry[Any]) -> Iterator[str]:
    """Yield the cost and the table of settings."""
    cost = entry.cost
    if cost is not None:
        maps = getattr(entry(), "explanations", 0)
        more = f", and {maps} more maps" if maps else ""
        yield f"At most {cost[0]} forward and {cost[1]} backward passes per input{more}."
        yield ""
    if not entry.settings:
        return
    yield from ("## Settings", "", "| setting | default | choices |", "|---|---|---|")
    required = _required(entry)
    for name, default in entry.settings.items():
        needed = name in required
        choices = entry.choices(name) if isinstance(default, str) else ()
        listed = ", ".join(f"`{choice}`" for choice in choices) if len(choices) > 1 else ""
        yield f"| `{name}` | {'required' if needed else f'`{_shown(default)}`'} | {listed} |"
    yield ""


def _required(entry: Entry[Any]) -> list[str]:
    """Return the settings that must be given; references have no default that works."""
    return [
        name
        for name, default in entry.settings.items()
        if default is inspect.Parameter.empty or (name == "references" and default is None)
    ]


def _shown(default: object) -> str:
    """Return a default as Python code on one line."""
    return " ".join(repr(default).split()).replace("|", "\\|")


def _docstring(build: Callable[..., Any]) -> Iterator[str]:
    """Yield the reference of the class that the entry builds, if it is a class."""
    if inspect.isclass(build):
        place = f"{build.__module__}.{build.__qualname__}"
        yield from ("## Reference", "", f"::: {place}", "    options:", "      heading_level: 3")
        yield from ("      members: false", "")


def _spec(name: str, required: list[str]) -> str:
    return f"{name}:{','.join(f'{setting}=samples' for setting in required)}" if required else name


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
    nav = config.nav or []
    known = set(re.findall(r"[\w-]+\.md", json.dumps(nav)))
    others = sorted(path.name for path in DOCS.glob("*.md") if path.name not in known)
    generated = list(pages())
    for title, folder in (("Notebooks", "notebooks"), ("Every method", "methods")):
        nav.append({title: _under(generated, folder)})
    nav.append({"Every metric": _under(generated, "metrics")})
    nav.append({"Every baseline": _under(generated, "baselines")})
    nav.append({"Python reference": _under(generated, "api")})
    if others:
        nav.append({"More": others})
    config.nav = nav
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for place, text in pages().items():
        files.append(File.generated(config, place, content=text))
    return files


def _under(generated: list[str], folder: str) -> list[Mapping[str, str]]:
    return [{Path(place).stem: place} for place in generated if place.startswith(f"{folder}/")]
