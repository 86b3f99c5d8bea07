"""The volume of a DICOM series: its slices in order, rescaled, with an affine in RAS+."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy

from ..errors import UnilensError, first_line, require

Array = numpy.ndarray[Any, Any]

_TOLERANCE = 0.01
"""How far a slice may lie from its place, as a share of the distance between slices."""
_LPS_TO_RAS = numpy.diag([-1.0, -1.0, 1.0, 1.0])
_SAME = {"Rows": 1, "Columns": 1, "PixelSpacing": 2, "ImageOrientationPatient": 6}
"""How many numbers an element of the header has; they are those of every slice."""
_NEEDED = {**_SAME, "ImagePositionPatient": 3}


class _Slice(NamedTuple):
    """A file of a series with its header."""

    file: Path
    header: Any

    @property
    def position(self) -> Array:
        """The centre of its first pixel, in mm (LPS+)."""
        return numpy.array(self.header.ImagePositionPatient, dtype=numpy.float64)


def read_series(path: Path) -> tuple[Array, Array]:
    """Return the values `(columns, rows, slices)` and the affine of a DICOM series.

    Args:
        path: of the folder, or of one of the files.

    Raises:
        UnilensError: see `unilens.models.load_volume`.
    """
    slices = _one_series(path)
    _check_headers(slices)
    slices = sorted(slices, key=lambda one: float(one.position @ _normal(one.header)))
    step = _step(slices)
    header = slices[0].header
    row_mm, column_mm = (float(length) for length in header.PixelSpacing)
    orientation = numpy.array(header.ImageOrientationPatient, dtype=numpy.float64)
    affine = numpy.eye(4)
    affine[:3, 0], affine[:3, 1] = orientation[:3] * column_mm, orientation[3:] * row_mm
    affine[:3, 2], affine[:3, 3] = step, slices[0].position
    values = numpy.stack([_pixels(one).T for one in slices], axis=-1)
    return values, _LPS_TO_RAS @ affine


def import_medical(name: str) -> Any:
    """Return a module of the extra `medical`; raise where it is not installed."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise UnilensError(
            f"medical files need {name}; run: pip install 'unilens[medical]'"
        ) from error


def _one_series(path: Path) -> list[_Slice]:
    """Return the slices of the only series in a folder, or of that to which a file belongs."""
    chosen = None if path.is_dir() else _header(path)
    if path.is_file() and chosen is None:
        raise UnilensError(
            f"expected a NIfTI file (.nii, .nii.gz), a file of a DICOM series or its folder, got "
            f"{path}; convert it to one of them"
        )
    by_series: dict[str, list[_Slice]] = defaultdict(list)
    for file in sorted(path.iterdir() if path.is_dir() else path.parent.iterdir()):
        header = _header(file) if file.is_file() else None
        if header is not None and "Rows" in header:
            by_series[str(header.get("SeriesInstanceUID"))].append(_Slice(file, header))
    if chosen is not None:
        return by_series[str(chosen.get("SeriesInstanceUID"))]
    require(
        bool(by_series),
        f"expected a folder with a DICOM series, found no DICOM images in {path}; name the folder "
        "with the files themselves",
    )
    require(
        len(by_series) == 1,
        f"expected the folder of one DICOM series, got {len(by_series)} in {path}: "
        f"{_described(by_series.values())}; name a file of one of them",
    )
    return next(iter(by_series.values()))


def _described(several: Iterable[list[_Slice]]) -> str:
    names = [
        f"{one[0].header.get('SeriesDescription') or one[0].header.get('SeriesInstanceUID')} "
        f"({len(one)} slices, as {one[0].file.name})"
        for one in several
    ]
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _header(file: Path) -> Any:
    """Return what a DICOM file says before its pixels; None for files of another kind."""
    pydicom = import_medical("pydicom")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pydicom.dcmread(file, stop_before_pixels=True)
    except Exception as error:  # a broken file raises whatever it meets
        other_kind = isinstance(error, pydicom.errors.InvalidDicomError)
        if other_kind and file.suffix.lower() != ".dcm":
            return None
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: BaseException) -> UnilensError:
    return UnilensError(
        f"expected a DICOM file, could not read {file}: {first_line(error)}; copy it again"
    )


