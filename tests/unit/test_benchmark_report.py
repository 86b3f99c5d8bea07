"""What `unilens report` writes: numbers, words and pictures, and that it is safe to open."""

import csv
import json
import re
import tomllib
from html.parser import HTMLParser

import numpy
import pytest

from unilens import UnilensError
from unilens.benchmark.plan import make_plan
from unilens.benchmark.report import cells, charts, findings, paper, queries, tables
from unilens.benchmark.report.comparison import write_comparison
from unilens.benchmark.report.gallery import gallery
from unilens.benchmark.report.page import FILES, plan_as_toml, write_report
from unilens.benchmark.report.statistics import Family, analyse
from unilens.benchmark.store import Store
from unilens.diagnostics import LEVELS, WARNINGS
from unilens.errors import UnilensWarning
from unilens.methods import methods
from unilens.metrics import metrics
from unilens.output.levels import LEVEL_STYLES, warning_lines
from unilens.output.text import latex
from unilens.specs import Spec

EVIL = "<script>alert('x')</script>&\"'"


class Page(HTMLParser):
    """Tables by caption, as lists of rows of texts; tags and attributes; ids and texts."""

    VOID = ("meta", "img", "line", "path", "circle", "rect", "polyline", "polygon", "use")

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.tables, self.open, self.texts = [], [], {}, [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, key, value or "") for key, value in attributes]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "table":
            self.rows, self.caption = [], ""
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, key, value or "") for key, value in attributes]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "table":
            self.tables[self.caption] = [[" ".join(c.split()) for c in row] for row in self.rows]

    def handle_data(self, data):
        self.texts.append(data)
        if self.open and self.open[-1] == "caption":
            self.caption += data
        elif "table" in self.open and {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def page_of(store, folder=None):
    folder = folder or store.folder / "report"
    write_report(store, folder)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def text_of(page):
    return " ".join(" ".join(page.texts).split())


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def values_of(store, **place):
    rows = store.table().to_pylist()
    found = [r["value"] for r in rows if all(r[key] == one for key, one in place.items())]
    return numpy.array([one for one in found if one is not None])


@pytest.fixture
def run(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    return command


def lose(rows):
    """Make three rows undefined, unfit and failed."""
    for row, status in zip(
        [r for r in rows if (r["method"], r["metric"]) == ("gradient", "stability")],
        ("undefined", "inapplicable", "failed"),
        strict=False,
    ):
        row.update(value=None, status=status, reason=f"it is {status}")


def test_summary_csv_is_numpys(make_run):
    store = make_run(change=lose)
    write_report(store, store.folder / "report")
    rows = read_csv(store.folder / "report" / "summary.csv")
    assert len(rows) == 15
    for row in rows:
        values = values_of(store, method=row["method"], metric=row["metric"])
        assert int(row["n"]) == len(values)
        assert float(row["mean"]) == pytest.approx(values.mean(), rel=1e-12)
        assert float(row["sd"]) == pytest.approx(values.std(ddof=1), rel=1e-12)
        assert float(row["interval_low"]) < values.mean() < float(row["interval_high"])
    (lost,) = [r for r in rows if (r["method"], r["metric"]) == ("gradient", "stability")]
    assert (lost["undefined"], lost["inapplicable"], lost["failed"]) == ("1", "1", "1")


def test_every_number_of_the_tables_is_that_of_the_summary(make_run):
    store = make_run(change=lose, models=["torchvision:resnet18", "torchvision:vit_b_16"])
    page = page_of(store)
    rows = read_csv(store.folder / "report" / "summary.csv")
    for metric in store.plan.metrics:
        (table,) = [one for caption, one in page.tables.items() if caption.startswith(f"{metric} ")]
        assert table[0] == ["method", *store.plan.models]
        assert [line[0] for line in table[1:]] == list(store.plan.methods)
        for method, *shown in table[1:]:
            for model, text in zip(store.plan.models, shown, strict=True):
                place = {"metric": metric, "method": method, "model": model}
                (row,) = [r for r in rows if all(r[key] == one for key, one in place.items())]
                mean, sd, low, high = (
                    tables.number(float(row[key]))
                    for key in ("mean", "sd", "interval_low", "interval_high")
                )
                assert text.startswith(f"{mean} ± {sd}")
                assert f"[{low}, {high}], n {row['n']}" in text
                assert ("★" in text) == (row["standing"] == "leader")
                assert ("≈" in text) == (row["standing"] == "level")
                assert (f"{row['failed']} failed" in text) == (row["failed"] != "0")
                if row["paper_mean"]:
                    assert f"paper {tables.number(float(row['paper_mean']))}" in text
                else:
                    assert "paper" not in text


def test_tests_csv_pairs_by_image(make_run):
    store = make_run(change=lose)
    write_report(store, store.folder / "report")
    rows = read_csv(store.folder / "report" / "tests.csv")
    assert len(rows) == 3 * 10
    (row,) = [
        r
        for r in rows
        if (r["metric"], r["first"], r["second"]) == ("stability", "uni", "gradient")
    ]
    by_image = {}
    for one in store.table().to_pylist():
        if one["metric"] == "stability":
            by_image.setdefault(one["image"], {})[one["method"]] = one["value"]
    differences = [v["uni"] - v["gradient"] for v in by_image.values() if v["gradient"] is not None]
    assert int(row["n"]) == len(differences) == 5
    assert float(row["mean_difference"]) == pytest.approx(numpy.mean(differences))
    assert float(row["p"]) == pytest.approx(2 / 2**5)


def test_the_page_loads_nothing_and_runs_nothing(make_run):
    page = page_of(make_run(pictures=8))
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(page.tags)
    for tag, key, value in page.attributes:
        assert not key.startswith("on"), (tag, key)
        if key in ("href", "src", "xlink:href", "srcset", "action"):
            assert value.startswith(("#", "data:image/webp;base64,")), (tag, key, value)
    style = "".join(page.texts[: page.texts.index("\n") + 40])
    assert "url(" not in style
    assert "@import" not in style
    assert page.open == []


def test_links_lead_somewhere_and_no_id_is_given_twice(make_run):
    page = page_of(make_run())
    ids = [value for _, key, value in page.attributes if key == "id"]
    links = {value[1:] for _, key, value in page.attributes if key == "href"}
    assert len(ids) == len(set(ids))
    assert links <= set(ids)


def test_it_can_be_read_without_seeing_it(make_run):
    page = page_of(make_run(pictures=8))
    tags = page.tags
    assert tags.count("caption") == tags.count("table")
    assert tags.count("th") == sum(key == "scope" for tag, key, _ in page.attributes if tag == "th")
    assert tags.count("img") == sum(
        bool(value) for _, key, value in page.attributes if key == "alt"
    )
    hidden = sum(key == "aria-hidden" for tag, key, _ in page.attributes if tag == "svg")
    told = sum(key == "aria-label" for tag, key, _ in page.attributes if tag == "svg")
    assert hidden + told == tags.count("svg")
    assert ("html", "lang", "en") in page.attributes


def test_warnings_are_listed_by_level_with_their_sentences(make_run):
    levels = {name: rule.level for name, rule in WARNINGS.items()}
    chosen = ["gone", *{level: name for name, level in levels.items()}.values()]  # one of each

    def change(rows):
        for row in rows:
            row["warnings"] = chosen if row["method"] == "ig" else chosen[:2]

    page = page_of(make_run(change=change, pictures=0))
    heading, *rows = page.tables["Maps with a warning"]
    assert heading == ["method", "model", "level", "warning", "maps"]
    order = [*reversed(LEVELS), "unknown"]
    shown = [level.split()[-1] for _, _, level, _, _ in rows]
    assert shown == sorted(shown, key=order.index)
    for _, _, level, name, _ in rows:
        expected = levels.get(name)
        assert level == (f"{LEVEL_STYLES[expected].symbol} {expected}" if expected else "unknown")
    assert {name for _, _, _, name, _ in rows} == set(chosen)
    for line in warning_lines(chosen[1:]):
        assert str(line) in text_of(page)


@pytest.mark.slow
def test_what_users_wrote_is_text(make_run):
    def change(rows):
        for row in rows:
            row["image"] = EVIL + row["image"]
            row["warnings"] = [EVIL]
            row["method_settings"] = EVIL
            if row["method"] == "ig":
                row.update(value=None, status="failed", reason=EVIL)

    store = make_run(change=change, pictures=0, data={"source": EVIL})
    page = page_of(store)
    assert "script" not in page.tags
    assert text_of(page).count(EVIL) >= 4
    again = make_run("again", rows=store.table().to_pylist(), data={"source": "samples"})
    write_comparison(store, again, again.folder / "cmp")
    other = Page((again.folder / "cmp" / "comparison.html").read_text(encoding="utf-8"))
    assert "script" not in other.tags
    assert EVIL in text_of(other)


def result(values, metric="insertion_auc", methods=("uni", "ig", "gradient")):
    none = (0,) * len(methods)
    one = Family("", 0, "m", metric, methods, numpy.asarray(values, float), none, none, none)
    return findings.result_of(one, metrics[metric].card, analyse(one))


@pytest.mark.parametrize(
    ("metric", "best"), [("insertion_auc", "ig"), ("deletion_auc", "gradient")]
)
def test_the_leader_is_best_in_the_metrics_own_direction(metric, best):
    values = numpy.linspace(0, 1, 12)[:, None] + [1.0, 2.0, 0.0]
    found = result(values, metric)
    assert found.leader == best
    assert found.clear
    assert found.standing("uni") == "behind"
    assert found.ranked[0].method == best


def test_standing_is_level_without_significance():
    random = numpy.random.default_rng(0)
    values = random.normal(size=(12, 1)) + random.normal(0, 1, (12, 3)) + [0, 0.1, -9]
    found = result(values)
    assert found.methods_with("level") == [one.method for one in found.ranked][1:2]
    assert found.methods_with("behind") == ["gradient"]
    assert not found.clear


def test_a_better_mean_with_worse_images_is_said():
    uni = numpy.r_[numpy.full(29, 0.4), 9.0]  # one outlier makes the mean
    values = numpy.stack([uni, numpy.full(30, 0.5), numpy.full(30, 0.1)], axis=1)
    values[:29, 1] += numpy.linspace(0, 0.1, 29)
    found = result(values)
    assert found.leader == "uni"
    assert found.standing("ig") == "contrary"


def test_words_where_uni_loses_and_where_nothing_could_be_said():
    values = numpy.linspace(0, 1, 12)[:, None] + [0.0, 2.0, 1.0]
    lost, few = result(values), result(values[:4])
    (said,) = findings.uni_against_others([lost], ["uni"])
    assert "of 1 tables it has the best mean in 0" in said
    assert said.endswith("with a worse mean, in 1.")
    assert few.powerless
    assert not lost.powerless
    agreed, clear = findings.overall([lost, lost])
    assert agreed == "ig has the best mean in all 2 tables of metric and model."
    assert clear == "Significantly better than every other method: ig in 2."
    differed, _ = findings.overall([lost, lost, result(values[:, [1, 0, 2]])])
    assert differed == (
        "The metrics and models do not agree: of 3 tables of metric and model, the best mean is "
        "that of ig in 2, uni in 1."
    )
    (few_said,) = findings.overall([few])[1:]
    assert few_said.startswith("In none of them")


def test_the_page_says_who_leads_and_that_uni_is_behind(make_run):
    def change(rows):
        for row in rows:
            if row["method"] == "uni":
                row["value"] += 0.5 * (1 if row["metric"].startswith("deletion") else -1)

    said = text_of(page_of(make_run(images=40, change=change)))
    assert "uni: of 3 tables it has the best mean in 0" in said
    assert said.count("uni is behind ig:baseline=blur: mean difference") == 3
    assert f"uni: {methods['uni'].card.reference}." in said


def test_the_page_says_that_uni_blur_is_of_unilens(make_run):
    def change(rows):
        for row in rows:
            if row["method"] == "uni":
                row["method"] = "uni_blur"

    methods = ["uni_blur", "ig", "ig:baseline=blur", "gradient", "gradcam"]
    said = text_of(page_of(make_run(change=change, methods=methods)))
    assert "uni_blur: this package, after Choi et al. 2025, arXiv 2410.08069." in said


def test_remarks_name_what_is_missing(make_run):
    plan = make_plan({"metrics": ["fgsm_top_k", "insertion_auc"], "random_weights": True})
    said = " ".join(findings.remarks(plan, [], 5, 2))
    for words in (
        "random weights",
        "5 images are few",
        "noise_spearman",
        "weights at all",
        "One imputer each: insertion_auc.",
        "2 rows failed",
    ):
        assert words in said
    controlled = make_plan(
        {
            "metrics": [
                "fgsm_top_k",
                "noise_top_k",
                "random_logit",
                "insertion_auc:imputer=[black,blur]",
            ]
        }
    )
    assert findings.remarks(controlled, [], 100, 0) == []


@pytest.mark.parametrize(
    ("rank_by", "expected"), [("insertion_auc", [4, 2, 0]), ("deletion_auc", [0, 2, 4])]
)
def test_best_median_and_worst_are_among_the_pictured(make_run, rank_by, expected):
    def change(rows):
        for row in rows:
            row["value"] = float(row["image"][5:8])  # photo004 has 4

    store = make_run(change=change, pictures=5, rank_by=rank_by)
    with queries.opened(rows=store) as connection:
        found = gallery(store.plan, cells.Cells(connection, store.plan), "", 0)
    for _, shown in found[0]["methods"]:
        assert [one.rank for one in shown] == ["best", "median", "worst"]
        assert [one.value for one in shown] == expected
    assert len(found[0]["methods"]) == 5


def test_one_picture_is_shown_once(make_run):
    page = page_of(make_run(pictures=1))
    assert page.tags.count("img") == 5


@pytest.mark.slow
def test_an_incomplete_run_is_called_so(make_run):
    whole = make_run("whole")
    assert "complete: 120 of 120" in text_of(page_of(whole))
    part = make_run("part", rows=whole.table().to_pylist()[:-7])
    assert "not complete: 113 of the 120" in text_of(page_of(part))


@pytest.mark.slow
def test_corruptions_have_their_own_tables_and_accuracy(make_run):
    noisy = {"corruptions": [{"name": "gaussian_noise", "severity": 3}]}
    store = make_run(data=noisy)
    page = page_of(store)
    assert "complete: 240 of 240" in text_of(page)
    captions = [one for one in page.tables if one.startswith("insertion_auc ")]
    assert captions == [
        "insertion_auc ↑, images as they are",
        "insertion_auc ↑, gaussian_noise, severity 3",
    ]
    changed = page.tables[captions[1]]
    assert not any("paper" in cell for row in changed for cell in row)
    accuracy = page.tables["Accuracy of each model on the labelled images"]
    assert [row[1] for row in accuracy[1:]] == ["images as they are", "gaussian_noise, severity 3"]
    assert [row[3] for row in accuracy[1:]] == ["0.750", "0.750"]


@pytest.mark.slow
def test_latex_is_balanced_and_escaped(make_run):
    store = make_run(models=["torchvision:resnet18", "timm:vit_base_patch16_224"])
    write_report(store, store.folder / "report")
    text = (store.folder / "report" / "summary.tex").read_text(encoding="utf-8")
    body = re.sub(r"(?m)^%.*$", "", text)
    begun = re.findall(r"\\begin\{(\w+)\}", body)
    assert begun == ["table", "tabular"] * 3
    assert sorted(re.findall(r"\\end\{(\w+)\}", body)) == sorted(begun)
    depth = 0
    for one in re.sub(r"\\[{}]", "", body):
        depth += (one == "{") - (one == "}")
        assert depth >= 0
    assert depth == 0
    assert not re.search(r"(?<!\\)[_#%]", re.sub(r"\$[^$]*\$", "", body))
    assert body.replace(r"\$", "").count("$") % 2 == 0
    lines = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len(lines) == 3 * (1 + 2 * 5)
    assert {line.count("&") for line in lines} == {2}
    assert body.count(r"\mathbf{") == 6


def test_latex_escapes_each_special_character():
    assert latex(r"a_b%c&d$e#f{g}~^\ [h]") == (
        r"a\_b\%c\&d\$e\#f\{g\}\textasciitilde{}\textasciicircum{}\textbackslash{} {[}h{]}"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.0, "0.000"), (-0.25, "−0.250"), (1e-5, "1.0e−05"), (123456.0, "1.2e+05")],
)
def test_numbers_for_readers(value, text):
    assert tables.number(value) == text


