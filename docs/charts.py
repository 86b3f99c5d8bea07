"""Draw the charts that open the pages of evidence, and write the five rows under each.

Run:    python docs/charts.py [PAGE ...]

Charts and rows come from the kept rows in `benchmarks/results`, from the paper's figures in
`unilens/benchmark/report/paper.json`, or from the tables further down on the page. Rows stand
between the two marks in a page and are replaced there.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from statistics import mean

import numpy
from drawing import LIGHT, ORANGE, PURPLE, SLATE, Chart, bars, blank, folded, tidy
from evidence import (
    HERE,
    cells_of,
    kept,
    networks,
    number,
    paper_mean,
    rows_of_page,
    table,
    text_of,
    write_rows,
)

from unilens.benchmark.report.statistics import interval, resampled

CHOSEN_ON = 31
"""Photographs of the comparison on which the settings of `uni_blur` were chosen."""
FULL_STEP = "uni_blur:gradient=normalised,line_search=false,projection=sphere"
NAMES = {
    FULL_STEP: "uni_blur (full step)",
    "gradcam": "gradcam",
    "occlusion:window=32,stride=32": "occlusion",
    "deeplift": "deeplift",
    "smoothgrad:n_samples=8": "smoothgrad",
    "ig:n_steps=15": "ig, black",
    "ig:n_steps=15,baseline=blur": "ig, blur",
    "guided_ig:n_steps=15": "guided_ig",
    "uni_paper": "uni_paper",
    "edges": "edges (control)",
    "random": "random (control)",
}
"""Methods of the comparison that its chart shows, and what they are called there."""


def benchmark() -> Chart:
    """Means over three networks, on the photographs that nothing was chosen on."""
    metrics = {
        "mu_fidelity:subsets=100": "μ-fidelity ↑",
        "insertion_auc": "insertion ↑",
        "deletion_auc": "deletion ↓",
    }
    values = {
        (method, metric): [
            mean(kept("comparison", CHOSEN_ON)[network, method, metric])
            for network in networks("comparison")
        ]
        for method in NAMES
        for metric in metrics
    }
    figure = blank(3.6)
    panels = figure.subplots(1, 3, sharey=True)
    for panel, (metric, title) in zip(panels, metrics.items(), strict=True):
        bars(panel, list(NAMES.values()), [mean(values[name, metric]) for name in NAMES], title)
        for place, name in enumerate(NAMES):
            panel.plot(values[name, metric], [place] * 3, ".", color="black", markersize=3)
    shown = (FULL_STEP, "gradcam", "ig:n_steps=15", "uni_paper", "random")
    rows = [
        (f"`{NAMES[name]}`", *(number(mean(values[name, metric])) for metric in metrics))
        for name in shown
    ]
    return Chart(figure, table(("method", *metrics.values()), rows))


def beyond() -> Chart:
    """Where `uni_blur` stands: best, level or below, by model and metric."""
    cells = [row for row in rows_of_page("beyond", 8) if row[6] in ("best", "level", "below")]
    models = list(dict.fromkeys(row[0] for row in cells))
    metrics = list(dict.fromkeys(row[1].strip("`") for row in cells))
    looks = {"best": (PURPLE, "● best"), "level": (SLATE, "○ level"), "below": (ORANGE, "▼ below")}
    figure = blank(3.4)
    axes = figure.subplots()
    for model, metric, *_, verdict, _ in cells:
        place = (metrics.index(metric.strip("`")), models.index(model))
        colour, text = looks[verdict]
        axes.text(*place, text, ha="center", va="center", color=colour, fontsize=8, weight="bold")
    axes.set_xticks(range(len(metrics)), [folded(name) for name in metrics], size=7)
    axes.set_yticks(range(len(models)), models, size=8)
    axes.set(xlim=(-0.6, len(metrics) - 0.4), ylim=(len(models) - 0.5, -0.5))
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    rows = [
        (model, *(sum(row[0] == model and row[6] == verdict for row in cells) for verdict in looks))
        for model in models
    ]
    return Chart(figure, table(("model", *looks), rows))


def experiments() -> Chart:
    """The paper's tables beside ours: means over its six networks, and over our three."""
    tables = {
        "monotonicity": ("1, monotonicity ↑", "monotonicity", 1),
        "mu_fidelity_abs": ("2, MuFidelity ↑", "mu_fidelity_abs:subsets=100", 1),
        "deletion_auc": ("3, deletion ↓", "deletion_auc", 1),
        "insertion_auc": ("4, insertion ↑", "insertion_auc", 1),
        "baseline_confidence_change_percent": ("7, confidence ↓", "confidence_change", 100),
    }
    methods = {"uni": "uni_paper", "ig": "ig:n_steps=15"}
    theirs = {
        (method, name): paper_mean(name, method) / per
        for name, (_, _, per) in tables.items()
        for method in methods
    }
    ours = {
        (method, name): mean(
            mean(kept("comparison")[network, kept_as, metric]) for network in networks("comparison")
        )
        for name, (_, metric, _) in tables.items()
        for method, kept_as in methods.items()
    }
    figure = blank(2.6)
    for panel, (name, (title, *_)) in zip(
        figure.subplots(1, len(tables)), tables.items(), strict=True
    ):
        for place, method in enumerate(methods):
            colour = PURPLE if method == "uni" else SLATE
            for shift, values, look in ((-0.2, theirs, LIGHT), (0.2, ours, colour)):
                height = values[method, name]
                panel.bar(place + shift, height, 0.36, color=look, edgecolor=colour)
        panel.set_xticks((0, 1), ("UNI", "IG"))
        panel.set_title(title, fontsize=8)
        tidy(panel)
    figure.supxlabel("light: the paper's six networks; dark: our three", fontsize=8)
    heading = ("table", "UNI, paper", "UNI, here", "IG, paper", "IG, here")
    rows = [
        (
            title,
            *(number(values[method, name], 2) for method in methods for values in (theirs, ours)),
        )
        for name, (title, *_) in tables.items()
    ]
    return Chart(figure, table(heading, rows))


