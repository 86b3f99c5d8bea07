"""A plan says what it is to do, and a wrong one is refused by the key that is wrong."""

from pathlib import Path

import pytest

from unilens.benchmark.plan import check_resumable, make_plan, presets, read_plan, read_plan_file
from unilens.errors import UnilensError
from unilens.methods import methods
from unilens.metrics import metrics
from unilens.specs import split_specs

ROOT = Path(__file__).parents[2]


def test_what_a_plan_does_not_say_has_its_default():
    plan = read_plan('methods = ["ig"]\n[data]\nsource = "photos"')
    assert plan.models == ("efficientnet_lite0",)
    assert plan.seed == 0
    assert plan.data.conditions == [None]
    assert plan.engine.name == "local"


def test_flags_take_the_place_of_what_the_text_says():
    text = 'seed = 1\n[data]\nsource = "photos"\nlimit = 3'
    plan = read_plan(text, {"seed": 2, "data": {"limit": 5}})
    assert (plan.seed, plan.data.source, plan.data.limit) == (2, str(Path("photos").absolute()), 5)


def test_settings_go_to_the_methods_that_have_them():
    plan = read_plan('methods = ["ig:n_steps=4", "uni", "gradient"]\nsettings = { n_steps = 7 }')
    steps = {name: spec.settings.get("n_steps") for name, spec in plan.method_specs.items()}
    assert steps == {"ig:n_steps=4": 4, "uni": 7, "gradient": None}


def test_all_is_every_method_and_every_metric_that_needs_no_mask():
    plan = make_plan({"methods": ["all"], "metrics": ["all"]})
    assert list(plan.methods) == list(methods)
    of_the_truth = {"pointing_game", "relevance_mass", "relevance_rank", "single_deletion"}
    assert set(plan.metrics) == set(metrics) - of_the_truth


@pytest.mark.parametrize("source", ["samples", "s3://bucket/val", "hf:repo", "torchvision:CIFAR10"])
def test_only_paths_are_made_whole(source):
    assert make_plan({"data": {"source": source}}).data.source == source


def test_a_setting_is_given_once():
    with pytest.raises(UnilensError, match="n_steps twice"):
        make_plan({"methods": ["ig:n_steps=2,n_steps=3"]})


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("seeds = 3", "seeds", "did you mean seed"),
        ('seed = "three"', "seed", "integer"),
        ("seed = -1", "seed", "greater than or equal to 0"),
        ("methods = []", "methods", "at least 1"),
        ('methods = ["igg"]', "unknown method 'igg'", "did you mean ig"),
        ('methods = ["ig:steps=3"]', "setting of ig", "n_steps"),
        ('methods = ["ig:n_steps=0"]', "n_steps", "at least 1"),
        ('methods = ["ig", "ig"]', "methods", "ig more than once"),
        ('metrics = ["deletion"]', "unknown metric 'deletion'", "deletion_auc"),
        ('metrics = ["pointing_game"]', "pointing_game", "a mask of the object"),
        ('models = ["resnet18"]', "models", "unknown model 'resnet18'"),
        ('models = ["tv:resnet18"]', "models", "unknown kind of model 'tv'"),
        ('target = ""', "target", "at least 1 character"),
        ('rank_by = "road"', "rank_by", "insertion_auc"),
        ("[data]\nlimit = 0", "data.limit", "greater than or equal to 1"),
        ("[data]\nfolder = 3", "data.folder", "source"),
        ("[data]\nclean = false", "data", "expected corruptions"),
        (
            '[data]\ncorruptions = [{ name = "rain", severity = 1 }]',
            "data.corruptions.0.name",
            "unknown corruption 'rain'",
        ),
        (
            '[data]\ncorruptions = [{ name = "contrast", severity = 6 }]',
            "data.corruptions.0.severity",
            "less than or equal to 5",
        ),
        ('[engine]\nname = "dask"', "engine.name", "'local' or 'ray'"),
        ("[engine]\ncpus = 0", "engine.cpus", "greater than or equal to 1"),
        ('[engine]\naddress = "auto"', "engine", "address has no effect without name = 'ray'"),
        ("[engine]\ncpus = 2", "engine", "cpus has no effect without workers"),
        ('[data]\nsource = ""', "data.source", "at least 1 character"),
        ("seed = ", "the plan", "TOML"),
    ],
)
def test_a_wrong_plan_is_one_line_that_names_the_key(text, key, words):
    with pytest.raises(UnilensError) as error:
        read_plan(text)
    assert key in str(error.value)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_a_plan_that_cannot_be_read(tmp_path, name):
    with pytest.raises(UnilensError, match="could not read the plan"):
        read_plan_file(tmp_path / name)


