"""Volumes of medical files: NIfTI and DICOM series in, NIfTI out with the affine of the input.

The last three axes of every tensor here are in the file's own order `(i, j, k)`: nothing is turned
or resampled, and the affine says which way each axis runs. World coordinates are those of NIfTI, in
mm: they grow to the patient's right, front and head (RAS+). Of a DICOM series, i counts columns, j
rows and k slices, as converters to NIfTI have them.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from .._ops.files import check_free, write_whole
from ..errors import UnilensError, UnilensWarning, first_line, require
from .dicom import Array, import_medical, read_series

_SUFFIXES = (".nii", ".nii.gz")
_LARGEST_INTEGER = 2**24
"""float32 holds all whole numbers up to it."""
_MILLIMETRES = {"mm": 1.0, "unknown": 1.0, "meter": 1e3, "micron": 1e-3}


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """A volume with its place in the world.

    Attributes:
        values: `(1, 1, D, H, W)` in float32; the last three axes are i, j and k of the file.
        affine: `(4, 4)` in float64, from `(i, j, k, 1)` to world coordinates in mm; those grow to
            the patient's right, front and head (RAS+), as in NIfTI.
        spacing: mm from one voxel to the next along i, j and k.
        source: the file or folder.
        xform_code: of NIfTI, what the world is: 0 unknown, 1 the scanner, 2 another image, 3 the
            atlas of Talairach, 4 that of the MNI.
    """

    values: Tensor
    affine: Array
    spacing: tuple[float, float, float]
    source: str
    xform_code: int = 2

    @classmethod
    def of(cls, values: Array, affine: Array, source: str, xform_code: int = 2) -> Volume:
        """Return the volume of an array `(D, H, W)`; raise where it or its affine is not finite."""
        invertible = numpy.isfinite(affine).all() and abs(numpy.linalg.det(affine[:3, :3])) > 0
        require(
            bool(invertible),
            f"expected an affine that can be inverted, got another in {source}; write the spacing "
            "and orientation into the file",
        )
        largest = max(abs(int(values.min())), int(values.max())) if values.dtype.kind in "iu" else 0
        require(
            largest <= _LARGEST_INTEGER,
            f"expected whole numbers up to {_LARGEST_INTEGER}, which float32 holds, got {largest} "
            f"in {source}; number labels anew, or write the values in float32",
        )
        with numpy.errstate(over="ignore"):
            values = numpy.ascontiguousarray(values, numpy.float32)
        broken = int(values.size - numpy.isfinite(values).sum())
        require(
            not broken,
            f"expected finite values, got {broken} of {values.size} NaN or infinite in {source}; "
            "replace them in the file, for example by 0",
        )
        tensor = torch.from_numpy(values)
        i, j, k = numpy.linalg.norm(affine[:3, :3], axis=0).tolist()
        affine = affine.astype(numpy.float64)
        return cls(tensor[None, None], affine, (i, j, k), source, xform_code)

    def __repr__(self) -> str:
        spacing = " x ".join(f"{length:.3g}" for length in self.spacing)
        return f"Volume of {tuple(self.values.shape[2:])} voxels of {spacing} mm, {self.source}"


def load_volume(path: str | os.PathLike[str]) -> Volume:
    """Return the volume in a NIfTI file, or of a DICOM series.

    NIfTI (`.nii`, `.nii.gz`) has three axes, and further ones of length 1 only. A folder holds one
    DICOM series; of a folder with several, any file of a series stands for it. Slices are sorted by
    their position along the normal, and values rescaled by slope and intercept.

    Args:
        path: of a NIfTI file, of a folder with a DICOM series, or of one file of the series.

    Raises:
        UnilensError: `nibabel` or `pydicom` is not installed, or the file is missing, broken or of
            another kind; slices are missing, unevenly spaced, compressed without a decoder, in
            colour, or of several series.
    """
    file = _path(path)
    require(file.exists(), f"no such volume: {file}")
    if file.is_dir() or not file.name.lower().endswith(_SUFFIXES):
        return Volume.of(*read_series(file), str(file))
    nibabel = import_medical("nibabel")
    try:
        image = nibabel.load(file)
        values = numpy.asanyarray(image.dataobj)
    except Exception as error:  # a broken file raises whatever it meets
        raise UnilensError(
            f"expected a NIfTI file, could not read {file}: {first_line(error)}; write it again"
        ) from error
    header = image.header
    code = int(header["sform_code"]) or int(header["qform_code"])
    return Volume.of(_three_axes(values, file), _affine(image, code, file), str(file), code)


def save_volume(
    path: str | os.PathLike[str], values: Tensor, like: Volume, *, overwrite: bool = False
) -> None:
    """Write a map as NIfTI, with the affine of the volume that was explained.

    It is in float32; in float64 where that would make all values zero, or some infinite.

    Args:
        path: of the file, ending in `.nii` or `.nii.gz`.
        values: `(D, H, W)`, `(C, D, H, W)` or `(1, C, D, H, W)`, as `attribution[0].values`;
            channels are summed.
        like: the volume whose voxels the values are of.
        overwrite: whether to replace a file that exists.

    Raises:
        UnilensError: the values are of another shape than the volume, or the file cannot be
            written.
    """
    require(
        isinstance(like, Volume),
        f"expected like to be the volume that was explained, got {type(like).__name__}; pass what "
        "load_volume returns",
    )
    file, sides = _path(path), tuple(like.values.shape[2:])
    suffix = next((end for end in reversed(_SUFFIXES) if file.name.lower().endswith(end)), "")
    require(bool(suffix), f"expected a path that ends in .nii or .nii.gz, got {file}")
    require(
        isinstance(values, Tensor),
        f"expected a tensor of values, as attribution.values, got {type(values).__name__}",
    )
    shape = tuple(values.shape)
    fits = 3 <= values.ndim <= 5 and shape[-3:] == sides and (values.ndim < 5 or shape[0] == 1)
    require(
        fits,
        f"expected the map of one input of the volume's {sides} voxels, with channels first, got "
        f"{shape}; index one input, as attribution[0].values",
    )
    check_free(file, overwrite)
    nibabel = import_medical("nibabel")
    summed = values.detach().cpu().double().reshape(-1, *sides).sum(0).numpy()
    image = nibabel.Nifti1Image(_in_float32(summed), like.affine)
    image.set_sform(like.affine, like.xform_code)
    image.header.set_xyzt_units("mm")
    place = file.with_name(file.name[: -len(suffix)])
    write_whole(place, file.name[-len(suffix) :], lambda name: nibabel.save(image, name))


def _in_float32(values: Array) -> Array:
    """Return values in float32; as they are where it cannot hold the largest one."""
    limits = numpy.finfo(numpy.float32)
    largest = numpy.abs(values, where=numpy.isfinite(values), out=numpy.zeros_like(values)).max()
    fits = largest == 0 or limits.tiny <= largest <= limits.max
    return values.astype(numpy.float32) if fits else values


def _path(path: object) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise UnilensError(f"expected the path of a volume, got {type(path).__name__}")
    return Path(path)


def _three_axes(values: Array, file: Path) -> Array:
    """Return the values of a NIfTI file as `(i, j, k)`; raise where they are not of one volume."""
    require(
        values.dtype.kind in "biuf",
        f"expected one number per voxel, got {'colours' if values.dtype.names else values.dtype} "
        f"in {file}; save one channel, or the grey values",
    )
    shape = values.shape
    fewer = "; a picture is explained as an image (B, C, H, W)"
    more = "; take one, as nibabel.load(path).slicer[..., 0]"
    require(
        len(shape) >= 3 and all(side == 1 for side in shape[3:]) and 0 not in shape,
        f"expected a volume of three axes, got {shape} in {file}"
        + (more if len(shape) > 3 else fewer),
    )
    return values.reshape(shape[:3])


def _affine(image: Any, code: int, file: Path) -> Array:
    """Return the affine of a NIfTI image in mm; warn where the file has no orientation."""
    if not code:
        warnings.warn(
            f"{file} has no orientation (sform and qform codes are 0): its axes are taken to run "
            "to the left, front and head; write an affine into the file if they do not",
            UnilensWarning,
            stacklevel=3,
        )
    scale = _MILLIMETRES[image.header.get_xyzt_units()[0]]
    return numpy.diag([scale, scale, scale, 1.0]) @ image.affine