def domains() -> Chart:
    """MuFidelity of four maps in five domains."""
    shown = ("uni_blur", "ig", "gradient", "random")
    sections = re.split(r"^## ", text_of("domains"), flags=re.MULTILINE)[1:]
    values = {
        section.partition("\n")[0]: {
            row[0].strip("`"): float(row[5].replace("−", "-"))
            for row in cells_of(section, 7)
            if row[0].startswith("`")
        }
        for section in sections
    }
    figure = blank(2.8)
    axes = figure.subplots()
    colours = (PURPLE, ORANGE, SLATE, LIGHT)
    for shift, (method, colour) in enumerate(zip(shown, colours, strict=True)):
        heights = [of[method] for of in values.values()]
        places = [place + 0.2 * (shift - 1.5) for place in range(len(values))]
        axes.bar(places, heights, 0.19, color=colour, label=method)
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_xticks(range(len(values)), [folded(name) for name in values], size=8)
    axes.set_title("MuFidelity ↑", fontsize=9)
    axes.legend(frameon=False, fontsize=8, ncols=4)
    tidy(axes)
    rows = [(name, *(number(of[method], 2) for method in shown)) for name, of in values.items()]
    return Chart(figure, table(("domain", *(f"`{name}`" for name in shown)), rows))


def transformers() -> Chart:
    """Means on DINOv2."""
    metrics = {
        "mu_fidelity:cells=16,subsets=100,imputer=image_mean": "μ-fidelity ↑",
        "insertion_auc:cells=16,imputer=image_mean": "insertion ↑",
        "deletion_auc:cells=16,imputer=image_mean": "deletion ↓",
    }
    values = {
        (method, metric): mean(of)
        for (_, method, metric), of in kept("vision_transformers").items()
    }
    methods = sorted(
        {method for method, _ in values}, key=lambda name: -values[name, next(iter(metrics))]
    )
    names = {
        name: name.partition(":")[0] + ", balanced" * name.endswith("balanced=true")
        for name in methods
    }
    figure = blank(4.2)
    panels = figure.subplots(1, 3, sharey=True)
    for panel, (metric, title) in zip(panels, metrics.items(), strict=True):
        bars(panel, list(names.values()), [values[name, metric] for name in methods], title)
    shown = ("ig:n_steps=15", "gradient_rollout", "uni_blur", "gradcam", "random")
    rows = [
        (f"`{names[name]}`", *(number(values[name, metric]) for metric in metrics))
        for name in shown
    ]
    return Chart(figure, table(("method", *metrics.values()), rows))


TRUTH_NAMES = {
    "uni_blur": "uni_blur",
    "uni": "uni",
    "uni_paper": "uni_paper",
    "deeplift": "deeplift",
    "ig:n_steps=30": "ig, black",
    "ig:n_steps=30,baseline=blur": "ig, blur",
    "guided_ig:n_steps=30": "guided_ig",
    "blur_ig:n_steps=30": "blur_ig",
    "rise:n_masks=1000": "rise",
    "occlusion:window=8,stride=4": "occlusion",
    "gradcam": "gradcam",
    "smoothgrad:n_samples=30": "smoothgrad",
    "gradient": "gradient",
    "guided_backprop": "guided_backprop",
    "edges": "edges (control)",
    "random": "random (control)",
}
"""Methods that the chart of known truth shows, and what they are called there."""


