"""The catalogue, which is read without torch, says what the registries say."""

import itertools
import sys
from importlib import util
from pathlib import Path

import pytest
import timm
import torchvision

from unilens import UnilensError, UnknownNameError
from unilens._catalogue import listing
from unilens._catalogue.model_names import check_model
from unilens.baselines import baselines
from unilens.methods import methods
from unilens.metrics import metrics
from unilens.metrics.robustness.corruptions import PACKAGED
from unilens.paths import paths
from unilens.specs import read_specs
from unilens.text.methods import text_baselines, text_methods
from unilens.weightings import weightings

SCRIPT = Path(__file__).parents[2] / "docs" / "catalogue.py"


@pytest.fixture(scope="module")
def script():
    spec = util.spec_from_file_location("catalogue", SCRIPT)
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_file_is_what_the_script_writes(script):
    assert script.PATH.read_text(encoding="utf-8") == script.as_text(), (
        "run: python docs/catalogue.py"
    )


def test_cards_are_those_of_the_registries(script):
    for kind, registry in script.REGISTRIES.items():
        read = {name: entry.card for name, entry in listing(kind).items()}
        assert read == {name: entry.card for name, entry in registry.items()}


def names_of(entry, given):
    """The settings that are valid, or none where the combination is refused when it is built."""
    try:
        return set(entry.settings_with(given))
    except UnknownNameError:
        raise
    except UnilensError:
        return None


@pytest.mark.parametrize("name", methods)
def test_settings_are_valid_with_the_same_components(name):
    chosen = [
        dict(zip(("baseline", "path", "weighting"), names, strict=True))
        for names in itertools.product(baselines, paths, weightings)
    ]
    for given in ({}, *chosen):
        valid = names_of(methods[name], given)
        if valid is not None:
            assert set(listing("methods")[name].settings_with(given)) == valid, given


@pytest.mark.parametrize("inner", [name for name in methods if "grad" not in name])
def test_settings_of_a_smoothed_method_are_those_of_its_inner_method(inner):
    given = {"inner": inner, "baseline": "blur"}
    assert set(listing("methods")["vargrad"].settings_with(given)) == set(
        methods["vargrad"].settings_with(given)
    )


def test_settings_of_metrics_and_of_methods_of_texts_are_those_of_the_registries():
    for name, entry in metrics.items():
        assert set(listing("metrics")[name].settings_with({})) == set(entry.settings)
    assert list(listing("text_methods")) == list(text_methods)
    for baseline in text_baselines:
        read = listing("text_methods")["ig"].settings_with({"baseline": baseline})
        assert set(read) == set(text_methods["ig"].settings_with({"baseline": baseline}))


def test_every_setting_has_a_meaning():
    for kind in ("methods", "metrics", "baselines", "paths", "weightings", "imputers"):
        for name, entry in listing(kind).items():
            for setting, facts in entry.own.items():
                assert len(facts.meaning) > 8, (kind, name, setting)


def test_corruptions_of_benchmarks_are_named_where_corruptions_are_listed():
    from unilens.cli.listing import _NOTES

    assert all(name in _NOTES["corruptions"] for name in PACKAGED)


def test_models_of_libraries_are_offered():
    known = {
        "timm": timm.list_models(),
        "torchvision": torchvision.models.list_models(module=torchvision.models),
    }
    for library, names in known.items():
        for name in (names[0], names[len(names) // 2], names[-1], "resnet50", "vgg16"):
            with pytest.raises(UnknownNameError, match=f"{library}:{name}"):
                check_model(name)
    with pytest.raises(UnknownNameError) as raised:
        check_model("fcn_resnet50")  # a segmentation network
    assert "torchvision:" not in str(raised.value)


def test_hyphens_and_underscores_are_alike_in_names_and_settings():
    specs = read_specs(listing("methods"), ["guided-ig:n-steps=3,baseline=max-entropy"])
    (spec,) = specs.values()
    assert spec.name == "guided_ig"
    assert spec.settings == {"n_steps": 3, "baseline": "max-entropy"}
    assert methods["guided-ig"] is methods["guided_ig"]
    built = methods[spec.name](**spec.settings)
    assert built.baseline == baselines["max_entropy"]()
    assert metrics["mu-fidelity"] is metrics["mu_fidelity"]
    check_model("efficientnet-lite0")
    assert sys.modules["unilens"].methods is not sys.modules["unilens.methods"]
