"""Local inpainting: against a sparse direct solver, Quantus, and values by hand."""

import numpy
import pytest
import torch
from quantus.functions.perturb_func import noisy_linear_imputation
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import spsolve
from torch import nn

from unilens import Evaluator
from unilens.errors import NotApplicableError, UnilensError
from unilens.metrics import EvalContext, Inpaint, imputers

OFFSETS = {
    (dy, dx): 1 / 6 if dy * dx == 0 else 1 / 12
    for dy in (-1, 0, 1)
    for dx in (-1, 0, 1)
    if (dy, dx) != (0, 0)
}


def subject_of(inputs, seed=0):
    model = nn.Sequential(nn.Flatten(), nn.Linear(inputs[0].numel(), 2)).to(inputs.dtype).eval()
    evaluator = Evaluator(model)
    outputs = evaluator(inputs)
    return EvalContext(evaluator, inputs, outputs.argmax(-1), outputs, inputs, seed)


def imputed(inputs, kept, **settings):
    return Inpaint(**{"noise": 0, "tolerance": 1e-12, **settings})(subject_of(inputs))(kept)


def solved_directly(image, kept):
    """The system of all removed pixels, written row by row, by a sparse direct solver."""
    height, width = kept.shape
    removed = [tuple(place) for place in (~kept).nonzero().tolist()]
    number = {place: row for row, place in enumerate(removed)}
    matrix = lil_matrix((len(removed), len(removed)))
    right = numpy.zeros((len(removed), len(image)))
    for (y, x), row in number.items():
        for (dy, dx), weight in OFFSETS.items():
            there = (y + dy, x + dx)
            if 0 <= there[0] < height and 0 <= there[1] < width:
                matrix[row, row] += weight
                if there in number:
                    matrix[row, number[there]] -= weight
                else:
                    right[row] += weight * image[:, there[0], there[1]].numpy()
    values = spsolve(matrix.tocsc(), right).reshape(len(removed), -1)
    expected = image.clone()
    expected[:, ~kept] = torch.from_numpy(values.T)
    return expected


