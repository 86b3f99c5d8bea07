"""Results are kept in files, taken apart by input, moved, and hold no graph."""

import copy
import io
import json
import pickle
import struct

import numpy
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import unilens
from unilens import Attribution, PathAttribution, UnilensError, evaluate, explain
from unilens._engine.evaluator import PassCount
from unilens._ops.fields import tensors_of
from unilens.explainer import Method
from unilens.methods.base import methods
from unilens.multi_input import Frozen, MultiInputAttribution


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double().eval()


@pytest.fixture
def inputs():
    return torch.rand(4, 6, generator=torch.Generator().manual_seed(0)).double()


@pytest.fixture
def found(network, inputs):
    return explain(network, inputs, "uni_blur", n_steps=4)


def equal(first, second):
    """Whether two attributions are the same in every bit."""
    ours, theirs = tensors_of(first), tensors_of(second)
    same = ours.keys() == theirs.keys() and all(
        ours[name].dtype == theirs[name].dtype
        and ours[name].shape == theirs[name].shape
        and ours[name].contiguous().flatten().view(torch.uint8).tolist()
        == theirs[name].contiguous().flatten().view(torch.uint8).tolist()
        for name in ours
    )
    return same and first.provenance == second.provenance and first.complete == second.complete


# Files


@pytest.mark.parametrize("method", ["uni_blur", "ig", "gradient", "idg", "occlusion", "smoothgrad"])
def test_load_gives_back_every_bit_that_save_wrote(network, inputs, tmp_path, method):
    found = explain(network, inputs, method, seed=3)
    found.save(tmp_path / "kept")
    assert equal(Attribution.load(tmp_path / "kept"), found)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_save_keeps_nan_infinity_and_names_with_dots(found, tmp_path):
    odd = torch.tensor([float("nan"), float("inf"), -0.0, 1.0])
    found = found.with_measured(**{"a.b": odd}).with_provenance(note={"x": [1, None, "é"]})
    found.save(str(tmp_path / "kept"))
    kept = Attribution.load(str(tmp_path / "kept"))
    assert equal(kept, found)
    assert kept.measured["a.b"].signbit().tolist() == odd.signbit().tolist()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_save_keeps_the_dtype(found, tmp_path, dtype):
    narrow = found.to(dtype)
    narrow.save(tmp_path / "kept")
    assert equal(Attribution.load(tmp_path / "kept"), narrow)


def test_save_keeps_views_and_tensors_that_share_memory(found, tmp_path):
    shared = found.values.T.contiguous().T
    odd = Attribution(shared, found.target[:1].expand(4), found.score, found.outputs, shared)
    odd.save(tmp_path / "kept")
    assert equal(Attribution.load(tmp_path / "kept"), odd)


def test_saved_files_are_safetensors_with_json_and_no_pickle(found, tmp_path):
    found.save(tmp_path / "kept")
    content = (tmp_path / "kept").read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    assert header["__metadata__"]["format"] == "unilens attribution 1"
    assert json.loads(header["__metadata__"]["fields"])["provenance"] == found.provenance
    assert header["values"]["shape"] == [4, 6]


def test_save_writes_without_its_graph(network, inputs, tmp_path):
    found = PathAttribution(create_graph=True, n_steps=2)(network, inputs.requires_grad_())
    assert found.values.requires_grad
    found.save(tmp_path / "kept")
    assert torch.equal(Attribution.load(tmp_path / "kept").values, found.values)


def test_save_replaces_a_file_only_where_it_is_told_to(found, tmp_path):
    found.save(tmp_path / "kept")
    with pytest.raises(UnilensError, match="exists already; choose another name, or pass overw"):
        found[:1].save(tmp_path / "kept")
    assert len(Attribution.load(tmp_path / "kept")) == 4
    found[:1].save(tmp_path / "kept", overwrite=True)
    assert len(Attribution.load(tmp_path / "kept")) == 1


def test_save_that_fails_leaves_the_old_file(found, tmp_path, monkeypatch):
    found.save(tmp_path / "kept")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(UnilensError, match=r"could not write .*No space left"):
        found[:1].save(tmp_path / "kept", overwrite=True)
    assert len(Attribution.load(tmp_path / "kept")) == 4
    assert len(list(tmp_path.iterdir())) == 1


NO_PATHS = {
    "no folder": (lambda folder: folder / "none" / "kept", "there is no folder"),
    "a folder": (lambda folder: folder, "exists already"),
    "an open file": (lambda folder: io.BytesIO(), "expected the path of a file, got BytesIO"),
    "too long a name": (lambda folder: folder / ("x" * 300), "could not write"),
}


