"""Weights and data sets that would run code, or fetch something unasked, do neither."""

import builtins
import json
import os
import pickle
from pathlib import Path

import pytest
import torch
import transformers

from unilens import UnilensError, load_model
from unilens._validation.weights import NO_CODE, weights_only
from unilens.benchmark.data import open_source
from unilens.models import loading
from unilens.tables.files import load_model as load_table_model
from unilens.text import load_image_text_model, load_language_model, load_text_classifier

SOURCE = Path(loading.__file__).parents[1]


class Evil:
    """Leaves a file where it is unpickled."""

    def __init__(self, note):
        self.note = note

    def __reduce__(self):
        return os.mkdir, (str(self.note),)


@pytest.fixture
def note(tmp_path, monkeypatch):
    """What evil code would leave; nobody is there to answer questions."""

    def asked(question=""):
        raise AssertionError(question)

    monkeypatch.setattr(builtins, "input", asked)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    return tmp_path / "ran"


def evil_code(folder, note):
    code = f"import os\nos.mkdir({str(note)!r})\nclass Evil:\n    pass\n"
    (folder / "evil.py").write_text(code)


AUTO = ["AutoConfig", "AutoModel", "AutoImageProcessor", "AutoProcessor", "AutoTokenizer"]
AUTO += [f"AutoModelFor{task}" for task in ("ImageClassification", "SequenceClassification")]
AUTO += ["AutoModelForCausalLM", "AutoModelForSeq2SeqLM"]
MAP = dict.fromkeys(AUTO, "evil.Evil") | {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}
LOADERS = {
    "images": load_model,
    "images, random weights": lambda name: load_model(name, pretrained=False),
    "texts": load_text_classifier,
    "generation": load_language_model,
    "images and texts": load_image_text_model,
}
CONFIGS = {
    "a kind of its own": {"model_type": "evil", "auto_map": MAP},
    "a known kind": {"model_type": "vit", "auto_map": MAP},
    "no kind": {"auto_map": MAP},
    "code elsewhere": {"auto_map": {name: f"some/repo--{MAP[name]}" for name in AUTO[:5]}},
}


@pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_code_beside_a_model_is_never_run(tmp_path, note, load, config):
    folder = tmp_path / "model"
    folder.mkdir()
    evil_code(folder, note)
    for name in ("config", "preprocessor_config", "tokenizer_config", "processor_config"):
        kinds = {"image_processor_type": "Evil", "processor_class": "Evil"}
        (folder / f"{name}.json").write_text(json.dumps(kinds | config))
    with pytest.raises(UnilensError) as error:
        load(f"hf:{folder}")
    assert "\n" not in str(error.value)
    assert not note.exists()


def vit(folder, note):
    """Save a tiny vision transformer whose weights are a pickle with code."""
    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    network = transformers.ViTForImageClassification(config)
    network.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    processor = transformers.ViTImageProcessor()
    processor.save_pretrained(folder)
    torch.save({**network.state_dict(), "evil": Evil(note)}, folder / "pytorch_model.bin")


def test_pickled_weights_of_transformers_are_read_as_data(tmp_path, note):
    vit(tmp_path, note)
    with pytest.raises(UnilensError, match="could not load hf:") as error:
        load_model(f"hf:{tmp_path}")
    assert "\n" not in str(error.value)
    assert not note.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("kind", ["zip", "pickle"])
def test_pickled_weights_in_the_cache_of_torchvision_are_read_as_data(
    tmp_path, note, monkeypatch, kind, protocol
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    checkpoints = tmp_path / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    file = checkpoints / "squeezenet1_1-b8a52dc0.pth"
    if kind == "zip":
        torch.save({"evil": Evil(note)}, file, pickle_protocol=max(protocol, 2))
    else:
        file.write_bytes(pickle.dumps({"evil": Evil(note)}, protocol))
    with pytest.raises(UnilensError, match="could not load torchvision:squeezenet1_1") as error:
        load_model("torchvision:squeezenet1_1")
    assert "\n" not in str(error.value)
    assert not note.exists()


@pytest.mark.parametrize("given", [None, False, True])
def test_no_library_can_ask_for_a_pickle_inside(tmp_path, note, monkeypatch, given):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    file = tmp_path / "weights.pt"
    torch.save({"evil": Evil(note)}, file)
    with weights_only(), pytest.raises(pickle.UnpicklingError):
        torch.load(file, weights_only=given)
    assert not note.exists()
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_variables_of_the_user_stay(monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "0")
    with weights_only():
        assert os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] == "1"
    assert os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] == "0"


def test_program_of_torch_export_that_is_a_pickle_is_refused(tmp_path, note):
    file = tmp_path / "program.pt2"
    torch.save({"evil": Evil(note)}, file)
    with pytest.raises(UnilensError, match="could not load"):
        load_table_model(str(file), trust_pickle=False)
    assert not note.exists()