@pytest.mark.parametrize(
    ("model", "method", "metric", "mean", "sd", "table"),
    [
        ("torchvision:resnet18", "uni_paper", "monotonicity", 0.97, 0.222, 1),
        ("timm:resnet18.a1_in1k", "uni_paper", "mu_fidelity_abs", 0.12, 0.124, 2),
        ("torchvision:efficientnet_v2_s", "agi", "deletion_auc", 0.18, 0.207, 3),
        ("timm:vit_base_patch16_224", "ig", "insertion_auc", 0.32, 0.107, 4),
        ("torchvision:convnext_tiny", "guided_ig", "mu_fidelity_abs", 0.18, 0.149, 2),
        ("torchvision:vgg16_bn", "gradient", "fgsm_spearman", 0.014, None, 5),
        ("hf:google/vit-base-patch16-224", "uni_paper", "fgsm_top_k", 0.407, None, 6),
        ("torchvision:convnext_tiny", "uni_paper", "confidence_change", -0.951, None, 7),
        ("torchvision:vgg16_bn", "uni_paper", "lpips", 0.001, None, 7),
    ],
)
def test_the_papers_figures(model, method, metric, mean, sd, table):
    found = paper.figure(model, Spec(method, {}), Spec(metric, {}))
    assert (found.mean, found.sd, found.table) == (pytest.approx(mean), sd, table)
    assert ("percent" in found.note) == (metric in ("fgsm_top_k", "confidence_change"))


