"""NIfTI and DICOM series; the oracles are nibabel's reading and positions worked out by hand."""

import gzip
import subprocess
import sys
import warnings

import nibabel
import numpy
import pydicom
import pytest
import torch
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEGLSLossless, generate_uid

from unilens import UnilensError, explain
from unilens.errors import UnilensWarning
from unilens.models import load_volume, save_volume

from .test_axes import Network

SHAPE = (5, 4, 3)
"""Columns, rows and slices: no two sides are alike, so that no axes can be confused."""
ROW, COLUMN, STEP = (0.6, 0.8, 0.0), (-0.8, 0.6, 0.0), (0.0, 0.5, 2.0)
"""Ways of the axes, in DICOM's world (left, back, head); the slices are sheared, as by a gantry."""
SPACING, CORNER = (0.7, 0.5), (-30.0, 12.0, 7.0)
"""mm from row to row and from column to column; the first pixel of the first slice."""


@pytest.fixture
def phantom():
    """Return values (i, j, k) of which no two are alike."""
    return numpy.arange(60).reshape(SHAPE)


def world_of_dicom(i, j, k):
    """Return where a pixel lies, in right, front and head, by the formula of the standard."""
    lps = (
        numpy.array(CORNER)
        + numpy.array(ROW) * SPACING[1] * i
        + numpy.array(COLUMN) * SPACING[0] * j
        + numpy.array(STEP) * k
    )
    return lps * [-1, -1, 1]


