"""Saved attributions and manifolds that anybody may have made: one line, and no code is run."""

import json
import os
import pickle
import struct

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from unilens import Attribution, UnilensError, explain
from unilens.manifold import PCA, ConvAutoencoder, Decoder, LocalPCA, load_manifold, save_manifold
from unilens.multi_input import MultiInputAttribution

MAPS, MANIFOLD = "attribution", "manifold"
LOADERS = {
    MAPS: Attribution.load,
    "several inputs": MultiInputAttribution.load,
    MANIFOLD: load_manifold,
}
loaders = pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Whole files, and what is in them: header and tensors, by kind."""
    folder = tmp_path_factory.mktemp("whole")
    drawn = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 3)).eval()
    explain(model, torch.rand(2, 6, generator=drawn), "ig", n_steps=2).save(folder / MAPS)
    data = torch.rand(20, 1, 4, 4, generator=drawn)
    save_manifold(PCA.fit(data, 3), folder / MANIFOLD)
    save_manifold(LocalPCA(data, 3, 5), folder / "local")
    save_manifold(Decoder(ConvAutoencoder((1, 4, 4), 2, 2).eval()), folder / "network")
    return {file.name: content_of(file) for file in folder.iterdir()}


def content_of(file):
    with safe_open(file, "pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        return opened.metadata(), tensors


def refused(load, path, words="expected|could not read"):
    with pytest.raises(UnilensError, match=words) as error:
        load(path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600 + len(str(path))


def raw(header, body=b"", length=None):
    """Return a safetensors file of a header that no writer would write."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