@pytest.mark.parametrize(
    ("model", "method", "metric"),
    [
        ("efficientnet_lite0", Spec("uni_paper", {}), Spec("monotonicity", {})),
        ("torchvision:resnet50", Spec("uni_paper", {}), Spec("monotonicity", {})),
        ("py:resnet18", Spec("uni_paper", {}), Spec("monotonicity", {})),
        ("torchvision:resnet18", Spec("ig", {"baseline": "blur"}), Spec("monotonicity", {})),
        ("torchvision:resnet18", Spec("uni_paper", {"score": "logit"}), Spec("monotonicity", {})),
        ("torchvision:resnet18", Spec("gradcam", {}), Spec("insertion_auc", {})),
        ("torchvision:resnet18", Spec("uni", {}), Spec("insertion_auc", {})),
        ("torchvision:resnet18", Spec("uni_blur", {}), Spec("insertion_auc", {})),
        ("torchvision:vgg16_bn", Spec("uni", {}), Spec("lpips", {})),
        ("torchvision:resnet18", Spec("ig", {}), Spec("confidence_change", {})),
        ("torchvision:resnet18", Spec("uni_paper", {}), Spec("mu_fidelity", {})),
        ("torchvision:resnet18", Spec("uni_paper", {}), Spec("fgsm_top_k", {"k": 500})),
        ("torchvision:resnet18", Spec("uni_paper", {}), Spec("lpips", {"network": "squeeze"})),
    ],
)
def test_what_the_paper_does_not_have(model, method, metric):
    assert paper.figure(model, method, metric) is None