def write_series(folder, values, *, slope=1.0, intercept=0.0, name="CT", **changes):
    """Write the slices of values (i, j, k) in files whose names are in no order."""
    folder.mkdir(exist_ok=True)
    series = generate_uid()
    for k in range(values.shape[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = (
            CTImageStorage,
            ExplicitVRLittleEndian,
        )
        meta.MediaStorageSOPInstanceUID = generate_uid()
        file = folder / f"{name}{(k * 7 + 3) % 11:02d}.dcm"
        data = FileDataset(str(file), {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        data.SeriesInstanceUID, data.SeriesDescription = series, f"series {name}"
        pixels = values[..., k].T.astype(numpy.int16)
        data.Rows, data.Columns = pixels.shape
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
        data.PixelSpacing, data.ImageOrientationPatient = list(SPACING), [*ROW, *COLUMN]
        data.ImagePositionPatient = list(numpy.array(CORNER) + numpy.array(STEP) * k)
        data.RescaleSlope, data.RescaleIntercept = slope, intercept
        data.PixelData = pixels.tobytes()
        for key, value in changes.items():
            setattr(data, key, value(k) if callable(value) else value)
        data.save_as(file, enforce_file_format=True)
    return folder


def by_place(volume):
    """Return the values by their place in the world, in whole micrometres."""
    indices = numpy.indices(volume.values.shape[2:]).reshape(3, -1)
    places = (volume.affine @ numpy.vstack([indices, numpy.ones(indices.shape[1])]))[:3].T
    keys = map(tuple, (places * 1000).round().astype(int).tolist())
    return dict(zip(keys, volume.values.flatten().tolist(), strict=True))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".NII"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_nifti_is_read_as_nibabel_reads_it(kind, suffix, phantom, tmp_path):
    affine = numpy.array([[0, -2.0, 0, 5], [1.5, 0, 0, -3], [0, 0, 3.0, 1], [0, 0, 0, 1]])
    image = kind(phantom.astype(numpy.int16), affine)
    image.header.set_slope_inter(0.5, -3.0)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, tmp_path / f"x{suffix}")
    volume, expected = load_volume(tmp_path / f"x{suffix}"), nibabel.load(tmp_path / f"x{suffix}")
    assert volume.values.shape == (1, 1, *SHAPE)
    assert volume.values.dtype == torch.float32
    assert numpy.array_equal(volume.values[0, 0].numpy(), expected.get_fdata(dtype="float32"))
    assert numpy.array_equal(volume.affine, expected.affine)
    assert volume.spacing == (1.5, 2.0, 3.0)
    assert repr(volume).startswith("Volume of (5, 4, 3) voxels of 1.5 x 2 x 3 mm, ")


@pytest.mark.parametrize(("unit", "scale"), [("meter", 1000), ("micron", 0.001), ("mm", 1)])
def test_affines_are_in_millimetres(unit, scale, phantom, tmp_path):
    image = nibabel.Nifti1Image(phantom.astype(numpy.int16), numpy.diag([1.0, 2.0, 3.0, 1.0]))
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "x.nii")
    assert load_volume(tmp_path / "x.nii").spacing == pytest.approx((scale, 2 * scale, 3 * scale))


def test_dicom_lies_where_its_headers_say(phantom, tmp_path):
    volume = load_volume(write_series(tmp_path / "series", phantom, slope=2.0, intercept=-1024.0))
    assert volume.values.shape == (1, 1, *SHAPE)
    assert numpy.array_equal(volume.values[0, 0].numpy(), 2.0 * phantom - 1024)
    for index in numpy.ndindex(SHAPE):
        found = volume.affine @ [*index, 1]
        assert found[:3] == pytest.approx(world_of_dicom(*index), abs=1e-9)
    assert volume.spacing == pytest.approx((0.5, 0.7, numpy.hypot(0.5, 2.0)))


def test_the_same_volume_as_nifti_and_as_dicom_is_in_the_same_place(phantom, tmp_path):
    dicom = load_volume(write_series(tmp_path / "series", phantom))
    turned = phantom.transpose(2, 0, 1)[::-1]  # k from the last slice, then i, j
    corner = world_of_dicom(0, 0, 2)
    ways = [world_of_dicom(*to) - corner for to in ((0, 0, 1), (1, 0, 2), (0, 1, 2))]
    affine = numpy.eye(4)
    affine[:3] = numpy.column_stack([*ways, corner])
    nibabel.save(nibabel.Nifti1Image(turned.astype(numpy.int16), affine), tmp_path / "x.nii.gz")
    nifti = load_volume(tmp_path / "x.nii.gz")
    assert by_place(nifti) == by_place(dicom)
    assert len(by_place(nifti)) == 60


def test_a_map_is_written_where_its_volume_lies(phantom, tmp_path):
    volume = load_volume(write_series(tmp_path / "series", phantom / 60))
    found = explain(Network(3, channels=1).float(), volume.values, "gradient", 0)
    path = tmp_path / "map.nii.gz"
    save_volume(path, found.values, like=volume)
    written = nibabel.load(path)
    assert numpy.array_equal(written.get_fdata(dtype="float32"), found.values[0, 0].numpy())
    assert numpy.allclose(written.affine, volume.affine, atol=1e-5)
    assert written.header.get_xyzt_units()[0] == "mm"
    before = path.read_bytes()
    with pytest.raises(UnilensError, match="it exists already"):
        save_volume(path, found.values, like=volume)
    assert path.read_bytes() == before
    several = torch.stack([found.values[0, 0], 2 * found.values[0, 0]])
    save_volume(path, several, like=volume, overwrite=True)
    sums = 3 * found.values[0, 0]
    assert numpy.allclose(nibabel.load(path).get_fdata(), sums, rtol=1e-6)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["map.nii.gz", "series"]


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("x.png", torch.zeros(SHAPE), "ends in .nii or .nii.gz"),
        ("x.nii", torch.zeros(2, 1, *SHAPE), r"index one input, as attribution\[0\].values"),
        ("x.nii", torch.zeros(3, 4, 5), r"volume's \(5, 4, 3\) voxels.* got \(3, 4, 5\)"),
        ("x.nii", numpy.zeros(SHAPE), "tensor of values, as attribution.values, got ndarray"),
        ("none/x.nii", torch.zeros(SHAPE), "there is no folder"),
    ],
)
def test_other_maps_are_not_written(name, values, message, phantom, tmp_path):
    nibabel.save(nibabel.Nifti1Image(phantom.astype(numpy.int16), numpy.eye(4)), tmp_path / "v.nii")
    volume = load_volume(tmp_path / "v.nii")
    with pytest.raises(UnilensError, match=message):
        save_volume(tmp_path / name, values, like=volume)
    assert [file.name for file in tmp_path.iterdir()] == ["v.nii"]


