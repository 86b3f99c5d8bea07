"""Numbers, arrays and frames of other libraries: taken as what they mean, or refused in a line."""

import dataclasses
import inspect
import json
from decimal import Decimal
from fractions import Fraction

import numpy
import pandas
import pytest
import torch
from torch import nn

import unilens
from unilens import UnilensError, evaluate, explain, tables
from unilens._validation.arrays import as_number, to_tensor
from unilens._validation.inputs import check_target
from unilens._validation.models import embedding_hint
from unilens.baselines import FixedValues
from unilens.baselines.base import baselines
from unilens.interop.quantus import explain_func
from unilens.methods.base import methods
from unilens.methods.gradient import Gradient
from unilens.metrics.registry import metrics
from unilens.multi_input import Frozen
from unilens.paths.base import paths
from unilens.provenance import describe
from unilens.registry import Entry
from unilens.weightings import weightings

X = numpy.random.default_rng(0).random((3, 4))
FRAME = pandas.DataFrame(X, columns=list("abcd"))


@pytest.fixture
def linear():
    torch.manual_seed(0)
    return nn.Linear(4, 3).double().eval()


def contributions(model, inputs, target):
    """Integrated gradients of a linear model from black, in closed form: weights times inputs."""
    weights = model.weight.detach().double().numpy()
    return weights[target] * numpy.asarray(inputs, float)


def of_logits(model, inputs, target=1, **settings):
    return explain(model, inputs, "ig", target, score="logit", n_steps=2, **settings)


# Settings


def other_kinds(value):
    """The same value as other libraries have it."""
    if isinstance(value, bool):
        return [numpy.bool_(value), torch.tensor(value), numpy.array(value)]
    if isinstance(value, int):
        kinds = [numpy.int64(value), numpy.uint16(value), numpy.array(value)]
        return [*kinds, torch.tensor(value), pandas.Series([value])[0]]
    if isinstance(value, float):
        kinds = [numpy.float64(value), numpy.array(value), torch.tensor(value, dtype=torch.float64)]
        exact = float(numpy.float32(value)) == value
        return [*kinds, Fraction(value), *([numpy.float32(value)] if exact else [])]
    if isinstance(value, tuple) and value and all(isinstance(one, float) for one in value):
        exact = torch.tensor(value, dtype=torch.float64)
        return [numpy.array(value), exact, pandas.Series(value), tuple(map(numpy.float64, value))]
    return []


def settings():
    for registry in (methods, metrics, baselines, paths, weightings):
        for name, entry in registry.items():
            for setting, default in entry.settings.items():
                if default is not inspect.Parameter.empty and other_kinds(default):
                    yield pytest.param(entry, setting, default, id=f"{name}-{setting}")


@pytest.mark.parametrize(("entry", "setting", "default"), list(settings()))
def test_settings_of_every_registry_take_numbers_of_other_libraries(entry, setting, default):
    expected = entry(**{setting: default})
    for given in other_kinds(default):
        built = entry(**{setting: given})
        assert repr(built) == repr(expected)
        assert json.dumps(describe(built)) == json.dumps(describe(expected))


def test_settings_are_converted_when_a_class_is_built_directly():
    built = unilens.PathAttribution(n_steps=numpy.int64(8), create_graph=numpy.False_)
    assert (type(built.n_steps), type(built.create_graph)) == (int, bool)
    assert built == unilens.PathAttribution(n_steps=8)
    assert dataclasses.replace(built, n_steps=torch.tensor(3)).n_steps == 3


def test_settings_of_a_users_own_class_are_converted():
    @dataclasses.dataclass(frozen=True)
    class Scaled(Gradient):
        factor: float = 1.0
        several: tuple[int, ...] = (1, 2)

    built = Scaled(factor=numpy.float32(0.5), several=torch.tensor([3, 4]))
    assert (built.factor, type(built.factor), built.several) == (0.5, float, (3, 4))