def test_settings_that_leave_a_method_the_papers_own():
    model, metric = "torchvision:resnet18", Spec("monotonicity", {"n_steps": 30})
    assert (
        paper.figure(model, Spec("ig", {"baseline": "black", "n_steps": 15}), metric).mean == 0.69
    )
    assert paper.figure(model, Spec("uni_paper", {"n_steps": 15}), metric).mean == 0.97


def test_the_papers_tables_are_whole_and_the_slip_is_named():
    found = paper.tables()["tables"]
    models = {"resnet18", "efficientnet_v2_s", "convnext_tiny", "vgg16_bn", "vit_b_16", "swin_t"}
    assert {name: set(one["values"]) for name, one in found.items()} == dict.fromkeys(found, models)
    assert [one["table"] for one in found.values()] == [1, 2, 3, 4, 5, 6, 7, 7, 7]
    for name in ("attack_spearman", "attack_top_1000_percent"):
        assert found[name]["values"]["swin_t"] == found[name]["values"]["resnet18"]
    slip = paper.figure("torchvision:swin_t", Spec("uni_paper", {}), Spec("fgsm_spearman", {}))
    assert "slip" in slip.note
    assert (
        "slip"
        not in paper.figure("torchvision:swin_t", Spec("uni_paper", {}), Spec("lpips", {})).note
    )
    said = " ".join(paper.notes())
    assert "not strictly comparable" in said
    assert "swin_t" in said


