"""Data of strangers: what is no file does not hang a run, and cells open nothing outside."""

import os
import socket

import pytest
from PIL import Image

from unilens import UnilensError
from unilens.benchmark.data import folders, hub_sets, open_source
from unilens.errors import UnilensWarning


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a photograph, the current one."""
    root = tmp_path / "photos"
    root.mkdir()
    Image.new("RGB", (9, 9), (9, 120, 60)).save(root / "a.png")
    monkeypatch.chdir(root)
    return root


def listen(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)


NO_FILES = {
    "pipe": os.mkfifo,
    "socket": listen,
    "link to nothing": lambda path: path.symlink_to("nothing"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
    "link to a terminal": lambda path: path.symlink_to("/dev/tty"),
}
no_file = pytest.mark.parametrize("make", NO_FILES.values(), ids=NO_FILES)


@no_file
def test_what_is_no_file_is_left_out_and_counted(folder, make):
    make(folder / "b.png")
    with pytest.warns(UnilensWarning, match="1 of the names in .* are no files") as said:
        (item,) = open_source(str(folder))
    assert item.name == "a.png"
    assert len(said) == 1
    assert len(str(said[0].message).splitlines()) == 1


@no_file
def test_file_that_becomes_none_is_one_line(folder, make):
    (item,) = open_source(str(folder))
    (folder / "a.png").unlink()
    make(folder / "a.png")
    with pytest.raises(UnilensError) as raised:
        item.load()
    assert len(str(raised.value).splitlines()) == 1


@no_file
def test_table_of_labels_that_is_no_file_does_not_hang(folder, make):
    make(folder / "labels.csv")
    assert [item.label for item in open_source(str(folder))] == [None]
    with pytest.raises(UnilensError):
        open_source(str(folder), labels=str(folder / "labels.csv"))


@pytest.mark.parametrize("name", ["b.png", "labels.csv"])
def test_folder_in_place_of_a_file_is_a_folder(folder, name):
    (folder / name).mkdir()
    assert [item.name for item in open_source(str(folder))] == ["a.png"]


@pytest.mark.parametrize("target", [".", "..", "sub"])
def test_folders_that_hold_themselves_are_read_once(folder, target):
    (folder / "sub").mkdir()
    (folder / "sub" / "deep").symlink_to(folder / target)
    names = [item.name for item in open_source(str(folder))]
    assert [name.rpartition("/")[2] for name in names] == ["a.png"]


def test_links_to_photographs_are_photographs(folder, tmp_path):
    (folder / "a.png").rename(tmp_path / "kept.png")
    (folder / "b.png").symlink_to(tmp_path / "kept.png")
    (item,) = open_source(str(folder))
    assert item.load().size == (9, 9)


def test_file_too_large_to_read_is_one_line(folder, monkeypatch):
    (item,) = open_source(str(folder))
    monkeypatch.setattr(folders, "MAX_BYTES", 10)
    with pytest.raises(UnilensError, match="expected at most 10 bytes"):
        item.load()


INSIDE = ("a.png", "sub/../a.png", "./a.png")
OUTSIDE = (
    "../secret.png",
    "sub/../../secret.png",
    "{outside}",
    "link.png",
    "/etc/passwd",
    "/dev/zero",
    "/dev/stdin",
    "file://{outside}",
    "local://{outside}",
    "http://127.0.0.1:9/x.png",
    "https://example.com/x.png",
    "s3://bucket/x.png",
    "memory://x.png",
    "data:image/png;base64,AAAA",
    "simplecache::file://{outside}",
    "zip://x.png::file://{outside}",
    "hf://datasets/somebody/else/x.png",
)


@pytest.fixture
def table(folder, tmp_path):
    """Return a function that returns the image of a cell with a path."""
    datasets = pytest.importorskip("datasets")
    Image.new("RGB", (9, 9)).save(tmp_path / "secret.png")
    (folder / "sub").mkdir()
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    os.mkfifo(folder / "pipe.png")

    def table(path, monkeypatch):
        cells = datasets.Dataset.from_dict(
            {"image": [{"bytes": None, "path": path.format(outside=tmp_path / "secret.png")}]},
            features=datasets.Features(image=datasets.Image(decode=False)),
        )
        monkeypatch.setattr(hub_sets, "_undecoded", lambda origin: cells)
        return hub_sets._HubSet(str(folder), "{}", "image")

    return table


@pytest.mark.parametrize("path", OUTSIDE)
def test_cell_opens_nothing_outside_of_the_data(table, monkeypatch, path):
    def opened(*arguments, **settings):
        raise AssertionError(arguments)

    monkeypatch.setattr(hub_sets.fsspec, "open", opened)
    with pytest.raises(UnilensError, match=r"within the data set|could not read") as raised:
        table(path, monkeypatch).load("test/000000")
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("path", ["pipe.png", ".", "missing.png", "a\0b"])
def test_cell_that_names_no_file_is_one_line(table, monkeypatch, path):
    with pytest.raises(UnilensError) as raised:
        table(path, monkeypatch).load("test/000000")
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("path", INSIDE)
def test_cell_opens_a_file_of_the_data(table, monkeypatch, path):
    assert table(path, monkeypatch).load("test/000000").size == (9, 9)