def test_settings_give_the_same_values_and_provenance_as_pythons_own(linear):
    given = {"matching_steps": numpy.int8(2), "budget": torch.tensor(0.5), "seed": numpy.uint8(3)}
    bounds = {"clamp": numpy.True_, "bounds": numpy.array([0.0, 1.0])}
    found = explain(linear, torch.as_tensor(X), "uni_blur", numpy.int64(1), **given, **bounds)
    plain = {"matching_steps": 2, "budget": 0.5, "seed": 3, "clamp": True, "bounds": (0.0, 1.0)}
    expected = explain(linear, torch.as_tensor(X), "uni_blur", 1, **plain)
    assert torch.equal(found.values, expected.values)
    ours, theirs = (json.loads(json.dumps(one.provenance)) for one in (found, expected))
    assert ours | {"seconds": 0} == theirs | {"seconds": 0}


NO_SETTINGS = {
    "a float as a count": ({"n_steps": numpy.float64(8)}, "n_steps to be a whole.*got 8.0"),
    "a truth as a count": ({"n_steps": numpy.True_}, "n_steps to be a whole number.*got True"),
    "NA": ({"n_steps": pandas.NA}, "n_steps to be a whole number.*got <NA>"),
    "several counts": ({"n_steps": numpy.arange(1000)}, r"n_steps to be a whole number.*\.\.\."),
    "a count as a truth": ({"create_graph": numpy.int64(1)}, "create_graph true or false, got 1"),
    "a float as a seed": ({"seed": numpy.float32(3)}, r"seed to be a whole number.*got np.float32"),
    "a truth as a seed": ({"seed": numpy.True_}, "seed to be a whole number"),
    "a negative seed": ({"seed": numpy.int64(-1)}, "seed to be a whole number"),
    "values as a baseline": ({"baseline": X}, r"got Tensor; write unilens.baselines.FixedValues"),
}


@pytest.mark.parametrize("case", NO_SETTINGS)
def test_settings_that_do_not_fit_get_one_line(linear, case):
    given, message = NO_SETTINGS[case]
    with pytest.raises(UnilensError, match=message) as caught:
        explain(linear, torch.as_tensor(X), "ig", **given)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_evaluator_takes_a_numpy_chunk(linear):
    evaluator = unilens.Evaluator(linear, chunk=numpy.int64(4))
    found = of_logits(evaluator, torch.as_tensor(X)).values
    numpy.testing.assert_allclose(found, contributions(linear, X, 1))
    with pytest.raises(UnilensError, match="chunk to be a whole number of at least 1, got"):
        unilens.Evaluator(linear, chunk=numpy.float64(4))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (numpy.longdouble(0.5), 0.5),
        (Decimal("0.25"), 0.25),
        (numpy.str_("ig"), "ig"),
        (numpy.array("ig"), "ig"),
        (numpy.array(3, object), 3),
        (10**30, 10**30),
    ],
)
def test_as_number_gives_pythons_own(given, expected):
    found = as_number(given)
    assert found == expected
    assert isinstance(found, type(expected))


def test_as_number_leaves_a_tensor_with_a_gradient():
    learned = torch.tensor(0.5, requires_grad=True)
    assert as_number(learned) is learned


# Inputs


def sparse(kind):
    return getattr(pytest.importorskip("scipy.sparse"), kind)


def polars():
    return pytest.importorskip("polars")


