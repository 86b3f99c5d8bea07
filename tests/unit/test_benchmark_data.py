"""Sources of images: what is listed, in which order, with which labels, and what is refused."""

import csv
import json
import pickle
import sys
from pathlib import Path

import fsspec
import numpy
import pytest
import torch
from PIL import Image
from torch import nn

from unilens.benchmark.data import class_index_of, folders, open_source
from unilens.benchmark.data.items import hash_order
from unilens.errors import UnilensError, UnknownNameError
from unilens.models import PixelClassifier, Preprocessing, read_image, samples

PHOTOS = Path(__file__).parents[3] / "shared" / "data" / "photos"
PLAIN = Preprocessing(size=(16, 16), resize=16, mean=(0.0,) * 3, std=(1.0,) * 3)


def classifier(*labels):
    return PixelClassifier(nn.Identity(), PLAIN, labels)


def write(path, seed=0, size=(12, 10)):
    path.parent.mkdir(parents=True, exist_ok=True)
    colours = numpy.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=numpy.uint8)
    Image.fromarray(colours).save(path)
    return colours


def labels_of(items):
    return {item.name: item.label for item in items}


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "images"
    for i, name in enumerate(("cat/1.png", "cat/2.PNG", "dog/far/3.png", "4.png")):
        write(root / name, i)
    for name in ("cat/notes.txt", "cat/features.h5", ".cache/5.png", "dog/._6.png"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("none")
    return root


OF_FOLDERS = {"cat/1.png": "cat", "cat/2.PNG": "cat", "dog/far/3.png": "far", "4.png": None}


def test_a_folder_with_labels_of_its_folders(folder):
    items = open_source(str(folder))
    assert labels_of(items) == OF_FOLDERS
    for item in items:
        expected = read_image(folder / item.name)
        assert item.load().tobytes() == expected.tobytes()
        again = pickle.loads(pickle.dumps(item))
        assert again == item
        assert again.load().tobytes() == expected.tobytes()


def test_urls_give_what_the_folder_gives(folder):
    at_home = open_source(str(folder))
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/unilens/images", recursive=True)
    try:
        for url in (folder.as_uri(), "memory://unilens/images", "memory://unilens/images/"):
            away = open_source(url)
            assert [(i.name, i.label) for i in away] == [(i.name, i.label) for i in at_home]
            assert away[0].load().tobytes() == at_home[0].load().tobytes()
        (alone,) = open_source("memory://unilens/images/cat/1.png")
        assert (alone.name, alone.label) == ("1.png", None)
        assert alone.load().tobytes() == read_image(folder / "cat/1.png").tobytes()
    finally:
        memory.rm("/unilens", recursive=True)


def test_archives(folder, tmp_path):
    import shutil

    archive = shutil.make_archive(str(tmp_path / "images"), "zip", folder)
    items = open_source(f"zip://::file://{archive}")
    assert labels_of(items) == OF_FOLDERS
    assert items[0].load().tobytes() == read_image(folder / items[0].name).tobytes()


def test_an_image_alone(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (item,) = open_source("cat/2.PNG")
    monkeypatch.chdir("/")
    assert (item.name, item.label) == ("2.PNG", None)
    assert item.load().tobytes() == read_image(folder / "cat/2.PNG").tobytes()


def test_listing_opens_nothing(folder, monkeypatch):
    monkeypatch.setattr(Path, "open", None)
    monkeypatch.setattr("builtins.open", None)
    assert len(open_source(str(folder))) == 4


def test_limits_are_samples_that_grow(tmp_path):
    names = [f"n{number:04d}/{one}.jpg" for number in range(100) for one in range(20)]
    order = hash_order(names)
    assert sorted(order) == sorted(names)
    assert order == hash_order(reversed(names))
    assert hash_order(names, 300) == order[:300]
    counts = numpy.bincount([int(name[1:5]) for name in order[:500]], minlength=100)
    assert (counts > 0).sum() >= 95  # five of each on average; 99 expected to be there
    for number in range(30):
        write(tmp_path / f"{number // 10}" / f"{number}.png")
    items = open_source(str(tmp_path))
    assert [open_source(str(tmp_path), limit=n) for n in (1, 7, 30, 99)] == [
        items[:n] for n in (1, 7, 30, 30)
    ]


def table(folder, text, name="labels.csv", encoding="utf-8"):
    path = folder / name
    path.write_text(text, encoding=encoding)
    return str(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("file,label\n4.png,7\ncat/1.png,tabby\n", {"4.png": 7, "cat/1.png": "tabby"}),
        ("whatever,class\r\n./4.png, 3 \r\n", {"4.png": 3}),
        ("name,Path,imagenet_index\ntench,4.png,0\n", {"4.png": 0}),
        ("index,file,label\n0,4.png,9\n", {"4.png": 9}),
        ("synset,image,name\nn01440764,4.png,tench\n", {"4.png": "n01440764"}),
        ("file,name\n4.png,tench\ngone.png,cat\n4.png,tench\nshort\n\n", {"4.png": "tench"}),
        ('file,label\n4.png,"crane, bird"\ncat/1.png,\n', {"4.png": "crane, bird"}),
        ("file,label\n4.png,-1\ncat/1.png,5\n", {"cat/1.png": 5}),
    ],
)
def test_tables_of_labels(text, expected, folder, tmp_path):
    beside = table(tmp_path, text, "other.csv", "utf-8-sig")
    whole = dict.fromkeys(OF_FOLDERS) | expected
    assert labels_of(open_source(str(folder), labels=beside)) == whole
    table(folder, text)
    assert labels_of(open_source(str(folder))) == whole
    assert labels_of(open_source(folder.as_uri())) == whole


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a table of labels with a header, got an empty one"),
        ("file,what\n4.png,1\n", "expected one of the columns imagenet_index, .* got file, what"),
        ("file,label\nimages/4.png,1\n", "paths in the folder, such as 4.png, got 'images/4.png'"),
        ("file,label\n", "none of its rows is of a file there"),
        ("file,label\n4.png,1\n4.png,2\n", "one label for 4.png in .*, got 1 and 2"),
    ],
)
def test_tables_that_are_none(text, message, folder):
    table(folder, text)
    refused(message, str(folder))


