"""Tangent spaces where the truth is known, and what of a map lies in them."""

import math
import os

import numpy
import pytest
import torch
from scipy import ndimage
from torch import nn

from unilens.errors import NotApplicableError, UnilensError
from unilens.manifold import (
    PCA,
    ConvAutoencoder,
    Decoder,
    LocalPCA,
    TangentSpace,
    Transformations,
    as_manifold,
    jacobians,
    load_manifold,
    save_manifold,
)
from unilens.manifold.tangent import spaces_at
from unilens.manifold.transformations import _directions


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(3)


def projector(space, row=0):
    basis = space.basis[row]
    return basis @ basis.T


def orthogonal(vectors):
    """The projector on the span of independent columns, by the normal equations."""
    return vectors @ torch.linalg.solve(vectors.T @ vectors, vectors.T)


class Plane:
    """A linear manifold in R^12, as a user's own coder."""

    def __init__(self, generator):
        self.columns = torch.randn(12, 3, generator=generator, dtype=torch.float64)
        self.offset = torch.randn(12, generator=generator, dtype=torch.float64)

    def encode(self, inputs):
        return torch.linalg.lstsq(self.columns, (inputs.flatten(1) - self.offset).T).solution.T

    def decode(self, codes):
        return (codes @ self.columns.T + self.offset).view(-1, 3, 2, 2)


class Sphere:
    """The unit sphere in the first three of five coordinates, by angles."""

    def encode(self, inputs):
        x, y, z = inputs[:, :3].unbind(1)
        return torch.stack([torch.acos(z / inputs[:, :3].norm(dim=1)), torch.atan2(y, x)], dim=1)

    def decode(self, codes):
        theta, phi = codes.unbind(1)
        zero = torch.zeros_like(phi)
        xyz = (theta.sin() * phi.cos(), theta.sin() * phi.sin(), theta.cos())
        return torch.stack([*xyz, zero, zero], dim=1)


def points_on_sphere(generator, count=6):
    points = torch.randn(count, 5, generator=generator, dtype=torch.float64)
    points[:, 3:] = 0
    return points / points.norm(dim=1, keepdim=True)


def test_tangent_space_of_linear_manifold(generator):
    plane = Plane(generator)
    inputs = plane.decode(torch.randn(4, 3, generator=generator, dtype=torch.float64))
    space = Decoder(plane)(inputs)
    expected = orthogonal(plane.columns)
    for row in range(4):
        assert torch.allclose(projector(space, row), expected, atol=1e-12)
    assert space.rank.tolist() == [3] * 4
    assert torch.allclose(Decoder(plane).reconstruct(inputs), inputs, atol=1e-12)


def test_tangent_space_of_sphere(generator):
    points = points_on_sphere(generator)
    space = Decoder(Sphere())(points)
    for row, point in enumerate(points):
        expected = torch.diag(torch.tensor([1.0, 1, 1, 0, 0], dtype=torch.float64))
        expected = expected - torch.outer(point, point)
        assert torch.allclose(projector(space, row), expected, atol=1e-10)
    assert torch.allclose(space.content(points), torch.zeros(6, dtype=torch.float64), atol=1e-6)


def test_tangent_rank_falls_with_chart():
    pole = torch.tensor([[0.0, 0, 1, 0, 0]], dtype=torch.float64)
    space = Decoder(Sphere())(pole)
    assert space.rank.tolist() == [1]
    assert float(space.basis[0, :, 1].abs().max()) == 0
    assert float(space.random_level) == pytest.approx(math.sqrt(1 / 5))


def generate(codes):
    """Images 1 x 4 x 4 from three numbers, with a Jacobian that is known."""
    random = torch.Generator().manual_seed(8)
    first = torch.randn(10, 3, generator=random, dtype=torch.float64)
    second = torch.randn(16, 10, generator=random, dtype=torch.float64)
    hidden = (codes @ first.T).tanh()
    known = second @ (torch.diag_embed(1 - hidden.square()) @ first)
    return (hidden @ second.T).view(-1, 1, 4, 4), known


def test_tangent_space_of_known_generator(generator):
    codes = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    _, known = generate(codes)
    found = jacobians(lambda some: generate(some)[0], codes, at_once=2)
    assert torch.allclose(found, known, atol=1e-12)
    space = TangentSpace.spanned_by(jacobians(lambda some: generate(some)[0], codes))
    for row in range(5):
        assert torch.allclose(projector(space, row), orthogonal(known[row]), atol=1e-10)