INPUTS = {
    "float64": lambda: X,
    "float32": lambda: X.astype("f4"),
    "float16": lambda: X.astype("f2"),
    "float128": lambda: X.astype(numpy.longdouble),
    "big-endian": lambda: X.astype(">f8"),
    "flipped": lambda: numpy.ascontiguousarray(X[:, ::-1])[:, ::-1],
    "flipped rows": lambda: numpy.ascontiguousarray(X[::-1])[::-1],
    "read-only": lambda: numpy.broadcast_to(X, (1, 3, 4))[0],
    "Fortran order": lambda: numpy.asfortranarray(X),
    "objects": lambda: X.astype(object),
    "decimals": lambda: numpy.array([[Decimal(float(one)) for one in row] for row in X]),
    "masked, nothing missing": lambda: numpy.ma.masked_array(X, numpy.zeros(X.shape, bool)),
    "frame": lambda: FRAME,
    "frame of nullable numbers": lambda: FRAME.astype("Float64"),
    "frame with a foreign index": lambda: FRAME.set_index(pandas.Index([7, 5, 3])),
    "polars": lambda: polars().DataFrame(X, schema=list("abcd")),
    "csr": lambda: sparse("csr_matrix")(X),
    "coo": lambda: sparse("coo_array")(X),
    "torch's sparse": lambda: torch.as_tensor(X).to_sparse(),
}


@pytest.mark.parametrize("case", INPUTS)
def test_explain_takes_arrays_of_other_libraries(linear, case):
    given = INPUTS[case]()
    found = of_logits(linear, given)
    tolerance = 1e-3 if case == "float16" else 1e-6
    numpy.testing.assert_allclose(found.numpy(), contributions(linear, X, 1), rtol=tolerance)
    assert isinstance(found.values, torch.Tensor)


def test_create_graph_reaches_a_sparse_tensor(linear):
    given = torch.as_tensor(X).to_sparse().requires_grad_()
    found = of_logits(linear, given, create_graph=True)
    numpy.testing.assert_allclose(found.numpy(), contributions(linear, X, 1))
    found.values.sum().backward()
    expected = linear.weight[1].detach().expand(3, 4)
    torch.testing.assert_close(given.grad.to_dense(), expected)


def test_explain_takes_mixed_columns_as_numbers(linear):
    mixed = FRAME.assign(a=[1, 2, 3], b=[True, False, True], c=pandas.Categorical([5, 6, 5]))
    expected = contributions(linear, mixed.astype(float).to_numpy(), 0)
    numpy.testing.assert_allclose(of_logits(linear, mixed, 0).numpy(), expected)
    whole = pandas.DataFrame(numpy.arange(8).reshape(2, 4))
    expected = contributions(linear, whole.to_numpy(), 2)
    numpy.testing.assert_allclose(of_logits(linear, whole, 2).numpy(), expected)


def test_explain_does_not_share_memory_with_the_array(linear):
    given = X.copy()
    found = of_logits(linear, given)
    kept = found.values.clone()
    given[:] = 0
    assert torch.equal(found.values, kept)