def test_tables_that_cannot_be_read(folder, tmp_path):
    refused("no such file: .*gone.csv", str(folder), labels=str(tmp_path / "gone.csv"))
    table(folder, "file,label\n4.png,Kölsch\n", encoding="latin-1")
    refused("a table of labels in UTF-8", str(folder))


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="needs the photographs")
def test_the_photographs_agree_with_their_table():
    with (PHOTOS / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    imagenet = PixelClassifier(nn.Identity(), PLAIN, imagenet_labels())
    items = labels_of(open_source(str(PHOTOS)))
    assert len(items) == len(rows) == 63
    for row in rows:
        reference = int(row["imagenet_index"])
        assert class_index_of(items[row["file"]], imagenet) == reference
        assert class_index_of(row["synset"], imagenet) == reference
        assert class_index_of(row["name"], imagenet) in (reference, None)


def imagenet_labels():
    from timm.data.imagenet_info import ImageNetInfo

    return tuple(ImageNetInfo().label_descriptions())


def test_labels_as_classes():
    few = classifier("tench, Tinca tinca", "tailed frog", "crane", "crane, machine", "n01440764x")
    for label, expected in {
        2: 2,
        "3": 3,
        "Tinca Tinca": 0,
        "tench,Tinca tinca": 0,
        "nothing, tailed_frog": 1,
        "machine": 3,
        "crane": None,
        "crane, machine": 3,
        "unheard of": None,
        "n01440764": None,
        None: None,
        -1: None,
        "-1": None,
        5: None,
        "5": None,
    }.items():
        assert class_index_of(label, few) == expected, label
    assert class_index_of(5, classifier()) == 5
    assert class_index_of("n01443537", classifier()) == 1
    assert class_index_of("n01443537", classifier("goldfish", "n01443537 ")) == 1
    assert class_index_of("n01443537", classifier(*imagenet_labels())) == 1


def test_samples():
    items = open_source("samples")
    assert {item.name for item in items} == {f"samples/{name}" for name in samples}
    assert {item.label for item in items} == {None}
    chelsea = next(item for item in items if item.name == "samples/chelsea")
    assert chelsea.load().tobytes() == samples["chelsea"]().tobytes()


def refused(message, source, error=UnilensError, **settings):
    with pytest.raises(error, match=message) as caught:
        open_source(source, **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("limit", [0, -3, "7", 2.0])
def test_limits_that_are_none(limit, folder):
    refused("expected limit to be at least 1, or None for all", str(folder), limit=limit)


def test_folders_without_images(tmp_path):
    refused("no such folder or image, or an empty one: .*gone", str(tmp_path / "gone"))
    refused("no such folder or image, or an empty one", str(tmp_path))
    refused("no such folder or image, or an empty one", "memory://unilens-nothing")
    (tmp_path / "notes.txt").write_text("none")
    refused("got none by their endings .* but notes.txt", str(tmp_path))
    refused("got none by their endings .* but notes.txt", str(tmp_path / "notes.txt"))


def test_settings_that_a_source_does_not_have(folder):
    refused("expected no split with .*images, got 'val'; name its", str(folder), split="val")
    refused("expected no split with samples, got 'val'", "samples", split="val")
    refused("expected no labels with samples", "samples", labels="labels.csv")
    refused("expected labels to be 'index' or None", "hf:x", labels="labels.csv")


@pytest.mark.parametrize(("url", "package"), [("s3://b/x", "s3fs"), ("gs://b/x", "gcsfs")])
def test_packages_of_file_systems_that_are_missing(url, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    refused(f"a package is missing to read {url}; run: pip install {package}$", url)


def test_urls_that_cannot_be_read(monkeypatch):
    refused("could not read nope://x: Protocol not known: nope", "nope://x")

    def fail(*_):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(folders, "url_to_fs", fail)
    refused("could not read memory://x: no route$", "memory://x")
    refused("could not read hf://datasets/x: no route$", "hf://datasets/x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected an image, got an empty file: .*4.png"),
        (b"none at all", "4.png is none that can be read"),
        (None, "no such file: .*4.png"),
    ],
)
@pytest.mark.parametrize("remote", [False, True])
def test_images_that_cannot_be_read(content, message, remote, folder):
    item = next(one for one in open_source(str(folder)) if one.name == "4.png")
    if remote:
        item = next(one for one in open_source(folder.as_uri()) if one.name == "4.png")
    if content is None:
        (folder / "4.png").unlink()
    else:
        (folder / "4.png").write_bytes(content)
    with pytest.raises(UnilensError, match=message):
        item.load()


def test_images_cut_short_and_images_too_small(folder):
    item = next(one for one in open_source(str(folder)) if one.name == "4.png")
    whole = (folder / "4.png").read_bytes()
    (folder / "4.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnilensError, match=r"could not read .*4\.png: .*is the file whole"):
        item.load()
    write(folder / "4.png", size=(4, 30))
    with pytest.raises(UnilensError, match=r"at least 8 pixels a side, got 30 x 4 in .*4\.png"):
        item.load()


def cifar(root, count=6):
    """Write the test images of a CIFAR-10 as torchvision expects them, and return them."""
    values = numpy.random.default_rng(3).integers(0, 256, (count, 3072), dtype=numpy.uint8)
    base = root / "cifar-10-batches-py"
    base.mkdir(parents=True)
    batch = {"data": values, "labels": [number % 10 for number in range(count)]}
    (base / "test_batch").write_bytes(pickle.dumps(batch))
    names = [f"kind {number}" for number in range(10)]
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))
    return values.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