def test_tangential_content_of_tangent_normal_and_random_vectors(generator):
    codes = torch.randn(1, 3, generator=generator, dtype=torch.float64)
    _, known = generate(codes)
    space = TangentSpace.spanned_by(jacobians(lambda some: generate(some)[0], codes))
    weights = torch.randn(3, generator=generator, dtype=torch.float64)
    tangent = known[0] @ weights
    anything = torch.randn(16, generator=generator, dtype=torch.float64)
    normal = anything - orthogonal(known[0]) @ anything
    assert float(space.content(tangent.view(1, 1, 4, 4))) == pytest.approx(1, abs=1e-12)
    assert float(space.content(normal.view(1, 1, 4, 4))) == pytest.approx(0, abs=1e-12)
    both = 3 * tangent / tangent.norm() + 4 * normal / normal.norm()
    assert float(space.content(both.view(1, 1, 4, 4))) == pytest.approx(0.6, abs=1e-12)
    many = torch.randn(4000, 16, generator=generator, dtype=torch.float64)
    contents = torch.stack([space.content(vector.view(1, 16)) for vector in many])
    # the mean of the square is k / d; its standard error is that of a beta variable
    share = 3 / 16
    error = math.sqrt(share * (1 - share) / (16 / 2 + 1) / 4000)
    assert float(contents.square().mean()) == pytest.approx(share, abs=4 * error)
    assert float(space.random_level) == pytest.approx(math.sqrt(share))


def test_tangential_content_of_zero_is_nan():
    space = TangentSpace.spanned_by(torch.zeros(1, 6, 2, dtype=torch.float64))
    assert space.rank.tolist() == [0]
    assert math.isnan(float(space.content(torch.ones(1, 6))))
    full = TangentSpace.spanned_by(torch.eye(6, dtype=torch.float64)[None])
    assert math.isnan(float(full.content(torch.zeros(1, 6))))
    assert float(full.content(torch.ones(1, 6))) == pytest.approx(1)


def test_tangent_rank_counts_nearly_dependent_columns():
    columns = torch.eye(6, 3, dtype=torch.float64)
    columns[:, 2] = columns[:, 0] + 1e-17 * columns[:, 2]
    assert TangentSpace.spanned_by(columns[None]).rank.tolist() == [2]
    columns[4, 2] = 1e-9
    assert TangentSpace.spanned_by(columns[None]).rank.tolist() == [3]
    assert TangentSpace.spanned_by(columns[None].float()).rank.tolist() == [2]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_tangent_space_ignores_rounding(dtype, generator):
    plane = Plane(generator)
    flat = plane.decode(torch.randn(300, 3, generator=generator, dtype=torch.float64)).to(dtype)
    space = LocalPCA(flat, dimension=5, neighbours=20)(flat[:2])
    assert space.rank.tolist() == [3, 3]
    assert torch.allclose(projector(space), orthogonal(plane.columns), atol=1e-4)
    assert int(PCA.fit(flat, 5)(flat[:1]).rank) == 3
    assert int(PCA.fit(torch.zeros(10, 4, dtype=dtype), 3)(torch.zeros(1, 4)).rank) == 0
    ramp = torch.linspace(0, 1, 12, dtype=dtype).expand(1, 1, 12, 12)
    exact = Transformations()(torch.linspace(0, 1, 12, dtype=torch.float64).expand(1, 1, 12, 12))
    assert int(Transformations()(ramp).rank) == int(exact.rank)
    noisy = torch.full((1, 1, 9, 9), 0.5, dtype=dtype)
    noisy += torch.finfo(dtype).eps * torch.randn(noisy.shape, generator=generator, dtype=dtype)
    assert int(Transformations()(noisy).rank) == 1


def test_tangent_space_of_half_precision_network(generator):
    network = ConvAutoencoder((1, 28, 28), dimension=6, width=4).eval()
    image = torch.rand(1, 1, 28, 28, generator=generator)
    full = Decoder(network)(image)
    assert int(full.rank) == 6
    rough = Decoder(network.to(torch.bfloat16))(image)
    assert int(rough.rank) >= 3
    assert float(full.content(rough.basis[0, :, 0].view(1, 1, 28, 28))) > 0.95


def test_forward_mode_equals_reverse_mode(generator):
    network = ConvAutoencoder((1, 9, 7), dimension=4, width=3).eval()
    codes = torch.randn(3, 4, generator=generator)
    found = jacobians(network.decode, codes)
    for row, code in enumerate(codes):
        slow = torch.autograd.functional.jacobian(
            lambda one: network.decode(one[None])[0].flatten(), code
        )
        assert torch.allclose(found[row], slow, atol=1e-5)


class _OnlyBackward(torch.autograd.Function):
    """An operation without a forward mode."""

    @staticmethod
    def forward(ctx, values):
        ctx.save_for_backward(values)
        return values**2

    @staticmethod
    def backward(ctx, gradient):
        return 2 * ctx.saved_tensors[0] * gradient