def saved_map(values, tmp_path, header=lambda image: None):
    """Return nibabel's reading of a map that is like a NIfTI file, and of that file."""
    image = nibabel.Nifti1Image(numpy.zeros(SHAPE, numpy.int16), numpy.diag([2.0, 2.0, 3.0, 1.0]))
    header(image)
    nibabel.save(image, tmp_path / "v.nii")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnilensWarning)
        volume = load_volume(tmp_path / "v.nii")
    save_volume(tmp_path / "map.nii", values, like=volume)
    return nibabel.load(tmp_path / "map.nii"), nibabel.load(tmp_path / "v.nii")


@pytest.mark.parametrize("qform", [0, 1])
@pytest.mark.parametrize("sform", [0, 1, 2, 3, 4])
def test_a_map_is_in_the_world_of_its_volume(sform, qform, tmp_path):
    def header(image):
        image.set_sform(image.affine, sform)
        image.set_qform(numpy.diag([2.0, 2.0, 3.0, 1.0]), qform)

    written, given = saved_map(torch.zeros(SHAPE), tmp_path, header)
    assert int(written.header["sform_code"]) == (sform or qform)
    assert numpy.allclose(written.affine, given.affine)


@pytest.mark.parametrize("size", [1e300, 1e39, 1.0, 1e-30, 1e-60])
def test_values_of_any_size_are_written(size, tmp_path):
    values = torch.linspace(-1, 1, 60, dtype=torch.float64).reshape(SHAPE) * size
    written, _ = saved_map(values, tmp_path)
    assert numpy.allclose(written.get_fdata() / size, values.numpy() / size, rtol=1e-6)
    assert written.get_data_dtype() == ("f8" if size in (1e300, 1e39, 1e-60) else "f4")


def test_a_map_needs_its_volume(tmp_path):
    for like in (None, torch.zeros(SHAPE)):
        with pytest.raises(UnilensError, match=r"like to be the volume .* got (NoneType|Tensor)"):
            save_volume(tmp_path / "x.nii", torch.zeros(SHAPE), like=like)


@pytest.mark.parametrize("kind", ["int32", "int64", "uint32", "uint64"])
def test_whole_numbers_are_never_rounded(kind, tmp_path):
    values = numpy.zeros(SHAPE, kind)
    values[1, 1, 1] = 2**24
    (tmp_path / "x.nii").write_bytes(nifti_bytes(values, tmp_path))
    assert load_volume(tmp_path / "x.nii").values.max() == 2**24
    values[1, 1, 1] += 1
    (tmp_path / "x.nii").write_bytes(nifti_bytes(values, tmp_path))
    with pytest.raises(UnilensError, match="up to 16777216, which float32 holds, got 16777217"):
        load_volume(tmp_path / "x.nii")


def nifti_bytes(values, tmp_path, affine=None):
    nibabel.save(
        nibabel.Nifti1Image(values, numpy.eye(4) if affine is None else affine, dtype=values.dtype),
        tmp_path / "_.nii",
    )
    return (tmp_path / "_.nii").read_bytes()


