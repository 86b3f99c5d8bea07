"""Measure and draw what docs/domains.md says: the same four maps in five domains.

Run:    python docs/domains.py [DOMAIN ...]

Needs the extras `hf`, `manifold` and `test`.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from PIL import Image
from skimage import data
from timm.models import VisionTransformer
from torch import Tensor, nn

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "benchmarks")]

from tests.table_models import cancer  # noqa: E402
from tests.text_models import HELD_OUT, sentiment  # noqa: E402

from tangent_study.sets import load_split  # noqa: E402
from unilens import Attribution, Evaluator, explain, load_model  # noqa: E402
from unilens._ops.correlation import spearman  # noqa: E402
from unilens.manifold.training import seeded, train  # noqa: E402
from unilens.metrics import MetricCache, metrics  # noqa: E402
from unilens.models import PixelClassifier, samples  # noqa: E402
from unilens.output.viz import heatmap, pixels  # noqa: E402
from unilens.text import TextClassifier  # noqa: E402

METHODS: dict[str, dict[str, Any]] = {
    "uni_blur": {},
    "ig": {},
    "gradient": {},
    "random": {},
}
METRICS = ("deletion_auc", "insertion_auc", "mu_fidelity")


class Domain(NamedTuple):
    """What is explained, how, and what the metrics put in the place of what they remove.

    Attributes:
        cases: models with the inputs `(B, *S)` that they are asked about.
        fill: of the metrics.
        methods: by the name to be shown; each with its settings.
        draw: from the maps of every method and case to a picture.
    """

    cases: list[tuple[Evaluator, Tensor]]
    fill: str
    methods: Mapping[str, dict[str, Any]]
    draw: Callable[[dict[str, list[Attribution]]], Figure]


def photographs() -> Domain:
    """Return six photographs under a MobileNet-like network with ImageNet's weights."""
    model = load_model()
    images = torch.stack([model.preprocess(samples[name]()) for name in samples])
    return Domain(
        [(Evaluator(model), images)],
        "blur",
        METHODS,
        lambda found: grid(images[:3], first(found), named(model, images[:3])),
    )


def histology() -> Domain:
    """Return a retina and a stained tissue under the same network, which knows neither."""
    model = load_model()
    loaded = [Image.fromarray(one()) for one in (data.retina, data.immunohistochemistry)]
    images = torch.stack([model.preprocess(one) for one in loaded])
    return Domain(
        [(Evaluator(model), images)],
        "blur",
        METHODS,
        lambda found: grid(images, first(found), named(model, images)),
    )


def transformer() -> Domain:
    """Return 100 handwritten digits under a vision transformer that is trained here."""
    split = load_split("mnist5000")
    model = fitted_transformer(split.train.values, split.train.labels)
    images, labels = split.held_out.values, split.held_out.labels
    print(f"accuracy {(predicted(model, images) == labels).double().mean():.3f}", flush=True)
    some = images[:100]
    titles = [f"“{number}”" for number in predicted(model, some[:3]).tolist()]
    return Domain(
        [(Evaluator(model), some)],
        "blur",
        METHODS,
        lambda found: grid(some[:3], first(found), titles),
    )


def table() -> Domain:
    """Return held-out patients, standardised, under a perceptron that is trained here."""
    model, _, inputs, target, names = cancer()
    rows = (inputs - model.mean) / model.std
    print(f"accuracy {(predicted(model.model, rows) == target).double().mean():.3f}")
    methods = {
        "uni_blur": {},
        "uni_blur:budget=2": {"method": "uni_blur", "budget": 2.0},
        **METHODS,
    }
    return Domain(
        [(Evaluator(model.model, independent=False), rows)],
        "black",
        methods,
        lambda found: bars(names, {name: of[0].values[0] for name, of in found.items()}, most=8),
    )


def text() -> Domain:
    """Return ten sentences at the embeddings of MiniLM, whose head is trained here."""
    classifier = TextClassifier(*sentiment())
    read = [classifier.encode(sentence) for sentence, word in HELD_OUT if word is not None]
    methods = METHODS | {"uni_blur": {**METHODS["uni_blur"], "units": classifier.typical_norm}}
    shown = next(number for number, one in enumerate(read) if "soup" in one.tokens.text)
    tokens = read[shown].tokens

    def draw(found: dict[str, list[Attribution]]) -> Figure:
        words = {name: tokens.by_word(of[shown].values[0].sum(0)) for name, of in found.items()}
        return bars(tokens.words, words)

    return Domain([(Evaluator(one.model), one.embeddings) for one in read], "black", methods, draw)


DOMAINS = {one.__name__: one for one in (photographs, transformer, table, text, histology)}


def fitted_transformer(images: Tensor, labels: Tensor) -> nn.Module:
    """Return a transformer of four layers that reads an image of 28 x 28 in patches of 7 x 7."""
    sizes = {"img_size": 28, "patch_size": 7, "embed_dim": 64, "depth": 4, "num_heads": 4}
    model = seeded(0, lambda: VisionTransformer(in_chans=1, num_classes=10, **sizes))
    return train(
        model,
        lambda numbers: nn.functional.cross_entropy(model(images[numbers]), labels[numbers]),
        len(images),
        epochs=40,
        learning_rate=2e-3,
        batch=64,
        seed=0,
    )


def predicted(model: nn.Module, inputs: Tensor) -> Tensor:
    """Return the class of every input, `(B,)`."""
    with torch.no_grad():
        return model(inputs).argmax(1)