@pytest.mark.parametrize("name", presets())
def test_the_presets_are_plans(name):
    assert read_plan(presets()[name], origin=name)


def test_the_preset_of_the_paper_has_its_networks_and_methods():
    plan = read_plan(presets()["paper"])
    assert [name.partition(":")[2] for name in plan.models] == [
        "resnet18",
        "efficientnet_v2_s",
        "convnext_tiny",
        "vgg16_bn",
        "vit_b_16",
        "swin_t",
    ]
    named = {spec.name for spec in plan.method_specs.values()}
    compared = {"blur_ig", "guided_ig", "agi", "guided_backprop", "deeplift", "gradient"}
    assert compared | {"uni_paper", "ig"} <= named


BEFORE = {
    "methods": ["ig"],
    "data": {"source": "photos", "limit": 5, "corruptions": [{"name": "contrast", "severity": 1}]},
}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"methods": ["gradient", "ig"]},
        {"models": ["efficientnet_lite0", "efficientnet_lite1"]},
        {"data": {**BEFORE["data"], "limit": 6}},
        {"data": {**BEFORE["data"], "limit": None}},
        {"engine": {"name": "ray"}},
    ],
)
def test_a_run_goes_on_with_a_plan_that_asks_for_more(more):
    check_resumable(make_plan(BEFORE), make_plan(BEFORE | more))


@pytest.mark.parametrize(
    ("other", "key"),
    [
        ({"methods": ["gradient"]}, "methods: ig left out"),
        ({"seed": 1}, "seed: was 0, now 1"),
        ({"settings": {"n_steps": 3}}, "settings"),
        ({"dtype": "float64"}, "dtype"),
        ({"target": "label"}, "target"),
        ({"data": {**BEFORE["data"], "limit": 4}}, "data.limit: was 5, now 4"),
        ({"data": {**BEFORE["data"], "source": "others"}}, "data.source"),
        ({"data": {**BEFORE["data"], "corruptions": []}}, "data.corruptions"),
        ({"data": {**BEFORE["data"], "split": "test"}}, "data.split"),
    ],
)
def test_a_run_does_not_go_on_with_another_plan(other, key):
    with pytest.raises(UnilensError, match="another plan") as error:
        check_resumable(make_plan(BEFORE), make_plan(BEFORE | other))
    assert key in str(error.value)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["uni,ig"], ["uni", "ig"]),
        (
            ["uni", "ig:baseline=blur,sigma=10,gradient"],
            ["uni", "ig:baseline=blur,sigma=10", "gradient"],
        ),
        (
            ["mu_fidelity:imputer=[black,blur],cells=7,road"],
            ["mu_fidelity:imputer=[black,blur],cells=7", "road"],
        ),
        (["a, b ,"], ["a", "b"]),
    ],
)
def test_several_things_in_one_text(given, expected):
    assert split_specs(given) == expected


@pytest.mark.parametrize(
    "path", sorted((ROOT / "benchmarks").glob("*.toml")), ids=lambda one: one.stem
)
def test_the_plans_of_the_pages_are_plans(path):
    plan = read_plan_file(path)
    assert "uni" in {spec.name for spec in plan.method_specs.values()}
    assert len(plan.metric_specs) >= 3


def test_a_folder_is_the_same_by_whatever_way_it_is_named(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "runs").mkdir()
    ways = [tmp_path / "photos", tmp_path / "runs" / ".." / "photos"]
    first, second = (make_plan({"data": {"source": str(way)}}) for way in ways)
    check_resumable(first, second)
    assert first.data.source == second.data.source