@pytest.fixture
def unchecked(monkeypatch):
    """Let torchvision take files whose checksums are not those of the real data."""
    from torchvision.datasets import CIFAR10, cifar

    monkeypatch.setattr(cifar, "check_integrity", lambda path, md5=None: Path(path).is_file())
    monkeypatch.setattr(CIFAR10, "train_list", [])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", None]])


def test_a_data_set_of_torchvision(tmp_path, unchecked, monkeypatch):
    images = cifar(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    items = open_source("torchvision:CIFAR10")
    assert items == open_source(f"torchvision:CIFAR10?root={tmp_path}/data", split="test")
    assert labels_of(items) == {f"test/{i:06d}": f"kind {i}" for i in range(6)}
    by_index = open_source("torchvision:CIFAR10", labels="index", limit=3)
    assert [item.name for item in by_index] == [item.name for item in items[:3]]
    assert labels_of(by_index) == {item.name: int(item.name[-1]) for item in by_index}
    monkeypatch.chdir("/")
    for item in pickle.loads(pickle.dumps(items)):
        assert (numpy.asarray(item.load()) == images[int(item.name[-1])]).all()
    assert len(pickle.dumps(items[0])) < 400


def test_a_data_set_of_torchvision_without_root_and_split():
    spelling = "torchvision:FakeData?size=8&image_size=[3,20,24]&num_classes=3"
    items = open_source(spelling)
    assert len(items) == 8
    assert {item.label for item in items} <= {0, 1, 2}
    assert items == open_source(spelling)
    assert items[0].load().size == (24, 20)
    assert items[0].load().tobytes() == items[0].load().tobytes()


def test_splits_by_name_prefer_what_was_not_trained_on(monkeypatch, tmp_path):
    from torchvision import datasets

    class Held(datasets.FakeData):
        def __init__(self, root, split="train"):
            datasets.utils.verify_str_arg(split, "split", ("train", "test"))
            super().__init__(4, (3, 16, 16))

    monkeypatch.setattr(datasets, "SVHN", Held)
    assert {item.name[:-7] for item in open_source("torchvision:SVHN")} == {"test"}
    assert {i.name[:-7] for i in open_source("torchvision:SVHN", split="train")} == {"train"}
    refused("Unknown value 'extra' for argument split", "torchvision:SVHN", split="extra")


def test_data_sets_of_torchvision_that_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused("did you mean CIFAR10", "torchvision:CIFAR", UnknownNameError)
    refused(
        r"no data of torchvision:CIFAR10 in .*/data: Dataset not found or corrupted; name its "
        r"folder, torchvision:CIFAR10\?root=FOLDER, or fetch it once .*, download=True\)$",
        "torchvision:CIFAR10",
    )
    refused(r"devkit.* name its folder, torchvision:ImageNet\?root=FOLDER$", "torchvision:ImageNet")
    refused("to be train or test, got 'val'", "torchvision:CIFAR10", split="val")
    refused("torchvision:FakeData has none, got 'val'", "torchvision:FakeData", split="val")
    refused("settings of torchvision:FakeData do not fit .*'sice'", "torchvision:FakeData?sice=3")


def test_items_of_torchvision_that_are_none(monkeypatch):
    from torchvision import datasets

    class Odd(datasets.FakeData):
        def __getitem__(self, index):
            if index == 1:
                raise OSError("cut short")
            return [1, Image.new("RGB", (4, 30)), numpy.zeros((9, 9, 3))][index // 2], {"x": 1}

    monkeypatch.setattr(datasets, "SBU", Odd)
    sizes = "torchvision:SBU?size=1&random_offset=7"
    (item,) = open_source(sizes)
    assert item.label is None
    places = {index: type(item)(f"all/{index:06d}", None, item.origin) for index in range(5)}
    for index, message in (
        (0, "expected an image, got int: torchvision:SBU all/000000"),
        (1, "could not read torchvision:SBU all/000001: cut short"),
        (2, "at least 8 pixels a side"),
        (4, "expected an image, got ndarray"),
    ):
        with pytest.raises(UnilensError, match=message):
            places[index].load()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Hugging Face without a network, its cache in a folder of the test's own."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()
    yield datasets
    datasets.enable_progress_bars()


def image_folder(root):
    written = {}
    for split in ("train", "test"):
        for kind in ("cat", "dog"):
            for number in range(3):
                path = root / split / kind / f"{number}.png"
                written[path] = write(path, len(written))
    return written


def test_a_data_set_of_hugging_face(hub, tmp_path):
    written = image_folder(tmp_path / "set")
    items = open_source(f"hf:{tmp_path / 'set'}")
    assert sorted(item.name for item in items) == [f"test/{i:06d}" for i in range(6)]
    assert sorted(item.label for item in items) == ["cat"] * 3 + ["dog"] * 3
    expected = {
        (path.parent.name, colours.tobytes())
        for path, colours in written.items()
        if path.parts[-3] == "test"
    }
    assert {(item.label, item.load().tobytes()) for item in items} == expected
    train = open_source(f"hf:{tmp_path / 'set'}", split="train")
    few = open_source(f"hf:{tmp_path / 'set'}", split="train", labels="index", limit=2)
    assert [item.name for item in few] == [item.name for item in train[:2]]
    assert [item.label for item in few] == [("cat", "dog").index(i.label) for i in train[:2]]
    assert len(pickle.dumps(few[0])) < 500
    assert pickle.loads(pickle.dumps(few[0])).load().size == (10, 12)


def test_files_of_hugging_face(hub, tmp_path):
    colours = [write(tmp_path / f"{number}.png", number) for number in range(4)]
    stored = hub.Dataset.from_dict(
        {
            "picture": [str(tmp_path / f"{number}.png") for number in range(4)],
            "label": ["tench", "n01443537", None, "5"],
            "thumb": [str(tmp_path / "0.png")] * 4,
        }
    )
    stored = stored.cast_column("picture", hub.Image()).cast_column("thumb", hub.Image())
    (tmp_path / "parquet").mkdir()
    stored.to_parquet(tmp_path / "parquet" / "validation.parquet")
    stored.save_to_disk(str(tmp_path / "saved"))
    hub.DatasetDict({"train": stored, "test": stored}).save_to_disk(str(tmp_path / "both"))
    for name, split in (("parquet", "validation"), ("saved", "all"), ("both", "test")):
        items = open_source(f"hf:{tmp_path / name}?image=picture")
        assert labels_of(items) == {
            f"{split}/000000": "tench",
            f"{split}/000001": "n01443537",
            f"{split}/000002": None,
            f"{split}/000003": 5,
        }
        if name == "parquet":  # its cells name files outside of its folder
            with pytest.raises(UnilensError, match="path of a file within the data set"):
                items[0].load()
            continue
        for item in items:
            assert (numpy.asarray(item.load()) == colours[int(item.name[-1])]).all()
    refused(r"one column of images in .*picture \(Image\).*\?image=COLUMN", f"hf:{tmp_path}/saved")
    refused("expected image to be one of picture", f"hf:{tmp_path}/saved?image=x")
    refused("expected label to be one of picture", f"hf:{tmp_path}/saved?image=picture&label=x")
    refused("could not load hf:.*both", f"hf:{tmp_path}/both", split="val")


def test_broken_files_of_hugging_face(hub, tmp_path):
    cells = [{"bytes": b"none", "path": "x.png"}, None]
    stored = hub.Dataset.from_dict({"image": cells}, features=hub.Features(image=hub.Image()))
    stored.save_to_disk(str(tmp_path / "saved"))
    items = labels_of(open_source(f"hf:{tmp_path / 'saved'}"))
    assert items == {"all/000000": None, "all/000001": None}
    messages = {"all/000000": "is none that can be read", "all/000001": "an empty cell: hf:.*0001"}
    for item in open_source(f"hf:{tmp_path / 'saved'}"):
        with pytest.raises(UnilensError, match=messages[item.name]):
            item.load()
    written = image_folder(tmp_path / "set")
    item = open_source(f"hf:{tmp_path / 'set'}", limit=1)[0]
    for path in written:
        path.unlink()
    with pytest.raises(UnilensError, match=r"could not read .*png \(hf:.*set test/00000.\)"):
        item.load()


def test_data_sets_of_hugging_face_that_are_refused(hub, tmp_path, monkeypatch):
    refused("could not load hf:nobody/nothing: .*; check the name, the split", "hf:nobody/nothing")
    image_folder(tmp_path / "set")
    refused('Unknown split "val"', f"hf:{tmp_path / 'set'}", split="val")
    monkeypatch.setitem(sys.modules, "datasets", None)
    refused(r"need datasets; run: pip install 'unilens\[hf\]'$", f"hf:{tmp_path / 'other'}")


def test_imagenets_classes_are_taken_by_index():
    from unilens.benchmark.data.labels import as_label

    names = [f"class {number}" for number in range(1000)]
    assert as_label(7, names, False) == 7
    assert as_label(7, names[:9], False) == "class 7"
    assert as_label(7, [("tench", "Tinca tinca")] * 9, False) == "tench,Tinca tinca"
    assert as_label(9, names[:9], False) == 9
    assert as_label(-1, names[:9], False) is None
    assert as_label(numpy.int64(3), (), False) == 3
    assert as_label(torch.tensor(3), (), False) == 3
    assert as_label(" 3 ", names[:9], False) == 3
    assert as_label(3.7, (), False) is None
    assert json.dumps(as_label(numpy.int64(3), (), False)) == "3"


def test_a_folder_that_holds_itself_is_read_once(tmp_path):
    (tmp_path / "in").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "again").symlink_to(tmp_path)
    (tmp_path / "twin").symlink_to(tmp_path / "in")
    assert len(open_source(str(tmp_path))) == 1