def test_reverse_mode_replaces_missing_forward_mode(generator):
    codes = torch.rand(3, 4, generator=generator, dtype=torch.float64)
    found = jacobians(_OnlyBackward.apply, codes)
    assert torch.allclose(found, torch.diag_embed(2 * codes), atol=1e-14)
    with pytest.raises(UnilensError, match="decoder that is differentiable"):
        jacobians(lambda some: torch.from_numpy(some.detach().numpy() ** 2), codes)


def test_tangent_space_of_batch_equals_loop(generator):
    network = ConvAutoencoder((1, 8, 8), dimension=5, width=4).eval()
    inputs = torch.rand(4, 1, 8, 8, generator=generator)
    references = torch.rand(60, 1, 8, 8, generator=generator)
    for manifold in (
        Decoder(network),
        Transformations(),
        PCA.fit(references, 5),
        LocalPCA(references, 5, 20),
    ):
        together = manifold(inputs)
        for row in range(4):
            alone = manifold(inputs[row : row + 1])
            assert torch.equal(alone.basis[0], together.basis[row])
            assert int(alone.rank) == int(together.rank[row])


def test_pca_equals_eigenvectors_of_covariance(generator):
    spread = torch.tensor([5.0, 3.0, 2.0, 0.1, 0.1, 0.1], dtype=torch.float64)
    inputs = torch.randn(200, 6, generator=generator, dtype=torch.float64) * spread
    found = PCA.fit(inputs.view(200, 1, 2, 3), 3)
    values, vectors = numpy.linalg.eigh(numpy.cov(inputs.numpy(), rowvar=False))
    expected = torch.from_numpy(vectors[:, values.argsort()[::-1][:3].copy()])
    assert torch.allclose(
        projector(found(inputs[:1].view(1, 1, 2, 3))), expected @ expected.T, atol=1e-10
    )
    again = found.reconstruct(inputs.view(200, 1, 2, 3))
    assert float((again.flatten(1) - inputs).square().mean()) < 0.02
    with pytest.raises(UnilensError, match="dimension to be at most 6, from 200 inputs"):
        PCA.fit(inputs, 7)


def test_local_pca_finds_plane_and_sphere(generator):
    plane = Plane(generator)
    codes = torch.randn(300, 3, generator=generator, dtype=torch.float64)
    flat = plane.decode(codes)
    found = LocalPCA(flat, dimension=3, neighbours=20)(flat[:2])
    assert torch.allclose(projector(found), orthogonal(plane.columns), atol=1e-9)
    points = points_on_sphere(generator, 4000)
    space = LocalPCA(points, dimension=2, neighbours=30)(points[:20])
    assert float(space.content(points[:20]).max()) < 0.05  # normals; the error is of the curvature
    few = LocalPCA(flat, dimension=5, neighbours=20)(flat[:1])
    assert few.rank.tolist() == [3]


def test_transformations_equal_finite_differences():
    rows, columns = numpy.mgrid[0:41, 0:41].astype(float)
    picture = numpy.exp(-((rows - 17) ** 2 / 40 + (columns - 24) ** 2 / 90 + rows * columns / 900))
    image = torch.from_numpy(picture)[None]
    found = _directions(image, 1e-16)

    def changed(matrix, shift=(0.0, 0.0)):
        centre = numpy.array([20.0, 20.0])
        offset = centre - matrix @ centre + shift
        return ndimage.affine_transform(picture, matrix, offset, order=5)

    step = 1e-3
    one = numpy.eye(2)
    turn = numpy.array([[0.0, 1.0], [-1.0, 0.0]])
    changes = {
        0: changed(one, (0.0, step)),
        1: changed(one, (step, 0.0)),
        2: changed(one + step * turn),
        3: changed(one * (1 + step)),
        4: changed(one + step * numpy.diag([-1.0, 1.0])),
        5: changed(one + step * numpy.array([[0.0, 1.0], [1.0, 0.0]])),
    }
    inner = numpy.zeros((41, 41), dtype=bool)
    inner[4:-4, 4:-4] = True
    for number, after in changes.items():
        expected = ((after - picture) / step)[inner]
        direction = found[:, number].view(41, 41).numpy()[inner]
        cosine = expected @ direction / numpy.linalg.norm(expected) / numpy.linalg.norm(direction)
        assert abs(cosine) > 0.999, number
    flat = Transformations()(torch.full((1, 3, 4, 4), 0.5))
    assert flat.rank.tolist() == [3]  # offset and gain are the same there
    assert Transformations()(torch.rand(1, 3, 9, 9)).rank.tolist() == [13]