DATES = pandas.to_datetime(["2020-01-01", "2020-01-02", "2020-01-03"])
NO_INPUTS = {
    "words": (lambda: FRAME.assign(b=list("xyz")), "DataFrame with text in column 'b'; encode"),
    "words of digits": (lambda: X.astype(str), "ndarray with text; encode text as numbers"),
    "objects that are words": (lambda: X.astype(str).astype(object), "ndarray with text"),
    "bytes": (lambda: X.astype("S"), "ndarray with text"),
    "categories": (lambda: FRAME.assign(b=pandas.Categorical(list("xyz"))), "text in column 'b'"),
    "a date": (lambda: FRAME.assign(b=DATES), "dates in column 'b'; convert dates to numbers"),
    "polars' dates": (
        lambda: polars().DataFrame({"a": list(DATES), "b": [1, 2, 3]}),
        "dates in column 'a'",
    ),
    "a time": (lambda: FRAME.assign(b=DATES - DATES[0]), "times in column 'b'"),
    "dates": (lambda: numpy.zeros((3, 4), "M8[s]"), "ndarray with dates"),
    "records": (lambda: numpy.zeros(3, [("a", float)]), "records; convert them with numpy.lib"),
    "complex": (lambda: X + 1j, "complex numbers; pass their real and imaginary parts"),
    "complex tensor": (lambda: torch.as_tensor(X + 1j), "complex128; pass real and imaginary"),
    "masked": (lambda: numpy.ma.masked_array(X, X > 0.5), r"without masked values.*\.filled"),
    "NaN": (lambda: numpy.where(X > 0.9, numpy.nan, X), "finite inputs.*fill what is missing"),
    "NA": (lambda: FRAME.astype("Float64").mask(FRAME > 0.9), "finite inputs.*fill what is"),
    "None": (lambda: FRAME.astype(object).mask(FRAME > 0.9, None), "finite inputs.*fill what is"),
    "whole numbers": (lambda: numpy.ones((3, 4), int), r"floating-point inputs, got torch.int64"),
    "an 8-bit image": (lambda: numpy.ones((3, 4), "u1"), "uint8; convert them.*divide 8-bit"),
    "lists": (lambda: X.tolist(), r"tensor \(B, \*S\), got list of list; stack .*as_tensor"),
    "a list of tensors": (lambda: list(torch.as_tensor(X)), "got list of Tensor; stack the inputs"),
    "a list of texts": (lambda: ["good", "bad"], "got list of str"),
    "a lazy frame": (lambda: polars().LazyFrame({"a": [1.0]}), r"LazyFrame; .*\.collect\(\)"),
    "one column": (lambda: FRAME["a"], r"shape \(B, \*S\).*got \(3,\)"),
    "nested": (
        lambda: torch.nested.nested_tensor([torch.rand(4), torch.rand(3)], layout=torch.jagged),
        "of one shape, got a nested tensor; pad",
    ),
}


@pytest.mark.parametrize("case", NO_INPUTS)
def test_explain_refuses_other_arrays_in_one_line(linear, case):
    make, message = NO_INPUTS[case]
    with pytest.raises(UnilensError, match=message) as caught:
        of_logits(linear, make())
    assert "\n" not in str(caught.value)


def test_explain_keeps_float8_inputs_apart_from_integers(linear):
    given = torch.as_tensor(X).to(torch.float8_e4m3fn)
    expected = contributions(linear, given.double().numpy(), 1)
    numpy.testing.assert_allclose(of_logits(linear, given).numpy(), expected, rtol=1e-5)


# Targets


TARGETS = {
    "array": lambda: numpy.array([0, 2, 1]),
    "flipped": lambda: numpy.array([1, 2, 0])[::-1],
    "big-endian": lambda: numpy.array([0, 2, 1], ">i4"),
    "bytes": lambda: numpy.array([0, 2, 1], "u1"),
    "objects": lambda: numpy.array([0, 2, 1], object),
    "column with a foreign index": lambda: pandas.Series([0, 2, 1], index=[2, 1, 0]),
    "nullable column": lambda: pandas.Series([0, 2, 1], dtype="Int64"),
    "polars": lambda: polars().Series([0, 2, 1]),
    "list of tensors": lambda: [torch.tensor(0), torch.tensor(2), torch.tensor(1)],
    "list of numpy's": lambda: [numpy.int64(0), numpy.uint8(2), numpy.int16(1)],
    "unsigned tensor": lambda: torch.tensor([0, 2, 1], dtype=torch.uint16),
    "generator": lambda: iter([0, 2, 1]),
}


@pytest.mark.parametrize("case", TARGETS)
def test_targets_of_other_libraries_are_taken_in_order(linear, case):
    found = of_logits(linear, X, TARGETS[case]())
    assert found.target.tolist() == [0, 2, 1]
    numpy.testing.assert_allclose(found.numpy(), contributions(linear, X, [0, 2, 1]))


@pytest.mark.parametrize("one", [numpy.int32(2), numpy.array(2), torch.tensor(2)])
def test_one_target_of_another_library_is_for_all(linear, one):
    assert of_logits(linear, X, one).target.tolist() == [2, 2, 2]