RGB = numpy.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
NAN = numpy.full(SHAPE, 1.0, numpy.float32)
NAN[0, 0, :2] = numpy.nan
BROKEN_NIFTI = {
    "2-D": (numpy.zeros((5, 4), numpy.int16), r"three axes, got \(5, 4\).*as an image \(B, C"),
    "4-D": (numpy.zeros((5, 4, 3, 2), numpy.int16), r"got \(5, 4, 3, 2\).*slicer\[\.\.\., 0\]"),
    "colours": (numpy.zeros(SHAPE, RGB), "one number per voxel, got colours"),
    "complex": (numpy.zeros(SHAPE, numpy.complex64), "one number per voxel, got complex64"),
    "NaN": (NAN, "finite values, got 2 of 60 NaN or infinite"),
    "too large": (numpy.full(SHAPE, 1e300), "finite values, got 60 of 60"),
}


@pytest.mark.parametrize("kind", BROKEN_NIFTI)
def test_other_nifti_is_refused(kind, tmp_path):
    values, message = BROKEN_NIFTI[kind]
    (tmp_path / "x.nii").write_bytes(nifti_bytes(values, tmp_path))
    with pytest.raises(UnilensError, match=message) as caught:
        load_volume(tmp_path / "x.nii")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", ["truncated", "half a header", "empty", "text", "wrong magic"])
def test_broken_nifti_is_refused(kind, suffix, phantom, tmp_path):
    whole = nifti_bytes(phantom.astype(numpy.float32), tmp_path)
    pack = gzip.compress if suffix == ".nii.gz" else bytes
    broken = {
        "truncated": pack(whole)[: int(len(pack(whole)) * 0.9)],
        "half a header": pack(whole[:200]),
        "empty": b"",
        "text": b"no volume at all " * 40,
        "wrong magic": pack(b"\1\2\3\4" + whole[4:344] + b"bad\0" + whole[348:]),
    }[kind]
    (tmp_path / f"x{suffix}").write_bytes(broken)
    with pytest.raises(UnilensError, match="expected a NIfTI file, could not read") as caught:
        load_volume(tmp_path / f"x{suffix}")
    assert "\n" not in str(caught.value)


def test_single_further_axes_are_dropped(phantom, tmp_path):
    (tmp_path / "x.nii").write_bytes(nifti_bytes(phantom.reshape(*SHAPE, 1).astype("i2"), tmp_path))
    assert load_volume(tmp_path / "x.nii").values.shape == (1, 1, *SHAPE)


def test_a_volume_without_orientation_is_said(phantom, tmp_path):
    image = nibabel.Nifti1Image(phantom.astype(numpy.int16), None)
    nibabel.save(image, tmp_path / "x.nii")
    with pytest.warns(UnilensWarning, match="has no orientation"):
        load_volume(tmp_path / "x.nii")


@pytest.mark.parametrize("path", ["none.nii", 3, None])
def test_no_path_to_a_volume_is_refused(path):
    with pytest.raises(UnilensError, match=r"no such volume|expected the path of a volume, got"):
        load_volume(path)


def moved(k):
    """Return the place of a slice, the last of which is one further."""
    return list(numpy.array(CORNER) + numpy.array(STEP) * (k + (k == 2)))


