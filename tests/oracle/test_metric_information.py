"""Information curves: against the saliency package's, with the same pixels shown."""

import numpy
import pytest
import torch
from saliency.metrics import pic
from torch import nn

from unilens import Evaluator
from unilens.errors import NotApplicableError, UnilensError
from unilens.metrics import InformationCurve, accuracy, evaluate, metrics

from ..conftest import SmallNet, randomise
from .test_metric_inpaint import imputed

FRACTIONS = (1 / 36, 1 / 16, 0.125, 0.25, 0.5, 0.75)


@pytest.fixture
def pictures():
    """Smooth 8-bit pictures with a coarse and a fine pattern: they compress in different ways."""
    coarse = torch.rand(3, 3, 6, 6, generator=torch.Generator().manual_seed(1)).double()
    images = nn.functional.interpolate(coarse, size=(24, 24), mode="bilinear")
    fine = 0.2 * torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(2)).double()
    fine[:, :, :12] = 0
    return (((images * 0.8 + fine) * 255).round()) / 255


@pytest.fixture
def model():
    """A net that is unsure of blurred pictures, and more and less sure on the way."""

    class Fine(nn.Module):
        def forward(self, inputs):
            fine = inputs.diff(dim=2).abs().mean((1, 2, 3))
            fine = (fine - 0.03) * 60 + (600 * fine).sin()
            return torch.stack([fine, torch.zeros_like(fine), 0.5 * inputs.mean((1, 2, 3))], 1)

    return Fine().eval()


def theirs(monkeypatch, image, relevance, always, predict, **settings):
    """The public code, with our guess in place of its own, which is by Delaunay triangles."""

    def guess(full_img, pixel_mask):
        whole = torch.from_numpy(full_img / 255).movedim(-1, 0)[None]
        made = imputed(whole, torch.from_numpy(pixel_mask)[None, None], tolerance=1e-5)[0, 0]
        return (made.clamp(0, 1) * 255).round().movedim(0, -1).numpy().astype(numpy.uint8)

    monkeypatch.setattr(pic, "create_blurred_image", guess)
    if not hasattr(numpy, "trapz"):
        monkeypatch.setattr(numpy, "trapz", numpy.trapezoid, raising=False)
    return pic.compute_pic_metric(
        (image * 255).round().movedim(0, -1).numpy().astype(numpy.uint8),
        relevance.numpy(),
        always.numpy(),
        predict,
        FRACTIONS,
        min_pred_value=0.0,
        num_data_points=20000,
        **settings,
    )


@pytest.mark.parametrize("name", ["sic_auc", "aic_auc"])
@pytest.mark.parametrize("monotonic", [True, False])
@pytest.mark.filterwarnings("ignore:`trapz`:DeprecationWarning")
def test_it_is_the_public_codes(name, monotonic, model, pictures, monkeypatch):
    relevance = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(3)).double()
    measure = metrics[name](fractions=FRACTIONS, shown=0.05, monotonic=monotonic)
    found = measure(model, pictures, relevance, target=0)
    if name == "sic_auc":
        assert bool((found.details["scores"].diff(dim=1) < 0).any())
    from unilens.metrics import EvalContext

    evaluator = Evaluator(model)
    outputs = evaluator(pictures)
    target = torch.zeros(3, dtype=torch.long)
    context = EvalContext(evaluator, pictures, target, outputs, pictures, 0)
    always = measure._always(context)
    assert always.flatten(1).sum(1).tolist() == [int(0.05 * 576)] * 3

    def predict(given):
        logits = model(torch.from_numpy(given / 255).movedim(-1, 1))
        if name == "aic_auc":
            return (logits.argmax(-1) == 0).double().numpy()
        return logits.softmax(-1)[:, 0].numpy()

    compared = 0
    for i in range(3):
        given = (pictures[i], relevance[i], always[i], predict)
        try:
            result = theirs(monkeypatch, *given, keep_monotonous=monotonic)
        except pic.ComputePicMetricError:
            assert found.values[i].isnan()
            continue
        compared += 1
        assert found.details["scores"][i].tolist() == pytest.approx(
            [float(one) for one in result.predictions], abs=1e-12
        )
        assert float(found.values[i]) == pytest.approx(result.auc, abs=2e-4)
    assert compared >= 2