@pytest.mark.slow
def test_untrained_models_are_not_put_beside_the_paper(make_run):
    said = {"methods": ["uni_paper", "ig", "gradient"]}
    assert "paper 0.640" in text_of(page_of(make_run("trained", **said)))
    untrained = make_run("untrained", random_weights=True, **said)
    assert "paper 0.640" not in text_of(page_of(untrained))
    assert "paper 0.640" not in text_of(page_of(make_run("normalised")))


def test_a_plan_as_toml_is_the_plan():
    plan = make_plan(
        {
            "methods": ["uni", "ig:baseline=blur"],
            "metrics": ["mu_fidelity:imputer=[black,blur],cells=7", "stability"],
            "settings": {"n_steps": 15, "score": "logit"},
            "data": {
                "source": 'a "quoted" ü\\path',
                "corruptions": [{"name": "gaussian_noise", "severity": 2}],
            },
            "rank_by": "stability",
        }
    )
    assert make_plan(tomllib.loads(plan_as_toml(plan))) == plan


def test_labels_do_not_cover_each_other():
    random = numpy.random.default_rng(0)
    for _ in range(50):
        expected = list(random.uniform(0, 330, 25))
        places = charts.space_labels(expected, 13, 8, 340)
        ordered = numpy.sort(places)
        assert numpy.diff(ordered).min() >= 13 - 1e-9
        assert ordered[0] >= 8 - 1e-9
        assert ordered[-1] <= 340
        assert list(numpy.argsort(places)) == list(numpy.argsort(expected))