RAW = {
    "empty": b"",
    "one byte": b"x",
    "zeros": bytes(64),
    "pickle": pickle.dumps({"a": 1}),
    "zip": b"PK\x03\x04" + bytes(60),
    "text": b"hello, I am a map\n" * 20,
    "header of 2**63 bytes": raw({}, length=2**63),
    "header of 2**64 - 1 bytes": raw({}, length=2**64 - 1),
    "header of 100 MB that is not there": raw({}, length=100_000_000),
    "header longer than the file": raw({"a": entry()}, bytes(4), length=4096),
    "header that is no JSON": raw(b"{" * 40),
    "header that is a list": raw([]),
    "header that is null": raw(None),
    "header in another encoding": raw(b"\xff\xfe{}"),
    "header with NUL": raw(b'{"a\x00": 1}'),
    "deep header": raw(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "deep metadata": raw(b'{"__metadata__":{"a":' + b"[" * 9_000 + b"]" * 9_000 + b"}}"),
    "metadata that are no texts": raw({"__metadata__": {"format": 3}}),
    "metadata that are a list": raw({"__metadata__": ["format"]}),
    "unknown dtype": raw({"values": entry("Q64")}, bytes(4)),
    "python object as dtype": raw({"values": entry("O")}, bytes(4)),
    "truncated": raw({"values": entry(shape=(4,), offsets=(0, 16))}, bytes(4)),
    "more bytes than tensors": raw({"values": entry()}, bytes(40)),
    "shape that does not fit": raw({"values": entry(shape=(3, 3))}, bytes(4)),
    "shape that overflows": raw({"values": entry(shape=(2**63, 2))}, bytes(4)),
    "shape of 2**64": raw({"values": entry(shape=(2**64,))}, bytes(4)),
    "negative shape": raw({"values": entry(shape=(-1,))}, bytes(4)),
    "negative offsets": raw({"values": entry(offsets=(-4, 0))}, bytes(4)),
    "offsets the wrong way": raw({"values": entry(offsets=(4, 0))}, bytes(4)),
    "offsets outside": raw({"values": entry(offsets=(10**6, 10**6 + 4))}, bytes(4)),
    "overlapping": raw({"a": entry(), "b": entry()}, bytes(4)),
    "duplicate names": raw(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        b'"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
        bytes(8),
    ),
    "numbers as texts": raw({"values": entry(shape=("1",))}, bytes(4)),
    "fractions": raw({"values": entry(shape=(1.5,))}, bytes(4)),
    "huge number": raw(b'{"values":{"dtype":"F32","shape":[' + b"9" * 5000 + b"]}}", bytes(4)),
    "nothing": raw({}),
    "format alone": raw({"__metadata__": {"format": "unilens attribution 1"}}),
    "manifold alone": raw({"__metadata__": {"format": "unilens manifold 1"}}),
}


@loaders
@pytest.mark.parametrize("content", RAW.values(), ids=RAW)
def test_broken_safetensors_are_refused_in_one_line(tmp_path, load, content):
    (tmp_path / "some").write_bytes(content)
    refused(load, tmp_path / "some")


@loaders
@pytest.mark.parametrize("kind", ["fifo", "folder", "link to itself", "device", "socket", "none"])
def test_other_things_than_files_are_refused_and_do_not_hang(tmp_path, monkeypatch, load, kind):
    import socket

    monkeypatch.chdir(tmp_path)
    path = tmp_path / "some"
    make = {
        "fifo": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "link to itself": lambda: path.symlink_to(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "socket": lambda: socket.socket(socket.AF_UNIX).bind("some"),
        "none": lambda: None,
    }
    if kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind("some")
            refused(load, path)
        return
    make[kind]()
    refused(load, path)


@loaders
@pytest.mark.parametrize("path", ["\0", "a\0b", "x" * 5000, "", "../" * 2000])
def test_names_that_no_file_has_are_refused(load, path):
    refused(load, path)


def fields(**more):
    """Return a change of the fields of a saved attribution."""

    def change(header, tensors):
        header["fields"] = json.dumps(json.loads(header["fields"]) | more)

    return change


def text(value, key="fields"):
    return lambda header, tensors: header.update({key: value})


def tensor(name, make):
    return lambda header, tensors: tensors.update({name: make(tensors.get(name))})


def without(name):
    return lambda header, tensors: tensors.pop(name)


DEEP = "[" * 50_000 + "]" * 50_000
CHANGES = {
    "fields that are no JSON": text("{"),
    "fields that are code": text("__import__('os').system('x')"),
    "fields that are a list": text("[]"),
    "fields that are null": text("null"),
    "fields that are a number": text("3"),
    "fields nested deeply": text(DEEP),
    "a field nested deeply": text('{"provenance":' + DEEP + "}"),
    "a huge number": text('{"provenance":' + "9" * 10_000 + "}"),
    "an unknown field": fields(evil=1),
    "a dunder": fields(__class__="os.system"),
    "a tensor as plain data": fields(values=[1, 2]),
    "provenance that is a text": fields(provenance="x"),
    "provenance that is a list": fields(provenance=[]),
    "provenance that is null": fields(provenance=None),
    "provenance that is NaN": text('{"provenance":NaN}'),
    "complete that is a text": fields(complete="yes"),
    "complete that is null": fields(complete=None),
    "record that is plain data": fields(record={"a": 1}),
    "measured that is plain data": fields(measured={"a": 1}),
    "measured that is a list": fields(measured=[1]),
    "groups that are a text": fields(groups="x"),
    "outputs of an unknown kind": fields(provenance={"outputs": {"kind": "evil"}}),
    "channels that are huge": fields(provenance={"channels": "9" * 5000}),
    "a later version": text("unilens attribution 99", "format"),
    "a huge version": text("unilens attribution " + "9" * 5000, "format"),
    "a negative version": text("unilens attribution -1", "format"),
    "another format": text("evil attribution 1", "format"),
    "no format": text("", "format"),
    "no values": without("values"),
    "no target": without("target"),
    "no outputs": without("outputs"),
    "half a trace": without("trace.score"),
    "an unknown tensor": tensor("evil", lambda _: torch.zeros(2)),
    "an unknown nested tensor": tensor("trace.evil", lambda _: torch.zeros(2)),
    "a tensor within a tensor": tensor("values.evil", lambda _: torch.zeros(2)),
    "a name of dots": tensor("...", lambda _: torch.zeros(2)),
    "a dunder as a tensor": tensor("__class__", lambda _: torch.zeros(2)),
    "values of another number": tensor("values", lambda value: value[:1]),
    "values that are one number": tensor("values", lambda _: torch.zeros(())),
    "values that are whole": tensor("values", lambda value: value.long()),
    "values that are switches": tensor("values", lambda value: value > 0),
    "values in one dimension": tensor("values", lambda value: value[:, 0]),
    "no inputs in values": tensor("values", lambda value: value[:0]),
    "target in floating point": tensor("target", lambda value: value.double()),
    "target in two dimensions": tensor("target", lambda value: value[:, None]),
    "target beyond the classes": tensor("target", lambda value: value + 10**9),
    "target below 0": tensor("target", lambda value: value - 10**9),
    "score in two dimensions": tensor("score", lambda value: value[:, None]),
    "outputs in one dimension": tensor("outputs", lambda value: value[:, 0]),
    "outputs in three dimensions": tensor("outputs", lambda value: value[..., None]),
    "baseline of another shape": tensor("baseline", lambda value: value[:, :1]),
    "measured in two dimensions": tensor("measured.x", lambda _: torch.zeros(2, 3)),
    "trace of another number": tensor("trace.score", lambda value: value[:, :1]),
    "groups of another shape": tensor("groups", lambda _: torch.zeros(2, 1).long()),
}
HARMLESS = {
    "trace without points": tensor("trace.score", lambda value: value[:0]),
    "outputs that are a list": fields(provenance={"outputs": [1]}),
    "outputs that are a number": fields(provenance={"outputs": 3}),
    "channels that are unknown": fields(provenance={"channels": "evil"}),
    "provenance that is code": fields(provenance={"method": "py:os:system", "settings": "()"}),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_attribution_with_odd_provenance_is_read_and_described(tmp_path, saved, name):
    header, tensors = dict(saved[MAPS][0]), dict(saved[MAPS][1])
    HARMLESS[name](header, tensors)
    save_file({k: v.contiguous() for k, v in tensors.items()}, tmp_path / "some", header)
    read = Attribution.load(tmp_path / "some")
    assert "2 inputs of shape (6,)" in repr(read)
    assert len(read.verdicts) == len(read.warnings) == 2


@pytest.mark.parametrize("name", CHANGES)
def test_attribution_that_contradicts_itself_is_refused_in_one_line(tmp_path, saved, name):
    header, tensors = dict(saved[MAPS][0]), dict(saved[MAPS][1])
    CHANGES[name](header, tensors)
    save_file({k: v.contiguous() for k, v in tensors.items()}, tmp_path / "some", header)
    refused(Attribution.load, tmp_path / "some")


PARTS = {
    "no JSON": "{",
    "deep": DEEP,
    "a list": "[]",
    "a number": "1",
    "no shapes": "{}",
    "shapes that are texts": '{"shapes": [["a", "bc"]], "arguments": [], "named": true}',
    "negative shapes": '{"shapes": [["a", [-6]]], "arguments": [], "named": true}',
    "huge shapes": '{"shapes": [["a", [1e400]]], "arguments": [], "named": true}',
    "shapes of another size": '{"shapes": [["a", [7]]], "arguments": ["a"], "named": true}',
    "arguments that are null": '{"shapes": [["a", [6]]], "arguments": null, "named": true}',
}


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_several_inputs_that_do_not_fit_are_refused_in_one_line(tmp_path, saved, parts):
    header, tensors = saved[MAPS]
    save_file(tensors, tmp_path / "some", {**header, "parts": parts})
    refused(lambda path: MultiInputAttribution.load(path).values, tmp_path / "some")


def settings(**more):
    def change(header, tensors):
        header["settings"] = json.dumps(json.loads(header["settings"]) | more)

    return change


def every(make):
    return lambda header, tensors: tensors.update({k: make(v) for k, v in tensors.items()})


def first(make):
    def change(header, tensors):
        name = min(tensors)
        tensors[name] = make(tensors[name])

    return change


KIND = {
    "another kind": text("evil", "kind"),
    "code as a kind": text("py:os:system", "kind"),
    "no JSON": text("{", "settings"),
    "a list": text("[1]", "settings"),
    "null": text("null", "settings"),
    "deep": text(DEEP, "settings"),
    "an unknown setting": settings(evil=1),
    "a dunder": settings(__class__=1),
    "NaN": every(lambda value: value * torch.nan),
    "infinity": first(lambda value: value / 0),
    "whole numbers": every(lambda value: value.long()),
    "switches": every(lambda value: value > 0),
    "several dtypes": lambda header, tensors: tensors.update(
        {min(tensors): tensors[min(tensors)].half(), "evil": torch.zeros(1)}
    ),
    "a tensor too many": tensor("evil", lambda _: torch.zeros(1)),
    "no tensors": lambda header, tensors: tensors.clear(),
    "one tensor too few": lambda header, tensors: tensors.pop(min(tensors)),
    "other shapes": every(lambda value: value[None, ..., None]),
    "no values": every(lambda value: value[..., :0]),
}
NETWORK = {
    "a huge width": settings(width=10**9),
    "a huge dimension": settings(dimension=10**15),
    "a huge shape": settings(shape=[10**9, 10**9, 10**9]),
    "no width": settings(width=0),
    "a width that is a text": settings(width="32"),
    "a width that is NaN": text('{"shape": [1, 4, 4], "dimension": 2, "width": NaN}', "settings"),
    "a shape in two dimensions": settings(shape=[4, 4]),
    "a negative shape": settings(shape=[1, -4, 4]),
    "a shape that is a text": settings(shape="144"),
}


@pytest.mark.parametrize("kind", [MANIFOLD, "local", "network"])
@pytest.mark.parametrize("name", KIND)
def test_manifold_that_contradicts_itself_is_refused_in_one_line(tmp_path, saved, kind, name):
    header, tensors = dict(saved[kind][0]), dict(saved[kind][1])
    KIND[name](header, tensors)
    save_file({k: v.contiguous() for k, v in tensors.items()}, tmp_path / "some", header)
    refused(load_manifold, tmp_path / "some", "whole manifold|could not read the manifold")


@pytest.mark.parametrize("name", NETWORK)
def test_network_that_does_not_fit_its_weights_takes_no_memory(tmp_path, saved, name):
    header, tensors = dict(saved["network"][0]), dict(saved["network"][1])
    NETWORK[name](header, tensors)
    save_file(tensors, tmp_path / "some", header)
    refused(load_manifold, tmp_path / "some", "whole manifold|could not read the manifold")


@pytest.mark.parametrize("kind", [MAPS, MANIFOLD, "local", "network"])
def test_whole_files_are_read(tmp_path, saved, kind):
    header, tensors = saved[kind]
    save_file(tensors, tmp_path / "some", header)
    (Attribution.load if kind == MAPS else load_manifold)(tmp_path / "some")
