"""What mkdocs makes of the registries: a page for every method, metric, baseline and module.

A hook of mkdocs (mkdocs.yml names it). The pages are made while the site is built and never kept.
Pages of `docs` that the navigation does not name come under "More", notebooks under "Notebooks".
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
    """Return the text of every page that is made, by where it lies in the site."""
    made = {f"methods/{name}.md": method_page(name) for name in methods}
    made |= {f"metrics/{name}.md": metric_page(name) for name in metrics}
    made |= {f"baselines/{name}.md": baseline_page(name) for name in baselines}
    made |= {f"api/{name}.md": reference_page(name) for name in MODULES}
    return made | {f"notebooks/{path.stem}.md": notebook_page(path) for path in notebooks()}


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
    low, high = ("no bound" if one is None else f"{one:g}" for one in card.bounds)
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
            "Beside the others: [Baselines](../baselines.md); which to take: "
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
    """Yield title, summary and what the card says."""
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
        yield f"Passes per input, at the most: {cost[0]} forward, {cost[1]} backward{more}."
        yield ""
    if not entry.settings:
        return
    yield from ("## Settings", "", "| setting | default | choices |", "|---|---|---|")
    required = _required(entry)
    for name, default in entry.settings.items():
        needed = name in required
        choices = entry.choices(name) if isinstance(default, str) else ()
        listed = ", ".join(f"`{one}`" for one in choices) if len(choices) > 1 else ""
        yield f"| `{name}` | {'required' if needed else f'`{_shown(default)}`'} | {listed} |"
    yield ""


def _required(entry: Entry[Any]) -> list[str]:
    """Return the settings without which the thing does nothing; references have no default."""
    return [
        name
        for name, default in entry.settings.items()
        if default is inspect.Parameter.empty or (name == "references" and default is None)
    ]


def _shown(default: object) -> str:
    """Return a default as a reader would write it, on one line."""
    return " ".join(repr(default).split()).replace("|", "\\|")


def _docstring(build: Callable[..., Any]) -> Iterator[str]:
    """Yield the reference of the class that is built, where it is one."""
    if inspect.isclass(build):
        place = f"{build.__module__}.{build.__qualname__}"
        yield from ("## Reference", "", f"::: {place}", "    options:", "      heading_level: 3")
        yield from ("      members: false", "")


def _spec(name: str, required: list[str]) -> str:
    return f"{name}:{','.join(f'{one}=samples' for one in required)}" if required else name


def _title(page: str) -> str:
    """Return the title of a page of `docs`."""
    return (DOCS / page).read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")


def _anchor(name: str) -> str:
    """Return the anchor of a metric's section in metrics.md."""
    text = (DOCS / "metrics.md").read_text(encoding="utf-8")
    headings = re.findall(r"^#{2,4} (.*)$", text, re.MULTILINE)
    heading = next(one for one in headings if f"`{name}`" in one)
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
    made = list(pages())
    for title, folder in (("Notebooks", "notebooks"), ("Every method", "methods")):
        nav.append({title: _under(made, folder)})
    nav.append({"Every metric": _under(made, "metrics")})
    nav.append({"Every baseline": _under(made, "baselines")})
    nav.append({"Python reference": _under(made, "api")})
    if others:
        nav.append({"More": others})
    config.nav = nav
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    for place, text in pages().items():
        files.append(File.generated(config, place, content=text))
    return files


def _under(made: list[str], folder: str) -> list[Mapping[str, str]]:
    return [{Path(place).stem: place} for place in made if place.startswith(f"{folder}/")]