@pytest.mark.parametrize("span", [(0.0, 1.0), (-3e-7, 2e-7), (12.0, 98000.0), (0.31, 0.33)])
def test_ticks_are_round_and_inside(span):
    axis = charts.Axis(*span, 0, 100)
    places = [at for at, _ in axis.ticks]
    assert 3 <= len(places) <= 11
    assert all(-1e-6 <= at <= 100 + 1e-6 for at in places)
    assert numpy.diff(places) == pytest.approx(numpy.diff(places)[0], abs=0.11)


def test_a_log_axis_is_even_in_ratios():
    axis = charts.Axis(0.01, 100, 0, 400, log=True)
    assert [axis.at(value) for value in (0.01, 0.1, 1, 10, 100)] == [0, 100, 200, 300, 400]
    assert [text for _, text in axis.ticks] == ["0.01", "0.1", "1", "10", "100"]


def test_two_runs_that_say_the_same(make_run):
    first = make_run("first")
    second = make_run("second")
    write_comparison(first, second, second.folder / "cmp")
    said = text_of(Page((second.folder / "cmp" / "comparison.html").read_text(encoding="utf-8")))
    assert "120 rows; 120 of them identical to the last bit" in said
    assert "the runs say the same" in said
    assert "Both have the same images" in said
    assert "With care" not in said