def _check_headers(slices: list[_Slice]) -> None:
    """Raise unless the slices are grey, single frames of one size and orientation."""
    first = slices[0].header
    for file, header in slices:
        lacking = [name for name, count in _NEEDED.items() if _count(header.get(name)) != count]
        require(
            not lacking and int(header.get("NumberOfFrames") or 1) == 1,
            f"expected slices with {', '.join(_NEEDED)}, one in each file, got {file} "
            + (f"without {', '.join(lacking)}" if lacking else "with several frames")
            + "; convert it to NIfTI",
        )
        grey = str(header.get("PhotometricInterpretation", "MONOCHROME2")).startswith("MONOCHROME")
        require(
            grey and "ModalityLUTSequence" not in header,
            f"expected one grey value per pixel, got {header.get('PhotometricInterpretation')} in "
            f"{file}; convert the series to grey values first",
        )
        for name in _SAME:
            require(
                numpy.allclose(header.get(name), first.get(name), atol=1e-4),
                f"expected slices of one {name}, got {first.get(name)} in {slices[0].file.name} "
                f"and {header.get(name)} in {file.name}; keep the files of one volume",
            )


def _count(value: Any) -> int:
    if value is None or value == "":
        return 0
    return 1 if isinstance(value, (int, float, str)) else len(value)


def _normal(header: Any) -> Array:
    orientation = numpy.array(header.ImageOrientationPatient, dtype=numpy.float64)
    return numpy.cross(orientation[:3], orientation[3:])


def _step(slices: list[_Slice]) -> Array:
    """Return the way from a slice to the next in mm (LPS+); raise unless it is always the same."""
    require(
        len(slices) > 1,
        f"expected at least two slices, got one, {slices[0].file}; explain it as an image "
        "(B, C, H, W), or name the folder of the whole series",
    )
    ways = numpy.diff([one.position for one in slices], axis=0)
    usual = numpy.median(ways, axis=0)
    length = float(numpy.linalg.norm(usual))
    same = int(numpy.linalg.norm(ways, axis=1).argmin())
    require(
        bool(ways[same].any()),
        f"expected each slice at a position of its own, got {slices[same].file.name} and "
        f"{slices[same + 1].file.name} at one; keep the slices of one volume, or convert the "
        "series to NIfTI",
    )
    off = numpy.linalg.norm(ways - usual, axis=1)
    worst = int(off.argmax())
    if off[worst] > _TOLERANCE * length or length == 0:
        got = float(numpy.linalg.norm(ways[worst]))
        raise UnilensError(
            f"expected slices {length:.4g} mm apart, got {got:.4g} mm from "
            f"{slices[worst].file.name} to {slices[worst + 1].file.name}; slices are missing, "
            "doubled or unevenly spaced: complete the series, or resample it to NIfTI"
        )
    way: Array = (slices[-1].position - slices[0].position) / (len(slices) - 1)
    return way


def _pixels(one: _Slice) -> Array:
    """Return the rescaled values `(rows, columns)` of a slice."""
    pydicom = import_medical("pydicom")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(one.file)
            syntax = dataset.file_meta.TransferSyntaxUID
            stored = dataset.pixel_array
    except Exception as error:  # a broken file raises whatever it meets
        if isinstance(error, RuntimeError) and "missing" in str(error):
            raise UnilensError(
                f"expected pixels that an installed decoder reads, got {syntax.name} in "
                f"{one.file}; run: pip install pylibjpeg[all], or decompress the series"
            ) from error
        raise _unreadable(one.file, error) from error
    slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    scale = 1.0 if slope is None else float(slope)
    values: Array = stored * scale + (0.0 if intercept is None else float(intercept))
    return values