@pytest.mark.parametrize("kind", ["autoencoder", "pca", "local_pca"])
def test_manifold_files_restore_manifold(kind, generator, tmp_path):
    data = torch.rand(40, 1, 8, 8, generator=generator)
    manifold = {
        "autoencoder": Decoder(ConvAutoencoder((1, 8, 8), 5, 4).eval()),
        "pca": PCA.fit(data, 5),
        "local_pca": LocalPCA(data, 5, 20),
    }[kind]
    path = tmp_path / "some.safetensors"
    save_manifold(manifold, path, {"data": "random"})
    again = as_manifold(str(path))
    assert as_manifold(path) is again
    assert torch.equal(again(data[:2]).basis, manifold(data[:2]).basis)
    with pytest.raises(UnilensError, match=r"could not write .*exists; choose another name"):
        save_manifold(manifold, path)
    with pytest.raises(NotApplicableError, match=r"shape \(1, 8, 8\) that the manifold was fitted"):
        spaces_at(again, torch.rand(1, 3, 8, 8))
    whole = path.read_bytes()
    path.with_name("half.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnilensError, match="could not read the manifold"):
        load_manifold(path.with_name("half.safetensors"))


def test_manifold_cache_separates_files_of_same_name(tmp_path, monkeypatch, generator):
    data = torch.rand(30, 6, generator=generator, dtype=torch.float64)
    for name, dimension in (("first", 2), ("second", 3)):
        (tmp_path / name).mkdir()
        save_manifold(PCA.fit(data, dimension), tmp_path / name / "some.safetensors")
        os.utime(tmp_path / name / "some.safetensors", (1e9, 1e9))
    for name, dimension in (("first", 2), ("second", 3)):
        monkeypatch.chdir(tmp_path / name)
        assert int(as_manifold("some.safetensors")(data[:1]).rank) == dimension
    (tmp_path / "made.py").write_text(
        "from unilens.manifold import Transformations\n"
        "calls = []\n"
        "def make():\n    calls.append(1)\n    return Transformations()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    first = as_manifold("py:made:make")
    assert as_manifold("py:made:make") is first
    network = ConvAutoencoder((1, 8, 8), 5, 4).double().eval()
    save_manifold(Decoder(network), tmp_path / "wide.safetensors")
    again = load_manifold(tmp_path / "wide.safetensors")
    images = torch.rand(2, 1, 8, 8, generator=generator, dtype=torch.float64)
    assert torch.equal(again(images).basis, Decoder(network)(images).basis)


def test_manifold_checks_user_tangent_spaces():
    inputs = torch.rand(2, 6)
    plain = torch.eye(6, 2).expand(2, -1, -1)
    known = spaces_at(lambda some: TangentSpace(plain, torch.tensor([2, 2])), inputs)
    assert known.basis.dtype == torch.float64
    for basis, rank in (
        (5 * plain, torch.tensor([2, 2])),
        (plain * math.nan, torch.tensor([2, 2])),
        (plain, torch.tensor([1, 2])),
    ):
        with pytest.raises(UnilensError, match="orthonormal columns, as many as the rank"):
            spaces_at(lambda some, b=basis, r=rank: TangentSpace(b, r), inputs)


def test_as_manifold_refuses_other_values(tmp_path):
    with pytest.raises(UnilensError, match=r"expected components \(d, k\), d = 2"):
        PCA(torch.zeros(2), torch.zeros(7, 3))
    half = nn.Sequential(nn.Dropout())
    coder = ConvAutoencoder((1, 8, 8)).eval()
    coder.more = half
    with pytest.raises(UnilensError, match="got training mode"):
        Decoder(coder)
    with pytest.raises(UnilensError, match="there is no file x"):
        as_manifold("x" * 300)
    with pytest.raises(UnilensError, match="manifold"):
        as_manifold("\0")
    with pytest.raises(UnilensError, match=r"expected a manifold: transformations, .*no file here"):
        as_manifold("here.safetensors")
    with pytest.raises(UnilensError, match="expected a manifold, its name or its file"):
        as_manifold(3)
    with pytest.raises(UnilensError, match="expected a manifold, its name or its file"):
        as_manifold(Transformations)
    with pytest.raises(UnilensError, match="has no function 'nothing'"):
        as_manifold("py:math:nothing")
    with pytest.raises(UnilensError, match="expected a coder with encode and decode"):
        Decoder(nn.Identity())
    with pytest.raises(UnilensError, match=r"call coder\.eval\(\) first"):
        Decoder(ConvAutoencoder((1, 8, 8)))
    with pytest.raises(UnilensError, match="a TangentSpace with a basis"):
        spaces_at(lambda inputs: inputs, torch.rand(2, 1, 4, 4))
    with pytest.raises(NotApplicableError, match="expected pictures"):
        spaces_at(Transformations(), torch.rand(2, 6))
    with pytest.raises(UnilensError, match="save its network yourself"):
        save_manifold(Transformations(), tmp_path / "some.safetensors")