MISSING = "got missing ones for input 1; leave these inputs out, or pass target=None"
NO_TARGETS = {
    "None": ([0, None, 1], MISSING),
    "NaN": ([0, float("nan"), 1], MISSING),
    "NA": ([0, pandas.NA, 1], MISSING),
    "NaN in a tensor": (torch.tensor([0, float("nan"), 1]), MISSING),
    "a column with NaN": (pandas.Series([0, None, 1]), MISSING),
    "a nullable column": (pandas.Series([0, None, 1], dtype="Int64"), MISSING),
    "masked": (numpy.ma.masked_array([0, 2, 1], [False, True, False]), MISSING),
    "-1": ([0, -1, 1], "between 0 and 2.*got -1; leave inputs without a label out"),
    "floats": (numpy.array([0.0, 2.0, 1.0]), r"got float 0.0; pass whole numbers, as by int"),
    "one float": (1.0, "got float 1.0; pass whole numbers"),
    "truths": (numpy.array([True, False, True]), "got bool True"),
    "one-hot": (numpy.eye(3), r"of shape \(3,\), got \(3, 3\); .*one-hot target, as target.argmax"),
    "one-hot tensor": (torch.eye(3), r"of shape \(3,\), got \(3, 3\); .*target.argmax\(1\)"),
    "a frame": (pandas.DataFrame({"y": [0, 2, 1]}), r"got \(3, 1\); pass target.flatten"),
    "labels": (pandas.Series(list("abc")), "got the label 'a'; only models with labels"),
    "a mapping": ({0: 1, 1: 2, 2: 0}, "got dict; pass a list"),
    "a set": ({0, 1, 2}, "got set; pass a list"),
    "bytes": (b"abc", "got bytes; pass a list"),
    "dates": (numpy.zeros(3, "M8[D]"), "a class index or a label, got"),
    "lists of lists": ([[0], [2], [1]], "got list"),
}


@pytest.mark.parametrize("case", NO_TARGETS)
def test_targets_that_do_not_fit_get_one_line(linear, case):
    given, message = NO_TARGETS[case]
    with pytest.raises(UnilensError, match=message) as caught:
        of_logits(linear, X, given)
    assert "\n" not in str(caught.value)


def test_labels_of_numpy_are_found_by_name(linear):
    linear.class_index = ["cat", "dog", "fox"].index
    found = check_target(numpy.array(["fox", "cat", "dog"]), torch.zeros(3, 3), linear)
    assert found.tolist() == [2, 0, 1]


# References, baselines, maps


def test_references_come_in_any_array(linear):
    expected = explain(linear, X, "expected_gradients", 1, references=torch.as_tensor(X), n_steps=6)
    for given in (numpy.asfortranarray(X), FRAME, X.astype(">f8")):
        found = explain(linear, X, "expected_gradients", 1, references=given, n_steps=6)
        assert torch.equal(found.values, expected.values)


def test_given_baselines_come_in_any_array(linear):
    start = numpy.full((1, 4), 0.25)
    expected = contributions(linear, X - start, 1)
    for given in (start[:, ::-1], pandas.DataFrame(start), start.astype(">f4"), start[0]):
        found = of_logits(linear, X, baseline=FixedValues(given)).numpy()
        numpy.testing.assert_allclose(found, expected)
    with pytest.raises(UnilensError, match="baseline's values as a tensor, got list"):
        FixedValues([0.0])


def test_evaluate_takes_arrays_of_other_libraries(linear):
    maps = contributions(linear, X, 1)
    tensors = torch.as_tensor(X), torch.as_tensor(maps)
    expected = evaluate(linear, *tensors, "mu_fidelity", target=1, subsets=10, cells=None)
    for inputs, given in ((X, maps[:, ::-1][:, ::-1]), (FRAME, pandas.DataFrame(maps))):
        settings = {"subsets": numpy.int64(10), "cells": None, "seed": numpy.int64(0)}
        found = evaluate(linear, inputs, given, "mu_fidelity", target=numpy.int8(1), **settings)
        assert torch.equal(found, expected)
    mask = numpy.zeros((3, 4), bool)
    mask[range(3), numpy.abs(maps).argmax(1)] = True
    settings = {"reduction": "abs", "tolerance": numpy.float32(0)}
    assert evaluate(linear, X, maps, "pointing_game", mask=mask, **settings).tolist() == [1, 1, 1]