@pytest.mark.parametrize("case", NO_PATHS)
def test_save_says_in_one_line_what_cannot_be_written(found, tmp_path, case):
    path, message = NO_PATHS[case]
    with pytest.raises(UnilensError, match=message) as caught:
        found.save(path(tmp_path))
    assert "\n" not in str(caught.value)


def test_save_refuses_what_is_no_plain_data(found, tmp_path):
    for value in (torch.ones(2), {1: "a"}, object()):
        with pytest.raises(UnilensError, match=r"plain data in provenance\.extra.*got"):
            found.with_provenance(extra=value).save(tmp_path / "kept")
    assert not list(tmp_path.iterdir())


def test_save_converts_numbers_of_numpy_in_the_provenance(found, tmp_path):
    found.with_provenance(fold=numpy.int64(3), at=(1, 2)).save(tmp_path / "kept")
    kept = Attribution.load(tmp_path / "kept").provenance
    assert (kept["fold"], kept["at"]) == (3, [1, 2])


def cut_off(path, found):
    found.save(path)
    path.write_bytes(path.read_bytes()[:-40])


def without(name):
    def write(path, found):
        tensors = {key: value.contiguous() for key, value in tensors_of(found).items()}
        header = {"format": "unilens attribution 1", "fields": "{}"}
        del tensors[name]
        save_file(tensors, path, header)

    return write


def header(**changed):
    def write(path, found):
        known = {"format": "unilens attribution 1", "fields": "{}", **changed}
        save_file({name: one.clone() for name, one in tensors_of(found).items()}, path, known)

    return write


def of_other_lengths(path, found):
    tensors = {name: one.clone() for name, one in tensors_of(found).items()}
    tensors["target"] = tensors["target"][:2].clone()
    save_file(tensors, path, {"format": "unilens attribution 1", "fields": "{}"})


NO_FILES = {
    "nothing": (lambda path, found: None, "file that Attribution.save wrote, got: No such file"),
    "a folder": (lambda path, found: path.mkdir(), "file that Attribution.save wrote, got: "),
    "an empty file": (lambda path, found: path.touch(), "file that Attribution.save wrote, got: "),
    "a picture": (lambda path, found: path.write_bytes(b"\x89PNG" * 99), "got: "),
    "a pickle": (lambda path, found: torch.save(found.values, path), "Attribution.save wrote, got"),
    "cut off": (cut_off, "file that Attribution.save wrote, got: "),
    "other tensors": (
        lambda path, found: save_file({"a": torch.ones(2)}, path),
        "got safetensors of another kind",
    ),
    "a newer format": (header(format="unilens attribution 2"), "got 2 in .*; update unilens"),
    "no values": (without("values"), "whole attribution, but it does not fit"),
    "no target": (without("target"), "whole attribution, but it does not fit"),
    "part of the trace": (without("trace.score"), "whole attribution, but it does not fit"),
    "no JSON": (header(fields="{"), "whole attribution, but it does not fit"),
    "other fields": (header(fields='{"colour": 1}'), "whole attribution, but it does not fit"),
    "other lengths": (of_other_lengths, "whole attribution, but it does not fit"),
}


@pytest.mark.parametrize("case", NO_FILES)
def test_load_says_in_one_line_what_is_no_attribution(found, tmp_path, case):
    write, message = NO_FILES[case]
    write(tmp_path / "kept", found)
    with pytest.raises(UnilensError, match=message) as caught:
        Attribution.load(tmp_path / "kept")
    assert "\n" not in str(caught.value)


# Pickles and copies


@pytest.mark.parametrize(
    "again",
    [
        copy.copy,
        copy.deepcopy,
        lambda found: pickle.loads(pickle.dumps(found)),
    ],
    ids=["copy", "deepcopy", "pickle"],
)
def test_copies_and_pickles_are_the_same(found, again):
    assert equal(again(found), found)


def test_torch_save_and_load_give_back_every_bit(found, tmp_path):
    torch.save(found, tmp_path / "kept.pt")
    assert equal(torch.load(tmp_path / "kept.pt", weights_only=False), found)


# Several inputs


@pytest.fixture
def bilinear():
    torch.manual_seed(0)
    return nn.Bilinear(2, 3, 4).double().eval()


@pytest.fixture
def parts():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(3, 2, generator=generator).double(), torch.rand(3, 3).double()


STRUCTURES = {
    "tuple": lambda parts: parts,
    "mapping": lambda parts: {"input1": parts[0], "input2": parts[1]},
    "held": lambda parts: (parts[0], Frozen(parts[1])),
}


@pytest.mark.parametrize("structure", STRUCTURES)
def test_attributions_of_several_inputs_are_kept_as_well(bilinear, parts, tmp_path, structure):
    found = explain(bilinear, STRUCTURES[structure](parts), "ig", n_steps=4)
    found.save(tmp_path / "kept")
    copies = [copy.deepcopy(found), pickle.loads(pickle.dumps(found))]
    for kept in (MultiInputAttribution.load(tmp_path / "kept"), *copies):
        assert equal(kept.whole, found.whole)
        assert kept.input_spec == found.input_spec
        assert str(kept.values) == str(found.values)