@pytest.mark.parametrize(
    "suffix", [".pkl", ".pickle", ".joblib", ".PKL", ".pth", ".pt", ".npy", ""]
)
def test_other_files_of_models_are_not_opened(tmp_path, note, suffix):
    file = tmp_path / f"model{suffix}"
    file.write_bytes(pickle.dumps(Evil(note)))
    with pytest.raises(UnilensError, match=r"--trust-pickle|expected py:package\.module:name"):
        load_table_model(str(file), trust_pickle=False)
    assert not note.exists()


def test_every_loader_of_a_library_refuses_code():
    """What loads models of transformers says so; nothing in the package says the opposite."""
    calls = ("from_pretrained(", "from_config(")
    bare = []
    for path in SOURCE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "weights_only=False" not in text
        assert 'trust_remote_code": True' not in text
        assert "allow_pickle=True" not in text
        for number, line in enumerate(text.splitlines()):
            following = "\n".join(text.splitlines()[number : number + 3])
            if any(call in line for call in calls) and "**NO_CODE" not in following:
                bare.append(f"{path.name}:{number + 1}")
    assert bare == []
    assert NO_CODE == {"trust_remote_code": False}


DOWNLOADS = ["true", "True", "1", "yes", "2", "[0]", '"x"', '{"a":1}', "on"]


@pytest.mark.parametrize("value", DOWNLOADS)
@pytest.mark.parametrize("name", ["CIFAR10", "MNIST", "Flowers102"])
def test_no_data_set_of_torchvision_is_downloaded(tmp_path, monkeypatch, name, value):
    def fetched(*arguments, **settings):
        raise AssertionError("downloads")

    from torchvision import datasets

    monkeypatch.setattr(getattr(datasets, name), "download", fetched, raising=False)
    with pytest.raises(UnilensError, match="nothing is downloaded here") as error:
        open_source(f"torchvision:{name}?root={tmp_path}&download={value}")
    assert "\n" not in str(error.value)
    assert f"torchvision.datasets.{name}({str(tmp_path)!r}, download=True)" in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", ["false", "0", '""', "null"])
def test_a_data_set_that_is_not_to_be_downloaded_is_only_missing(tmp_path, value):
    with pytest.raises(UnilensError, match="no data of torchvision:CIFAR10"):
        open_source(f"torchvision:CIFAR10?root={tmp_path}&download={value}")


@pytest.mark.parametrize("name", ["LSUN", "LSUNClass"])
def test_data_sets_that_unpickle_are_refused(tmp_path, note, name):
    (tmp_path / "_cache_").write_bytes(pickle.dumps(Evil(note)))
    with pytest.raises(
        UnilensError, match=r"expected a data set whose files are data|unknown data"
    ):
        open_source(f"torchvision:{name}?root={tmp_path}")
    assert not note.exists()


def test_pickles_as_a_data_set_are_refused(tmp_path, note):
    (tmp_path / "train.pkl").write_bytes(pickle.dumps(Evil(note)))
    for source in (f"hf:pandas?data_files={tmp_path}/train.pkl", f"hf:{tmp_path}"):
        with pytest.raises(UnilensError) as error:
            open_source(source)
        assert "\n" not in str(error.value)
        assert not note.exists()


def test_script_of_a_data_set_is_not_run(tmp_path, note):
    evil_code(tmp_path, note)
    (tmp_path / "evil.py").rename(tmp_path / f"{tmp_path.name}.py")
    with pytest.raises(UnilensError, match="could not load hf:"):
        open_source(f"hf:{tmp_path}")
    assert not note.exists()


SETTINGS = ["trust_remote_code", "token", "cache_dir", "download_config", "storage_options", "path"]


@pytest.mark.parametrize("setting", [*SETTINGS, "features", "num_proc", "streaming", "split"])
def test_settings_of_a_data_set_are_those_that_name_data(setting):
    with pytest.raises(UnilensError, match=f"unknown setting of hf:some/repo '{setting}'"):
        open_source(f"hf:some/repo?{setting}=true")


REFERENCES = [
    *("reference://", "reference://x", "reference://::file:///tmp/x.json", "REFERENCE://x"),
    *("simplecache::reference://::file:///x.json", "zip://a::reference://b::file:///c"),
]


@pytest.mark.parametrize("url", REFERENCES)
def test_files_that_refer_to_others_are_refused(tmp_path, url):
    with pytest.raises(UnilensError, match="got references to others"):
        open_source(url)
    (tmp_path / "x.png").touch()
    with pytest.raises(UnilensError, match="got references to others"):
        open_source(str(tmp_path), labels=url)