# Several inputs


def test_parts_come_in_any_array():
    torch.manual_seed(0)
    model = nn.Bilinear(2, 2, 3).double().eval()
    first, second = X[:, 1::-1], X[:, 2:]
    tensors = tuple(torch.as_tensor(part.copy()) for part in (first, second))
    expected = of_logits(model, tensors, [2, 0, 1]).values
    target = pandas.Series([2, 0, 1], index=[9, 8, 7])
    for given in ((first, pandas.DataFrame(second)), (first.astype(object), second.astype(">f8"))):
        found = of_logits(model, given, target).values
        assert all(torch.equal(*both) for both in zip(found, expected, strict=True))


def test_held_arrays_go_along_with_their_inputs():
    torch.manual_seed(0)
    model = nn.Bilinear(2, 2, 3).double().eval()
    given = {"input1": X[:, :2], "input2": Frozen(X[:, 2:])}
    found = of_logits(model, given, pandas.Series([2, 0, 1], index=[9, 8, 7])).numpy()["input1"]
    for row, target in enumerate([2, 0, 1]):
        weights = model.weight[target].detach().numpy() @ X[row, 2:]
        numpy.testing.assert_allclose(found[row], weights * X[row, :2])


# Adapters


def test_explain_func_takes_what_explain_takes(linear):
    expected = contributions(linear, X, [1, 0, 2])
    for inputs in (X[:, ::-1][:, ::-1], X.astype(object), X.astype(">f8"), X.tolist(), FRAME):
        for target in (numpy.array([2, 0, 1])[::-1], pandas.Series([1, 0, 2], index=[2, 1, 0])):
            settings = {"method": "ig", "score": "logit", "n_steps": numpy.int64(2)}
            found = explain_func(linear, inputs, target, **settings)
            numpy.testing.assert_allclose(found, expected)


def test_explain_func_explains_the_predicted_class_without_targets(linear):
    found = explain_func(linear, X, None, method="ig", score="logit", n_steps=2)
    predicted = linear(torch.as_tensor(X)).argmax(1)
    numpy.testing.assert_allclose(found, contributions(linear, X, predicted))


@pytest.mark.parametrize(
    ("inputs", "targets", "message"),
    [
        (X, [0.5, 1.0, 0.0], "got float 0.5; pass whole numbers"),
        ([[1.0], [1.0, 2.0]], [0, 1], "list of several shapes; pad them"),
        (X.astype(str), [0, 1, 0], "ndarray with text"),
    ],
)
def test_explain_func_refuses_in_one_line(linear, inputs, targets, message):
    with pytest.raises(UnilensError, match=message):
        explain_func(linear, inputs, targets, method="ig")


def test_captum_classes_take_arrays(linear):
    pytest.importorskip("captum")
    from unilens.interop.captum import IG

    method = IG(linear, n_steps=numpy.int64(2))
    expected = contributions(linear, X - 0.5, [0, 2, 1])
    targets = numpy.array([0, 2, 1]), pandas.Series([0, 2, 1], index=[2, 1, 0]), [(0,), (2,), (1,)]
    for target in targets:
        found = method.attribute(
            X[:, ::-1][:, ::-1],
            baselines=numpy.float32(0.5),
            target=target,
            internal_batch_size=numpy.int64(2),
        )
        numpy.testing.assert_allclose(found, expected)
    with pytest.raises(UnilensError, match=r"got list; .*convert lists with torch.as_tensor"):
        method.attribute(X.tolist(), target=0)
    with pytest.raises(UnilensError, match="the model could not take the inputs"):
        method.attribute(X[:, :3], target=(0,))