def test_each_kind_of_attribution_is_loaded_by_its_class(bilinear, parts, found, tmp_path):
    explain(bilinear, parts, "ig", n_steps=4).save(tmp_path / "several")
    found.save(tmp_path / "one")
    with pytest.raises(UnilensError, match=r"of several; load it with .*MultiInputAttribution"):
        Attribution.load(tmp_path / "several")
    with pytest.raises(UnilensError, match=r"got one of one; load it with Attribution.load"):
        MultiInputAttribution.load(tmp_path / "one")


def test_attributions_of_several_inputs_are_taken_apart_by_input(bilinear, parts):
    found = explain(bilinear, parts, "ig", [0, 3, 1], n_steps=4)
    assert len(found) == 3
    for row, one in enumerate(found):
        alone = tuple(part[row : row + 1] for part in parts)
        expected = explain(bilinear, alone, "ig", int(found.target[row]), n_steps=4)
        assert all(torch.equal(*both) for both in zip(one.values, expected.values, strict=True))
    arrays = found[[2, 0]].numpy()
    numpy.testing.assert_array_equal(arrays[1], found.values[1][[2, 0]].numpy())
    assert found.to(torch.float32).values[0].dtype == torch.float32


# Choosing inputs


def test_an_input_of_a_batch_is_what_explaining_it_alone_gives(network, inputs, found):
    for row in range(4):
        alone = explain(network, inputs[row : row + 1], "uni_blur", n_steps=4)
        ours = found[row].with_provenance(seconds=0)
        assert equal(ours, alone.with_provenance(seconds=0))
        assert ours.warnings == alone.warnings


INDICES = {
    "a number": (1, [1]),
    "from the end": (-1, [3]),
    "numpy's": (numpy.int64(2), [2]),
    "a slice": (slice(1, 3), [1, 2]),
    "backwards": (slice(None, None, -1), [3, 2, 1, 0]),
    "a mask": (torch.tensor([True, False, False, True]), [0, 3]),
    "numpy's mask": (numpy.array([False, True, True, False]), [1, 2]),
    "a list of truths": ([True, False, True, False], [0, 2]),
    "several": ([3, -4, 3], [3, 0, 3]),
    "numpy's, flipped": (numpy.array([0, 2])[::-1], [2, 0]),
    "none": (slice(4, None), []),
    "an empty list": ([], []),
}


@pytest.mark.parametrize("case", INDICES)
def test_indices_choose_inputs_in_every_field(found, case):
    index, rows = INDICES[case]
    some = found[index]
    assert len(some) == len(rows)
    for name, value in tensors_of(found).items():
        expected = value[:, rows] if name.startswith("trace.") and value.ndim == 2 else value[rows]
        assert torch.equal(tensors_of(some)[name], expected), name
    assert some.warnings == [found.warnings[row] for row in rows]


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (4, "expected an index below 4, the number of inputs, got 4"),
        (-5, "expected an index below 4, the number of inputs, got -5"),
        ([0, 9], "got 9"),
        (torch.tensor([True, False]), r"a mask of shape \(4,\).*torch.bool of shape \(2,\)"),
        (1.0, "a number, a slice, a mask.*got float"),
        (True, "a number, a slice, a mask.*got bool"),
        ("values", "got str"),
        (None, "got NoneType"),
        ((0, 1, slice(2)), "got tuple"),
        (torch.rand(4), r"torch.float32 of shape \(4,\)"),
        ([[0]], r"torch.int64 of shape \(1, 1\)"),
    ],
)
def test_indices_that_do_not_fit_get_one_line(found, index, message):
    with pytest.raises(UnilensError, match=message):
        found[index]


def test_entries_that_are_not_one_per_input_get_one_line(found, tmp_path):
    with pytest.raises(UnilensError, match=r"measured.x to have one entry for each of 4 inputs"):
        found.with_measured(x=torch.tensor(1.0))[0]
    with pytest.raises(UnilensError, match=r"measured.x to be a tensor .* got float"):
        found.with_measured(x=1.0).save(tmp_path / "kept")


def test_attributions_are_sized_and_iterated(found):
    assert len(found) == 4
    assert [one.target.tolist() for one in found] == [[label] for label in found.target.tolist()]
    assert torch.equal(
        torch.cat([one.values for one in reversed(list(found))]), found.values.flip(0)
    )


def test_chosen_attributions_are_judged_as_the_whole(network, inputs, found):
    whole = evaluate(network, inputs, found, "completeness_gap")
    some = evaluate(network, inputs[[2, 0]], found[[2, 0]], "completeness_gap")
    assert torch.equal(some, whole[[2, 0]])