def truth() -> Chart:
    """Means against the truth under three networks, with intervals."""
    metrics = {
        "texture": ("texture: inside ↑", "relevance_rank:reduction=abs"),
        "shortcut": ("shortcut: inside ↑", "relevance_rank:reduction=abs"),
        "birds": ("birds: single deletion ↑", "single_deletion"),
    }
    values = {
        (name, method): kept(f"truth/{name}")[f"truth:{name}", method, metric]
        for name, (_, metric) in metrics.items()
        for method in TRUTH_NAMES
    }
    figure = blank(4.0)
    panels = figure.subplots(1, 3, sharey=True)
    for panel, (name, (title, _)) in zip(panels, metrics.items(), strict=True):
        lengths = [mean(values[name, method]) for method in TRUTH_NAMES]
        bars(panel, list(TRUTH_NAMES.values()), lengths, title)
        for place, method in enumerate(TRUTH_NAMES):
            ends = interval(resampled(numpy.array(values[name, method])[:, None], seed=0)[0])
            panel.plot(ends, [place] * 2, color="black", linewidth=1)
    shown = ("uni_blur", "uni", "ig:n_steps=30", "deeplift", "random")
    rows = [
        (f"`{TRUTH_NAMES[method]}`", *(number(mean(values[name, method]), 2) for name in metrics))
        for method in shown
    ]
    return Chart(figure, table(("method", *(title for title, _ in metrics.values())), rows))


def performance() -> Chart:
    """Seconds for eight photographs."""
    shown = {
        "15 bare passes, channels-last": "15 bare passes",
        "`ig`, 15 steps": "ig",
        "`ig`, 15 steps, with the model's preparation": "ig, model prepared anew",
        "captum 0.9 IG, 15 steps": "captum's IG",
        "`uni_paper`": "uni_paper",
    }
    seconds = {row[0]: row[1] for row in rows_of_page("performance", 4) if row[0] in shown}
    figure = blank(1.9)
    bars(
        figure.subplots(),
        [shown[name] for name in seconds],
        [float(value) for value in seconds.values()],
        "seconds for 8 photographs, on two cores",
    )
    return Chart(figure, table(("what", "seconds"), seconds.items()))


def cost() -> Chart:
    """Hours of one core for the maps of 50,000 images under six networks."""
    hours = [row for row in rows_of_page("cost", 4) if re.fullmatch(r"[\d.]+%", row[3])]
    names = [row[0].replace("`", "") for row in hours]
    figure = blank(3.2)
    axes = figure.subplots()
    heights = [float(row[2].replace(",", "")) for row in hours]
    bars(axes, names, heights, "hours of one core, 50,000 images × 6 models (logarithmic)")
    axes.set_xscale("log")
    rows = [(name, of, share) for name, _, of, share in hours[:5]]
    return Chart(figure, table(("method", "hours", "share"), rows))


def models() -> Chart:
    """How far integrated gradients lie from captum's, one point per family."""
    libraries = re.split(r"^## ", text_of("models").partition("## Not built")[0], flags=re.M)[1:]
    values = {
        section.partition("\n")[0]: [
            float(row[6]) for row in cells_of(section, 10) if re.match(r"\d", row[6])
        ]
        for section in libraries
    }
    figure = blank(2.4)
    axes = figure.subplots()
    for place, of in enumerate(values.values()):
        heights = [place + 0.3 * ((turn * 0.618) % 1 - 0.5) for turn in range(len(of))]
        axes.plot([max(one, 1e-17) for one in of], heights, ".", color=PURPLE, alpha=0.5)
    axes.axvline(1e-6, color=ORANGE, linestyle="--", label="right up to here")
    axes.set_xscale("log")
    axes.set_yticks(range(len(values)), list(values))
    axes.invert_yaxis()
    axes.set_title("largest difference from captum's integrated gradients", fontsize=9)
    axes.legend(frameon=False, fontsize=8)
    tidy(axes)
    return Chart(figure, [])


CHARTS: dict[str, Callable[[], Chart]] = {
    function.__name__: function
    for function in (
        benchmark,
        beyond,
        experiments,
        domains,
        transformers,
        truth,
        performance,
        cost,
        models,
    )
}
"""By the name of the page."""


def main() -> None:
    """Draw the charts of the pages named on the command line, or all, and write their rows."""
    for page in sys.argv[1:] or CHARTS:
        chart = CHARTS[page]()
        chart.figure.savefig(HERE / "images" / f"chart-{page}.png", dpi=110)
        if chart.rows:
            write_rows(page, chart.rows)


if __name__ == "__main__":
    main()