class Doubled:
    """Half of an estimator: twice the first feature, whatever the table is."""

    def predict(self, table):
        return 2.0 * numpy.asarray(table)[:, 0]


TABLES = {
    "objects": lambda: X.astype(object),
    "csr": lambda: sparse("csr_matrix")(X),
    "lists": lambda: X.tolist(),
    "polars": lambda: polars().DataFrame(X, schema=list("abcd")),
    "nullable": lambda: FRAME.astype("Float64"),
    "flipped": lambda: X[:, ::-1][:, ::-1],
    "float128": lambda: X.astype(numpy.longdouble),
    "tensor with a gradient": lambda: torch.tensor(X, requires_grad=True),
}


@pytest.mark.parametrize("case", TABLES)
def test_tables_come_in_any_array(case):
    expected = X * [2.0, 0, 0, 0]
    found = tables.explain(Doubled(), TABLES[case](), references=0 * X, seed=numpy.int64(1))
    numpy.testing.assert_allclose(numpy.asarray(found.values), expected, atol=1e-6)


# Token ids


class Bag(nn.Module):
    def __init__(self, look_up=None):
        super().__init__()
        self.words, self.head = nn.Embedding(10, 4), nn.Linear(4, 3)
        self.look_up = look_up

    def forward(self, ids):
        return self.head(self.look_up(ids) if self.look_up else self.words(ids).mean(1))


IDS = torch.randint(10, (2, 5), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("ids", [IDS, IDS.int(), IDS.numpy()])
def test_token_ids_lead_to_the_embeddings(ids):
    message = "explain at the embeddings, with unilens.text.explain_text.*'words'"
    with pytest.raises(UnilensError, match=message) as caught:
        explain(Bag().eval(), ids, "ig")
    assert len(str(caught.value)) < 400
    with pytest.raises(UnilensError, match=message):
        evaluate(Bag().eval(), ids, torch.rand(2, 5), "mu_fidelity")


@pytest.mark.parametrize("ids", [{"ids": IDS}, (IDS,), {"ids": IDS, "mask": IDS > 0}])
def test_token_ids_alone_among_parts_lead_to_the_embeddings(ids):
    with pytest.raises(UnilensError, match="explain at the embeddings, with unilens"):
        explain(Bag().eval(), ids, "ig")


LOOK_UPS = {
    "embedding": lambda words: lambda ids: words(ids).mean(1),
    "embedding bag": lambda words: lambda ids: nn.functional.embedding_bag(ids, words.weight),
    "weight[ids]": lambda words: lambda ids: words.weight[ids].mean(1),
    "one_hot": lambda words: lambda ids: nn.functional.one_hot(ids, 10).float(),
    "index_select": lambda words: lambda ids: words.weight.index_select(0, ids.flatten()),
    "gather": lambda words: lambda ids: words.weight.gather(1, ids),
}


@pytest.mark.parametrize("case", LOOK_UPS)
def test_embedding_hint_knows_what_torch_says_of_ids_as_floats(case):
    model = Bag()
    model.look_up = LOOK_UPS[case](model.words)
    with pytest.raises((RuntimeError, IndexError)) as caught:
        model(IDS.float())
    assert "explain at the embeddings" in embedding_hint(model, caught.value)


def test_embedding_hint_is_silent_about_other_errors():
    with pytest.raises(RuntimeError) as caught:
        Bag().head(torch.rand(2, 5))
    assert embedding_hint(Bag(), caught.value) == ""
    assert embedding_hint(nn.Linear(4, 3)) == ""


def test_to_tensor_leaves_what_is_no_array():
    for given in (None, "ig", [1.0], (1.0,), {"a": 1}, Entry, 3):
        assert to_tensor("inputs", given) is given