def first(found: dict[str, list[Attribution]]) -> dict[str, Tensor]:
    """Return the values of the first case."""
    return {name: of[0].values for name, of in found.items()}


def named(model: PixelClassifier, images: Tensor) -> list[str]:
    """Return the label of every image, and how sure the model is of it."""
    with torch.no_grad():
        sure, target = model(images).softmax(1).max(1)
    return [
        f"“{model.label(one)}” {share:.2f}"
        for one, share in zip(target.tolist(), sure.tolist(), strict=True)
    ]


def grid(images: Tensor, found: dict[str, Tensor], titles: list[str]) -> Figure:
    """Draw a row per image: itself, and its maps."""
    figure = Figure(figsize=(1.9 * (len(found) + 1), 2.0 * len(images)), layout="constrained")
    axes = figure.subplots(len(images), len(found) + 1, squeeze=False)
    for row, (line, image) in enumerate(zip(axes, images, strict=True)):
        line[0].imshow(pixels(image))
        line[0].set_title(titles[row], fontsize=9)
        for ax, (name, values) in zip(line[1:], found.items(), strict=True):
            ax.imshow(heatmap(values[row]))
            ax.set_title("" if row else name, fontsize=10)
        for ax in line:
            ax.set_axis_off()
    return figure


def bars(names: list[str], found: dict[str, Tensor], most: int | None = None) -> Figure:
    """Draw what every column or word gave, of the first method's `most` strongest columns."""
    strongest = next(iter(found.values())).abs().argsort(descending=True)[:most]
    shown = range(len(names)) if most is None else strongest.tolist()
    figure = Figure(figsize=(11, 0.6 + 0.27 * len(shown)), layout="constrained")
    for ax, (name, values) in zip(
        figure.subplots(1, len(found), sharey=True), found.items(), strict=True
    ):
        lengths = [float(values[one]) for one in shown]
        colours = ["#e66101" if one > 0 else "#8167b8" for one in lengths]
        ax.barh(range(len(shown)), lengths, color=colours)
        ax.set_yticks(range(len(shown)), [names[one] for one in shown])
        ax.set_xticks([])
        ax.axvline(0, color="black", linewidth=0.8)
        ax.set_title(name, fontsize=10)
    figure.axes[0].invert_yaxis()
    return figure


def maps(domain: Domain) -> dict[str, list[Attribution]]:
    """Return the maps of every method, one attribution for each case."""
    return {
        name: [
            explain(model, inputs, **{"method": name, **settings}) for model, inputs in domain.cases
        ]
        for name, settings in domain.methods.items()
    }


def rows(domain: Domain, found: dict[str, list[Attribution]]) -> Iterator[str]:
    """Yield the rows of the table; what metrics ask of every map alike is computed once."""
    caches = [MetricCache(model, inputs) for model, inputs in domain.cases]
    for name, of in found.items():
        yield row(domain, name, of, caches)


def row(domain: Domain, name: str, found: list[Attribution], caches: list[MetricCache]) -> str:
    """Return a method's row of the table: means over all inputs, and how often it warned."""
    change, gap = (
        torch.cat([measured(one) for one in found]).mean()
        for measured in (confidence_change, lambda one: one.completeness_gap.abs())
    )
    scores = [
        torch.cat(
            [
                metrics[metric](imputer=domain.fill)(model, inputs, one, cache=cache).values
                for (model, inputs), one, cache in zip(domain.cases, found, caches, strict=True)
            ]
        ).nanmean()
        for metric in METRICS
    ]
    warned = Counter(warning for one in found for each in one.warnings for warning in each)
    count = sum(len(inputs) for _, inputs in domain.cases)
    said = ", ".join(f"`{warning}` {times}/{count}" for warning, times in warned.items())
    cells = [f"{change:+.2f}", f"{gap:.1g}", *(f"{float(score):.2f}" for score in scores)]
    return f"| `{name}` | {' | '.join(cells)} | {said or 'none'} |".replace("+nan", "").replace(
        "nan", ""
    )


def confidence_change(found: Attribution) -> Tensor:
    """Return what the baseline takes of the confidence; NaN without a baseline."""
    return found.diagnostics.get("confidence_change", torch.full((len(found.values),), torch.nan))


def unknown(domain: Domain, found: dict[str, list[Attribution]]) -> None:
    """Print what nothing warns of: how sure the model is, and how alike two classes' maps are."""
    ((model, images),) = domain.cases
    with torch.no_grad():
        sure = model.model(images).softmax(1)
    top = sure.topk(3)
    for image in range(len(images)):
        print([
            f"{model.model.label(int(one))} {share:.2f}"
            for one, share in zip(top.indices[image], top.values[image].tolist(), strict=True)
        ])  # fmt: skip
    for name in ("uni_blur", "ig", "gradient"):
        other = explain(model, images, name, target=top.indices[:, 1])
        both = (one.values.sum(1).flatten(1) for one in (found[name][0], other))
        print(f"{name}: rank correlation with the second class {spearman(*both).tolist()}")


def main() -> None:
    """Print the tables and draw the pictures of the domains named, or of all."""
    for name in sys.argv[1:] or DOMAINS:
        print(f"\n{name}")
        domain = DOMAINS[name]()
        found = maps(domain)
        for line in rows(domain, found):
            print(line, flush=True)
        domain.draw(found).savefig(HERE / "images" / f"domain-{name}.png", dpi=72)
        if name == "histology":
            unknown(domain, found)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