def holes(height, width, generator):
    block = torch.ones(height, width, dtype=torch.bool)
    block[2 : height - 1, 3 : width - 1] = False
    border = torch.zeros(height, width, dtype=torch.bool)
    border[height // 2, width // 2] = True
    ring = torch.zeros(height, width, dtype=torch.bool)
    ring[0] = ring[-1] = ring[:, 0] = ring[:, -1] = True
    random = torch.rand(5, height, width, generator=generator) > torch.tensor(
        [0.1, 0.5, 0.9, 0.95, 0.02]
    ).view(-1, 1, 1)
    return torch.stack([block, border, ring, *random])


@pytest.mark.parametrize("size", [(13, 11), (24, 24), (7, 1)])
def test_inpaint_solves_linear_system(size, generator):
    images = torch.rand(2, 3, *size, generator=generator).double()
    kept = holes(max(size[0], 7), max(size[1], 7), generator)[..., : size[0], : size[1]]
    found = imputed(images, kept.unsqueeze(1).expand(-1, 2, -1, -1))
    for i, mask in enumerate(kept):
        if not mask.any() or mask.all():
            continue
        for j, image in enumerate(images):
            assert torch.allclose(found[i, j], solved_directly(image, mask), rtol=0, atol=1e-9)


def test_inpaint_keeps_kept_values_exactly(images, generator):
    kept = torch.rand(2, 8, 13, 11, generator=generator) > 0.5
    for noise in (0.0, 0.1):
        found = imputed(images, kept, noise=noise)
        stays = kept.unsqueeze(2).expand_as(found)
        assert torch.equal(found[stays], images.expand_as(found)[stays])


def test_inpaint_equals_quantus_inside_image(images):
    """Quantus takes pixels beyond the left and right borders from the rows above and below."""
    kept = torch.ones(13, 11, dtype=torch.bool)
    kept[2:10, 1:10] = torch.rand(8, 9, generator=torch.Generator().manual_seed(4)) > 0.6
    indices = (~kept).flatten().nonzero().flatten().numpy()
    theirs = noisy_linear_imputation(images[0].numpy(), indices, noise=0)
    found = imputed(images[:1], kept.view(1, 1, 13, 11))[0, 0]
    assert torch.allclose(found, torch.from_numpy(theirs), rtol=0, atol=1e-9)


def test_inpaint_of_single_pixel_is_mean_of_neighbours():
    image = torch.arange(9.0).double().view(1, 1, 3, 3)
    corner = torch.ones(1, 1, 3, 3, dtype=torch.bool)
    corner[..., 0, 0] = False
    # right 1 and below 3 weigh 1/6 each, the diagonal 4 weighs 1/12
    assert float(imputed(image, corner)[..., 0, 0]) == pytest.approx((1 + 3 + 4 / 2) / 2.5)


def test_inpaint_of_signal_is_linear():
    signal = torch.tensor([[[5.0, 9, 9, 9, 1, 9, 9]]]).double()
    kept = torch.tensor([True, False, False, False, True, False, False]).view(1, 1, 7)
    assert imputed(signal, kept).flatten().tolist() == pytest.approx([5, 4, 3, 2, 1, 1, 1])


def test_inpaint_of_empty_image_is_mean_colour(images):
    found = imputed(images, torch.zeros(1, 8, 13, 11, dtype=torch.bool))
    expected = images.mean((2, 3), keepdim=True).expand_as(images)
    assert torch.allclose(found[0], expected, rtol=0, atol=1e-14)


def test_inpaint_keeps_constant_image(generator):
    image = torch.full((1, 3, 13, 11), 0.3)
    kept = torch.rand(1, 1, 13, 11, generator=generator) > 0.7
    assert torch.allclose(imputed(image, kept, tolerance=1e-5)[0], image, rtol=0, atol=1e-6)


def test_inpaint_noise_is_gaussian_and_depends_on_input(generator):
    images = torch.rand(2, 3, 40, 40, generator=generator).double()
    kept = torch.rand(1, 2, 40, 40, generator=generator) > 0.5
    smooth = imputed(images, kept)
    noise = (imputed(images, kept, noise=0.2) - smooth)[0]
    gone = ~kept[0].unsqueeze(1).expand_as(noise)
    assert float(noise[gone].std()) == pytest.approx(0.2, rel=0.05)
    assert float(noise[gone].mean()) == pytest.approx(0, abs=0.01)
    assert not torch.equal(noise[0], noise[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inpaint_on_batch_equals_loop(dtype, images, generator):
    images = images.to(dtype)
    kept = torch.rand(3, 8, 13, 11, generator=generator) > 0.8
    together = imputed(images, kept, noise=0.01, tolerance=1e-5)
    for i in range(8):
        one = slice(i, i + 1)
        alone = imputed(images[one], kept[:, one], noise=0.01, tolerance=1e-5)
        assert torch.equal(alone, together[:, one])


def test_inpaint_of_many_masks_equals_loop(images, generator):
    """On accelerators images are solved together; those that have converged stay as they are."""
    from unilens.metrics.faithfulness.inpaint import inpaint

    kept = torch.rand(8, 1, 13, 11, generator=generator) > torch.linspace(0.1, 0.95, 8).view(
        -1, 1, 1, 1
    )
    kept[3] = False
    together = inpaint(images, kept, 1e-4)
    for i in range(8):
        alone = inpaint(images[i : i + 1], kept[i : i + 1], 1e-4)[0]
        assert torch.allclose(alone, together[i], rtol=0, atol=1e-13)


def test_inpaint_tolerance_is_relative_to_range(images, generator):
    kept = torch.rand(1, 8, 13, 11, generator=generator) > 0.8
    small = imputed(images, kept, tolerance=1e-3)
    large = imputed(1000 * images, kept, tolerance=1e-3)
    assert torch.allclose(1000 * small, large, rtol=1e-9)
    exact = imputed(images, kept)
    assert 1e-7 < float((small - exact).abs().max()) < 2e-2


def test_inpaint_refuses_tables():
    with pytest.raises(NotApplicableError, match=r"expects images .* use imputer='image_mean'"):
        Inpaint()(subject_of(torch.rand(3, 5)))


@pytest.mark.parametrize("settings", [{"noise": -0.1}, {"noise": "a"}, {"tolerance": 0}])
def test_inpaint_refuses_wrong_settings(settings):
    with pytest.raises(UnilensError, match="expected"):
        Inpaint(**settings)


def test_imputers_list_inpaint():
    assert imputers["inpaint"]() == Inpaint(noise=0.01)
    assert imputers["smooth_inpaint"]() == Inpaint(noise=0)