def test_the_curve_by_hand():
    from unilens.metrics.faithfulness.information import _area, _share

    x = torch.tensor([[10.0, 20, 15, 30]])
    assert _share(x).tolist() == [[0, 0.5, 0.25, 1]]
    assert _share(torch.tensor([[2.0, 9, -9, 4]])).tolist() == [[0, 1, 0, 1]]
    assert _share(torch.tensor([[2.0, 9, 2.0]])).isnan().all()
    # (0, 0), (1/4, 1), (1/2, 1/2), (1, 1): 1/8 + 3/16 + 3/8
    area = _area(_share(x), torch.tensor([[0, 0.5, 1, 1]]).double())
    assert area.tolist() == pytest.approx([0.6875])


def test_perfect_random_worst():
    """What the model looks at is in the lower half; the upper half costs as many bytes."""

    class Lower(nn.Module):
        def forward(self, inputs):
            seen = (inputs[:, :, 12:].diff(dim=3).abs().mean((1, 2, 3)) - 0.1) * 40
            return torch.stack([seen, torch.zeros_like(seen)], 1)

    pictures = torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(1)).double()
    lower = torch.zeros(3, 24, 24).double()
    lower[:, 12:] = 1
    noise = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(3)).double()
    found = [
        evaluate(Lower().eval(), pictures, made, "sic_auc", target=0, fractions=FRACTIONS)
        for made in (-lower + 0.1 * noise, noise, lower + 0.1 * noise)
    ]
    assert bool((torch.stack(found).diff(dim=0) > 0).all())


def test_what_is_undefined_is_nan(model, pictures):
    maps = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(3)).double()
    maps[1] = 0
    found = evaluate(model, pictures, maps, "sic_auc", target=0)
    assert found.isnan().tolist() == [False, True, False]
    # another class loses by what is shown
    assert evaluate(model, pictures, maps, "sic_auc", target=1).isnan().all()
    # a class that is never predicted has no accuracy to win
    assert evaluate(model, pictures, maps, "aic_auc", target=2).isnan().all()
    grey = torch.full_like(pictures, 0.5)
    assert evaluate(model, grey, maps, "sic_auc", target=0).isnan().all()


def test_a_batch_gives_what_a_loop_gives(model, pictures):
    maps = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(3)).round(decimals=1)
    for name in ("sic_auc", "aic_auc"):
        together = evaluate(model, pictures, maps, name, target=0)
        for i in range(3):
            one = slice(i, i + 1)
            alone = evaluate(model, pictures[one], maps[one], name, target=0)
            assert torch.equal(alone, together[one])


def test_other_inputs_are_refused():
    net = randomise(SmallNet().double())
    images = torch.rand(2, 3, 13, 11).double()
    for given in (images + 0.5, images - 0.5):
        with pytest.raises(NotApplicableError, match=r"pictures in \[0, 1\], got values from"):
            evaluate(net, given, given, "sic_auc")
    grey = randomise(nn.Sequential(nn.Flatten(), nn.Linear(143, 3)).double())
    with pytest.raises(NotApplicableError, match=r"pictures \(B, 3, H, W\), got .*insertion_auc"):
        evaluate(grey, images[:, :1], images[:, :1], "aic_auc")


def test_accuracy():
    outputs = torch.tensor([[1.0, 2], [2, 1], [3, 3]])
    assert accuracy(outputs, torch.tensor([1, 1, 0])).tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    "settings", [{"fractions": (0,)}, {"shown": 1.0}, {"monotonic": 1}, {"imputer": 3}]
)
def test_bad_settings(settings):
    with pytest.raises(UnilensError, match="expected"):
        InformationCurve(**settings)