OTHER_SERIES = {
    "missing slice": ({"ImagePositionPatient": moved}, "slices are missing"),
    "same place": (
        {"ImagePositionPatient": lambda k: list(CORNER)},
        r"position of its own, got CT\d+.dcm and CT\d+.dcm at one; keep",
    ),
    "a doubled slice": (
        {"ImagePositionPatient": lambda k: [*CORNER[:2], CORNER[2] + k // 2]},
        r"got CT03.dcm and CT10.dcm at one",
    ),
    "colour": ({"PhotometricInterpretation": "RGB"}, "one grey value per pixel, got RGB"),
    "palette": ({"PhotometricInterpretation": "PALETTE COLOR"}, "got PALETTE COLOR"),
    "other spacing": (
        {"PixelSpacing": lambda k: [0.7, 0.5 + 0.1 * (k == 1)]}, "slices of one PixelSpacing",
    ),
    "other orientation": (
        {"ImageOrientationPatient": lambda k: [*ROW, *COLUMN] if k else [1, 0, 0, 0, 1, 0]},
        "slices of one ImageOrientationPatient",
    ),
    "no position": ({"ImagePositionPatient": None}, "without ImagePositionPatient"),
    "several frames": ({"NumberOfFrames": "2"}, "with several frames; convert it to NIfTI"),
    "too few pixels": ({"PixelData": b"\0" * 10}, "could not read .*; copy it again"),
    "no pixels": ({"PixelData": b""}, "could not read .*; copy it again"),
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHER_SERIES)
def test_other_series_are_refused(kind, phantom, tmp_path):
    changes, message = OTHER_SERIES[kind]
    write_series(tmp_path / "series", phantom, **changes)
    with pytest.raises(UnilensError, match=message) as caught:
        load_volume(tmp_path / "series")
    assert "\n" not in str(caught.value)


def test_one_series_of_several_is_chosen_by_a_file(phantom, tmp_path):
    folder = write_series(tmp_path / "series", phantom, name="A")
    write_series(folder, phantom + 100, name="B")
    (folder / "README").write_text("no image")
    (folder / "more").mkdir()
    with pytest.raises(UnilensError, match=r"got 2 in .*series A \(3 slices, as A03.dcm\), series"):
        load_volume(folder)
    chosen = load_volume(folder / "B06.dcm")
    assert numpy.array_equal(chosen.values[0, 0].numpy(), phantom + 100)


def test_a_broken_file_among_slices_is_not_left_out(phantom, tmp_path):
    folder = write_series(tmp_path / "series", phantom)
    last = folder / "CT06.dcm"  # the third slice: without it the others are evenly spaced
    for broken in (b"", last.read_bytes()[:100], last.read_bytes()[:-20]):
        last.write_bytes(broken)
        with pytest.raises(UnilensError, match=r"could not read .*CT06.dcm"):
            load_volume(folder)


def test_folders_and_files_of_other_kinds_are_refused(phantom, tmp_path):
    (tmp_path / "x.txt").write_text("text")
    with pytest.raises(UnilensError, match="found no DICOM images"):
        load_volume(tmp_path)
    with pytest.raises(UnilensError, match=r"expected a NIfTI file .*, got .*x.txt"):
        load_volume(tmp_path / "x.txt")
    write_series(tmp_path / "series", phantom[..., :1])
    with pytest.raises(UnilensError, match="at least two slices, got one"):
        load_volume(tmp_path / "series")


def test_compressed_slices_without_a_decoder_are_refused(phantom, tmp_path):
    folder = write_series(tmp_path / "series", phantom)
    for file in folder.iterdir():
        data = pydicom.dcmread(file)
        data.file_meta.TransferSyntaxUID = JPEGLSLossless
        data.PixelData = pydicom.encaps.encapsulate([b"\0" * 20])
        data["PixelData"].is_undefined_length = True
        data.save_as(file)
    with pytest.raises(UnilensError, match=r"decoder reads, got JPEG-LS.*pip install pylibjpeg"):
        load_volume(folder)


def test_slices_are_read_without_warnings(phantom, tmp_path):
    folder = write_series(tmp_path / "series", phantom, PixelData=lambda k: b"\0" * 60)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_volume(folder)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "path"), [("nibabel", "x.nii"), ("pydicom", "x")])
def test_medical_files_without_the_extra_say_so(name, path, tmp_path):
    (tmp_path / "x.nii").write_bytes(b"")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "y.dcm").write_bytes(b"")
    code = f"import sys; sys.modules[{name!r}] = None; from unilens.models import load_volume\n"
    code += f"try: load_volume({str(tmp_path / path)!r})\nexcept ValueError as e: print(e)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == (f"medical files need {name}; run: pip install 'unilens[medical]'\n"), (
        done.stderr
    )