def test_two_runs_that_differ(make_run):
    def change(rows):
        for row in rows:
            row["map_seconds"] = 9.0  # time is no difference
            if row["method"] == "uni":
                row["value"] += 0.125 + 0.01 * int(row["image"][5:8])
            if row["method"] == "ig" and row["image"] == "photo001.png":
                row["value"] = -0.0
            if row["image"] == "photo002.png":
                row["content"] = "other"
            if row["method"] == "gradcam" and row["metric"] == "stability":
                row["value"] -= 1.0

    def zero(rows):
        for row in rows:
            if row["method"] == "ig" and row["image"] == "photo001.png":
                row["value"] = 0.0

    methods = ["uni", "ig", "gradcam"]
    first = make_run("first", change=zero, methods=[*methods, "gradient"], pictures=0)
    rows = [r for r in first.table().to_pylist() if r["method"] != "gradient"]
    second = make_run("second", rows=rows, change=change, methods=methods, dtype="float64")
    write_comparison(first, second, second.folder / "cmp")
    said = text_of(Page((second.folder / "cmp" / "comparison.html").read_text(encoding="utf-8")))
    # 8 images x 3 metrics x 3 methods; all of uni, 8 of gradcam, -0.0 thrice, one whole image
    assert f"72 rows; {72 - 24 - 8 - 3 - 5} of them identical" in said
    assert "dtype is float32 in A and float64 in B" in said
    assert "1 images of the same name do not have the same pixels" in said
    assert "24 rows are only in A, 0 only in B" in said
    lines = read_csv(second.folder / "cmp" / "comparison.csv")
    assert [(one["metric"], one["method"]) for one in lines] == [
        (metric, method) for metric in second.plan.metrics for method in methods
    ]
    uni = lines[0]
    assert float(uni["mean_difference"]) == pytest.approx(0.125 + 0.01 * 3.5)
    assert float(uni["mean_b"]) - float(uni["mean_a"]) == pytest.approx(0.16)
    assert float(uni["p"]) == float(uni["p_holm"]) == 2 / 2**8  # the others have no difference
    assert 0.125 < float(uni["interval_low"]) < 0.16 < float(uni["interval_high"]) < 0.195
    assert (lines[2]["p"], lines[2]["significant"]) == ("", "false")
    stability = [one for one in lines if one["metric"] == "stability" and one["method"] != "ig"]
    assert [float(one["p_holm"]) for one in stability] == [2 * 2 / 2**8] * 2


@pytest.mark.slow
def test_the_commands_write_where_they_say(make_run, run, tmp_path):
    first, second = make_run("first"), make_run("second")
    code, out, err = run("report", first.folder)
    assert (code, err) == (0, "")
    folder = first.folder / "report"
    assert sorted(one.name for one in folder.iterdir()) == sorted(FILES)
    files, board = out.split("\n\n", 1)
    assert [line.split()[-1] for line in files.splitlines()] == [
        str(folder / name) for name in FILES
    ]
    assert all(method in board for method in first.plan.methods)
    (folder / "notes.txt").write_text("mine")
    (folder / "report.html").write_text("old")
    assert run("report", first.folder)[0] == 0
    assert (folder / "notes.txt").read_text() == "mine"
    assert "old" not in (folder / "report.html").read_text(encoding="utf-8")[:100]
    assert run("report", first.folder, "--out", tmp_path / "elsewhere")[0] == 0
    assert (tmp_path / "elsewhere" / "report.html").exists()
    assert run("report", first.folder, second.folder)[0] == 0
    written = sorted(one.name for one in (second.folder / "report-vs-first").iterdir())
    assert written == ["comparison.csv", "comparison.html"]
    assert Store(first.folder).digest() == second.digest()


def test_what_is_no_run_is_refused_in_one_line(make_run, run, tmp_path):
    empty = make_run("empty", rows=[])
    whole = make_run("whole")
    for arguments, words in (
        ((tmp_path,), "expected the folder of a run"),
        ((empty.folder,), "got none yet"),
        ((whole.folder, empty.folder), "got none yet"),
        ((whole.folder, tmp_path / "nowhere"), "expected the folder of a run"),
    ):
        code, out, err = run("report", *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert words in err
    manifest = whole.folder / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"schema": 99}))
    code, _, err = run("report", whole.folder)
    assert code == 2
    assert "of schema 1, got 99" in err


def test_a_broken_file_of_rows_is_named(make_run):
    store = make_run()
    store.shards[0].write_bytes(b"junk")
    with pytest.warns(UnilensWarning, match="left out: 1, .* 60 of 120 rows are missing"):
        write_report(store, store.folder / "report")
    assert "60 of 120 rows are missing" in (store.folder / "report" / "report.html").read_text()


def test_a_folder_that_cannot_be_written_is_named(make_run, tmp_path):
    store = make_run()
    (tmp_path / "file").write_text("")
    with pytest.raises(UnilensError, match="choose another with --out"):
        write_report(store, tmp_path / "file" / "report")