# Moving and converting


def test_to_changes_floating_point_alone(found):
    narrow = found.to(torch.float16)
    for name, value in tensors_of(narrow).items():
        before = tensors_of(found)[name]
        expected = torch.float16 if before.is_floating_point() else before.dtype
        assert value.dtype == expected, name
        assert torch.equal(value, before.to(expected)), name
    assert narrow.to("cpu", torch.float64).values.dtype == torch.float64
    assert equal(found.cpu(), found)
    assert found.to("meta").values.is_meta


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (torch.int64, "floating-point dtype, got torch.int64"),
        ("nowhere", "a device or a floating-point dtype, got 'nowhere'"),
        (3.5, "a device or a floating-point dtype, got 3.5"),
    ],
)
def test_to_says_in_one_line_what_it_cannot_do(found, where, message):
    with pytest.raises(UnilensError, match=message) as caught:
        found.to(where)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float64, "float64"),
        (torch.float32, "float32"),
        (torch.float16, "float16"),
        (torch.bfloat16, "float32"),
    ],
)
def test_numpy_gives_the_values_in_the_nearest_dtype(found, dtype, expected):
    array = found.to(dtype).numpy()
    assert array.dtype == expected
    numpy.testing.assert_array_equal(array, found.values.to(dtype).double().numpy())


def test_numpy_leaves_the_graph_behind(network, inputs):
    found = PathAttribution(create_graph=True, n_steps=2)(network, inputs.requires_grad_())
    numpy.testing.assert_array_equal(found.numpy(), found.values.detach().numpy())


# Graphs


class Field(nn.Module):
    """Forces of an energy |x|^4 / 4: the forward pass differentiates, whatever the grad mode."""

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.enable_grad():
            inputs = inputs if inputs.requires_grad else inputs.requires_grad_()
            energy = inputs.square().sum(1).square().sum() / 4
            return torch.autograd.grad(energy, inputs, create_graph=True)[0][:, :3]


WITH_SETTINGS = {
    "expected_gradients": {"references": torch.zeros(2, 6), "n_steps": 4},
    "uni_blur": {"matching_target": "uniform", "n_steps": 4},
}


@pytest.mark.parametrize(
    "method", ["ig", "gradient", "occlusion", "smoothgrad", "idg", "uni_blur", "expected_gradients"]
)
def test_attributions_keep_no_graph_of_a_model_that_differentiates(method):
    found = explain(Field().eval(), torch.rand(2, 6), method, 0, **WITH_SETTINGS.get(method, {}))
    kept = [name for name, value in tensors_of(found).items() if value.requires_grad]
    assert not kept
    assert equal(copy.deepcopy(found), found)


def test_a_model_that_differentiates_is_explained_rightly():
    inputs = torch.rand(3, 6, dtype=torch.float64)
    found = explain(Field().eval(), inputs, "gradient", 1, score="logit").numpy()
    square = inputs.square().sum(1, keepdim=True)
    expected = 2 * inputs[:, 1:2] * inputs + square * torch.eye(6, dtype=torch.float64)[1]
    numpy.testing.assert_allclose(found, expected.numpy(), rtol=1e-6)


def test_measurements_keep_no_graph_of_a_model_that_differentiates():
    inputs = torch.rand(2, 6)
    settings = {"target": 0, "cells": None, "score": "logit", "subsets": 5}
    found = evaluate(Field().eval(), inputs, torch.rand(2, 6), "mu_fidelity", **settings)
    assert not found.requires_grad


def test_randomisation_refuses_a_model_that_differentiates_and_has_no_weights():
    inputs = torch.rand(2, 6)
    found = explain(Field().eval(), inputs, "gradient", 0)
    with pytest.raises(UnilensError, match="expected a model with weights to randomise"):
        evaluate(Field().eval(), inputs, found, "randomisation_cascading", method="gradient")


def test_a_users_own_method_keeps_no_graph(network, inputs):
    class Own(Method):
        passes = PassCount(1, 1)

        def _explain(self, case):
            values = case.inputs * network[0].weight.sum(0)
            return Attribution(
                values,
                case.target,
                case.outputs[:, 0],
                case.outputs,
                measured={"own": values[:, 0]},
            )

    found = Own()(network, inputs)
    assert not any(value.requires_grad for value in tensors_of(found).values())


def test_create_graph_keeps_it(network, inputs):
    found = PathAttribution(create_graph=True, n_steps=2)(network, inputs.requires_grad_())
    (gradient,) = torch.autograd.grad(found[1:].values.sum(), inputs)
    assert gradient[0].abs().sum() == 0
    assert gradient[1:].abs().sum() > 0
    assert "ig" in methods
    assert unilens.Attribution is Attribution
