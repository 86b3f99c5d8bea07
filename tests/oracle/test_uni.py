"""UNI against algorithm 1 of the paper, written out slowly."""

import copy
import itertools

import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch.nn.functional import cross_entropy

from unilens import explain
from unilens._engine.evaluator import Evaluator
from unilens.baselines import Unlearned, Weighted, baselines
from unilens.errors import NotApplicableError, UnilensError


def algorithm_1(model, x, c, eta=1.0, T=10, eps=0.25, mu=0.1, B=15, normalise=False, at=1.0):
    """One image (1, C, H, W); weights are unlearned by an ordinary optimiser step on a copy.

    With `normalise` each gradient of the search is scaled to the length eps, as `uni` does; each
    node lies at the share `at` of its step.
    """
    unlearned = copy.deepcopy(model)
    loss = cross_entropy(unlearned(x), torch.tensor([c]))
    loss.backward()
    norm = sum((p.grad**2).sum() for p in unlearned.parameters()) ** 0.5
    with torch.no_grad():
        for p in unlearned.parameters():
            p += eta * p.grad / norm
        reference = torch.softmax(unlearned(x), dim=1)
    delta = torch.zeros_like(x)
    for _ in range(T):
        delta.requires_grad_(True)
        found = torch.softmax(model(x + delta), dim=1)
        cost = (reference * (reference / found).log()).sum()
        (step,) = torch.autograd.grad(cost, delta)
        if normalise:
            step = eps * step / (step**2).sum() ** 0.5
        delta = (delta - mu * step).detach()
        delta = eps * delta / (delta**2).sum() ** 0.5
    baseline = x + delta
    total = torch.zeros_like(x)
    for k in range(1, B + 1):
        point = (baseline + (k - 1 + at) / B * (x - baseline)).requires_grad_(True)
        (gradient,) = torch.autograd.grad(torch.softmax(model(point), dim=1)[0, c], point)
        total += gradient
    return (x - baseline) / B * total, baseline


READINGS = {"uni_paper": {}, "uni": {"mu": 0.12, "normalise": True, "at": 0.5}}
"""Algorithm 1 to the letter, and with normalised gradients, steps of 0.12 eps and midpoints."""


@pytest.mark.parametrize("method", READINGS)
@pytest.mark.parametrize("settings", [{}, {"n_steps": 4, "matching_steps": 3, "budget": 1.5}])
def test_uni_equals_algorithm_1(method, settings, small_net, images):
    names = {"n_steps": "B", "matching_steps": "T", "budget": "eps"}
    slow = {names[name]: value for name, value in settings.items()} | READINGS[method]
    attribution = explain(small_net, images, method, **settings)
    for i, x in enumerate(images):
        expected, baseline = algorithm_1(small_net, x[None], int(attribution.target[i]), **slow)
        assert attribution.baseline[i].numpy() == pytest.approx(baseline[0].numpy(), abs=1e-10)
        scale = float(expected.abs().max())
        difference = float((attribution.values[i] - expected[0]).abs().max())
        assert difference <= 1e-8 * scale


def algorithm_1_of_a_value(model, x, index, eta=1.0, T=10, eps=0.25, mu=0.12, B=15):
    """One row (1, F): the value falls by one step of the weights, and the search matches it."""
    unlearned = copy.deepcopy(model)
    unlearned(x)[0, index].backward()
    norm = sum((p.grad**2).sum() for p in unlearned.parameters()) ** 0.5
    with torch.no_grad():
        for p in unlearned.parameters():
            p -= eta * p.grad / norm
        reference = unlearned(x)[0, index]
    delta = torch.zeros_like(x)
    for _ in range(T):
        delta.requires_grad_(True)
        cost = (model(x + delta)[0, index] - reference) ** 2
        (step,) = torch.autograd.grad(cost, delta)
        delta = delta - mu * eps * step / step.norm()
        delta = (eps * delta / delta.norm()).detach()
    baseline = x + delta
    total = torch.zeros_like(x)
    for k in range(B):
        point = (baseline + (k + 0.5) / B * (x - baseline)).requires_grad_(True)
        (gradient,) = torch.autograd.grad(model(point)[0, index], point)
        total += gradient
    return (x - baseline) / B * total, baseline


def test_uni_of_a_value_lowers_the_value_itself():
    torch.manual_seed(4)
    model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3))
    model, rows = model.double().eval(), torch.rand(4, 5, dtype=torch.float64)
    attribution = explain(model, rows, "uni", 2, outputs="regression")
    for i, x in enumerate(rows):
        expected, baseline = algorithm_1_of_a_value(model, x[None], 2)
        assert torch.allclose(attribution.baseline[i], baseline[0], atol=1e-10)
        assert torch.allclose(attribution.values[i], expected[0], atol=1e-10)
    assert (attribution.score_diagnostics["score_change"] > 0).all()


def smoothed(image, sigma, mode):
    """A gaussian average of each channel of an image (1, C, H, W), by scipy."""
    return torch.from_numpy(gaussian_filter(image.numpy(), (0, 0, sigma, sigma), mode=mode))


def line_search_by_hand(model, start, reference, radius, steps=1, lengths=3):
    """One image (C, H, W): each step has Polyak's length, quartered until the loss falls."""

    def loss_of(point):
        found = model(point[None]).softmax(-1)[0]
        return (reference * (reference / found).log()).sum()

    losses, delta = [], torch.zeros_like(start)
    for _ in range(steps):
        point = (start + delta).requires_grad_(True)
        loss = loss_of(point)
        (slope,) = torch.autograd.grad(loss, point)
        losses.append(loss.item())
        length = min(loss.item() / slope.norm().item(), radius)
        for _ in range(lengths):
            trial = delta - length * slope / slope.norm()
            if trial.norm() > radius:
                trial = trial * radius / trial.norm()
            if loss_of(start + trial).item() < losses[-1]:
                delta = trial
                break
            length /= 4
    return start + delta, [*losses, loss_of(start + delta).item()]


def full_step_by_hand(model, start, reference, radius):
    """One image (C, H, W): the step to the sphere, along the gradient."""
    point = start.clone().requires_grad_(True)
    found = model(point[None]).softmax(-1)[0]
    (slope,) = torch.autograd.grad((reference * (reference / found).log()).sum(), point)
    return start - radius * slope / slope.norm(), None


def gains_by_hand(model, x, baseline, c, n):
    """The map of one image (C, H, W): two fifths integral of regions, three fifths gains."""
    x, baseline = x[None], baseline[None]
    parts, scores = [], []
    for k in range(n):
        point = (baseline + (k + 0.5) / n * (x - baseline)).requires_grad_(True)
        score = torch.softmax(model(point), dim=1)[0, c]
        parts.append(torch.autograd.grad(score, point)[0] * (x - baseline) / n)
        scores.append(score.item())
    ends = [torch.softmax(model(point), dim=1)[0, c].item() for point in (baseline, x)]
    after = [*scores[1:], ends[1]]
    before = [ends[0], *scores[1:]]
    total = 0.4 * smoothed(sum(parts), 0.09 * max(x.shape[-2:]), "reflect")
    for part, low, high in zip(parts, before, after, strict=True):
        gain = (part * (1 if high > low else -1)).clamp(min=0)
        total = total + (high - low - 0.4 * part.sum()) * gain / gain.sum()
    return total[0]


FULL_STEP = {"gradient": "normalised", "line_search": False, "projection": "sphere"}


@pytest.mark.parametrize("n", [15, 8])
@pytest.mark.parametrize(
    ("settings", "search"), [({}, line_search_by_hand), (FULL_STEP, full_step_by_hand)]
)
def test_uni_blur_searches_from_blurred_image(settings, search, n, small_net, images):
    attribution = explain(small_net, images, "uni_blur", n_steps=n, **settings)
    for i, x in enumerate(images):
        c = int(attribution.target[i])
        start = smoothed(x[None], 15, "nearest")[0]
        radius = 0.25 * float((x - start).norm())
        baseline, _ = search(small_net, start, unlearn(small_net, x, c), radius)
        expected = gains_by_hand(small_net, x, baseline, c, n)
        assert attribution.baseline[i].numpy() == pytest.approx(baseline.numpy(), abs=1e-9)
        difference = float((attribution.values[i] - expected).abs().max())
        assert difference <= 1e-8 * float(expected.abs().max())


@pytest.mark.slow
def test_uni_unlearns_and_explains_given_target(small_net, images):
    attribution = explain(small_net, images[:1], "uni_paper", target=3)
    expected, _ = algorithm_1(small_net, images[:1], 3)
    assert attribution.values.numpy() == pytest.approx(expected.numpy(), abs=1e-12)


def kl(first, second):
    return float((first * (first / second).log()).sum())


def find(baseline, model, inputs, target=None):
    evaluator = Evaluator(model)
    target = evaluator(inputs).argmax(-1) if target is None else target
    generator = torch.Generator().manual_seed(0)
    return baseline(evaluator, inputs, target, generator=generator)


@pytest.mark.parametrize(
    "settings",
    [{}, {"start": "gaussian"}, {"start": "sphere"}, {"gradient": "normalised"}, {"budget": 2.0}],
)
def test_unlearned_baseline_lies_on_sphere(settings, small_net, images):
    found = find(Unlearned(**settings), small_net, images)
    distance = (found.values - images).flatten(1).norm(dim=1)
    assert distance.tolist() == pytest.approx([settings.get("budget", 0.25)] * 8, abs=1e-12)


def test_unlearned_ball_keeps_nearer_points(small_net, images):
    found = find(
        Unlearned(projection="ball", budget=5.0, matching_step_size=0.01), small_net, images
    )
    distance = (found.values - images).flatten(1).norm(dim=1)
    assert float(distance.max()) < 4.9
    tight = find(
        Unlearned(projection="ball", budget=0.01, matching_step_size=1.0), small_net, images
    )
    assert (tight.values - images).flatten(1).norm(dim=1).tolist() == pytest.approx([0.01] * 8)


def test_unlearned_clamp_keeps_baseline_in_box(small_net, images):
    free = find(Unlearned(budget=3.0), small_net, images).values
    assert float(free.min()) < 0
    boxed = find(Unlearned(budget=3.0, clamp=True), small_net, images).values
    assert float(boxed.min()) >= 0
    assert float(boxed.max()) <= 1


@pytest.mark.parametrize("matching_target", ["uniform", "prior"])
def test_unlearned_takes_uniform_and_prior_targets(matching_target, small_net, images):
    prior = torch.tensor([0.0, 2.0, 2.0, 4.0, 2.0]).double()
    given = {"class_prior": prior} if matching_target == "prior" else {}
    found = find(Unlearned(matching_target=matching_target, **given), small_net, images)
    reference = prior / prior.sum() if given else torch.full((5,), 0.2, dtype=torch.float64)
    keep = reference > 0
    for losses, x, y in zip(found.record["matching_loss"], images, found.values, strict=True):
        for point, loss in ((x, losses[0]), (y, losses[-1])):
            output = small_net(point[None]).softmax(-1)[0].detach()
            assert float(loss) == pytest.approx(kl(reference[keep], output[keep]), abs=1e-12)


def test_unlearned_records_matching_loss(small_net, images):
    attribution = explain(small_net, images, "uni")
    losses = attribution.record["matching_loss"]
    assert losses.shape == (8, 11)
    assert bool((losses[:, -1] < losses[:, 0]).all())
    fall = attribution.diagnostics["matching_loss_fall"]
    assert fall.tolist() == (losses[:, 0] - losses[:, -1]).tolist()


def test_unlearned_refuses_prior_of_wrong_length(small_net, images):
    baseline = Unlearned(matching_target="prior", class_prior=torch.ones(3))
    with pytest.raises(
        ValueError, match=r"class_prior of shape \(5,\), none negative and not all zero, got \(3,\)"
    ):
        find(baseline, small_net, images)


def test_uni_warns_where_baseline_is_input(images):
    flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 13 * 11, 4)).double().eval()
    torch.nn.init.zeros_(flat[1].weight)
    attribution = explain(flat, images, "uni_paper")
    assert torch.equal(attribution.baseline, images)
    assert all("baseline_is_input" in names for names in attribution.warnings)
    assert float(attribution.values.abs().max()) == 0


class Rescaled(torch.nn.Module):
    """The model of inputs in other units: it takes x / units."""

    def __init__(self, model, units):
        super().__init__()
        self.model, self.units = model, units

    def forward(self, inputs):
        return self.model(inputs * self.units)


POWERS = {
    "one": torch.tensor(0.5),
    "per channel": torch.tensor([0.25, 2.0, 8.0]).view(3, 1, 1),
    "per value": 2.0 ** (torch.arange(3 * 13 * 11) % 5).view(3, 13, 11),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", POWERS)
@pytest.mark.parametrize("method", ["uni_blur", "uni", "uni_paper"])
def test_uni_is_invariant_to_rescaling_with_units(method, kind, small_net, images):
    """Powers of two round nothing, so that both must agree to the last bit."""
    units = POWERS[kind].double()
    given = {"clamp": True, "bounds": (-0.1, 1.1)} if kind == "one" else {}
    found = explain(small_net, images, method, units=units, **given)
    if given:
        given["bounds"] = (-0.2, 2.2)
    rescaled = explain(Rescaled(small_net, units).eval(), images / units, method, **given)
    assert torch.equal(found.values, rescaled.values)
    assert torch.equal(found.baseline, rescaled.baseline * units)
    assert torch.equal(found.record["matching_loss"], rescaled.record["matching_loss"])
    if (method, kind) == ("uni_blur", "one"):
        return  # its budget is a share of the way: one unit for all values changes nothing
    plain = explain(small_net, images, method)
    assert not torch.allclose(found.baseline, plain.baseline, atol=1e-3)


@pytest.mark.parametrize("start", ["zeros", "gaussian", "sphere"])
def test_unlearned_budget_is_in_units(start, small_net, images):
    units = torch.tensor([3.0, 0.1, 20.0]).view(3, 1, 1)
    found = find(Unlearned(start=start, units=units, budget=0.7), small_net, images)
    distance = ((found.values - images) / units).flatten(1).norm(dim=1)
    assert distance.tolist() == pytest.approx([0.7] * 8, abs=1e-6)


def test_unlearned_units_of_one_equal_none(small_net, images):
    plain = explain(small_net, images, "uni_blur")
    for units in (1, [[[1.0]]], torch.ones(3, 13, 11)):
        found = explain(small_net, images, "uni_blur", units=units)
        assert torch.equal(found.values, plain.values)


@pytest.mark.parametrize(
    "units",
    [0, -1.0, float("nan"), [1.0, 0.0], "std", torch.zeros(2), torch.ones(2) * torch.inf, True],
)
def test_unlearned_refuses_wrong_units(units):
    with pytest.raises(ValueError, match="expected units to be finite numbers above 0, got"):
        Unlearned(units=units)


@pytest.mark.parametrize("shape", [(3,), (1, 1, 1, 1), (2, 13, 11)])
def test_unlearned_refuses_units_of_wrong_shape(shape, small_net, images):
    message = r"broadcast to one input of shape \(3, 13, 11\), got "
    with pytest.raises(ValueError, match=message):
        explain(small_net, images, "uni", units=torch.ones(shape))


def kl_of(model, reference, point):
    return kl(reference, model(point[None]).softmax(-1)[0].detach())


def slow_search(model, start, reference, steps, size, budget, shape=lambda step: step):
    """One image: normalised steps inside the ball about the start, written out."""
    delta, losses = torch.zeros_like(start), []
    for _ in range(steps):
        delta = delta.detach().requires_grad_(True)
        found = model((start + delta)[None]).softmax(-1)[0]
        cost = (reference * (reference / found).log()).sum()
        (step,) = torch.autograd.grad(cost, delta)
        losses.append(float(cost.detach()))
        step = shape(step)
        delta = delta.detach() - size * step / step.norm()
        if delta.norm() > budget:
            delta = delta * budget / delta.norm()
    return start + delta, losses


def unlearn(model, x, c, eta=1.0, steps=1, last=False):
    moved = copy.deepcopy(model)
    weights = list(moved.children())[-1].parameters() if last else moved.parameters()
    weights = list(weights)
    for _ in range(steps):
        moved.zero_grad()
        cross_entropy(moved(x[None]), torch.tensor([c])).backward()
        norm = sum((p.grad**2).sum() for p in weights) ** 0.5
        with torch.no_grad():
            for p in weights:
                p += eta * p.grad / norm
    return moved(x[None]).softmax(-1)[0].detach()


NEAR = {"gradient": "normalised", "projection": "ball", "matching_step_size": 0.3, "budget": 0.4}


@pytest.mark.parametrize("origin", ["blur", "grey", "auto"])
def test_unlearned_search_stays_near_origin(origin, small_net, images):
    found = find(Unlearned(origin=origin, matching_steps=4, **NEAR), small_net, images)
    name = "blur" if origin == "auto" else origin
    starts = find(baselines[name](), small_net, images)
    target = small_net(images).argmax(-1)
    for i, x in enumerate(images):
        reference = unlearn(small_net, x, int(target[i]))
        radius = 0.4 * float((starts[i] - x).norm())
        expected, losses = slow_search(small_net, starts[i], reference, 4, 0.3 * radius, radius)
        assert found.values[i].numpy() == pytest.approx(expected.detach().numpy(), abs=1e-10)
        assert found.record["matching_loss"][i, :4].tolist() == pytest.approx(losses, abs=1e-10)
        assert float((found.values[i] - starts[i]).norm()) <= radius + 1e-12


def test_unlearned_auto_origin_of_table_is_input():
    model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3))
    model, rows = model.double().eval(), torch.rand(5, 6).double()
    auto, plain = (find(Unlearned(origin=origin), model, rows) for origin in ("auto", "input"))
    assert torch.equal(auto.values, plain.values)


def test_unlearned_without_steps_is_origin(small_net, images):
    found = find(Unlearned(origin="blur", matching_steps=0), small_net, images)
    assert torch.equal(found.values, find(baselines["blur"](), small_net, images))
    assert found.record["matching_loss"].shape == (8, 1)


def test_unlearned_origins_give_independent_baselines(small_net, images):
    several = find(
        Unlearned(origin=["uniform_noise", "uniform_noise", "blur"], **NEAR), small_net, images
    )
    assert [found.weight for found in several] == [1 / 3] * 3
    alone = find(Unlearned(origin="uniform_noise", **NEAR), small_net, images)
    assert torch.equal(several[0].values, alone.values)
    assert not torch.allclose(several[1].values, alone.values, atol=1e-2)


@pytest.mark.parametrize(("steps", "weights"), [(3, "all"), (1, "last"), (2, "last")])
def test_unlearned_takes_several_steps_and_last_layer(steps, weights, small_net, images):
    target = small_net(images).argmax(-1)
    found = find(
        Unlearned(unlearning_steps=steps, unlearned_weights=weights, matching_steps=1),
        small_net,
        images,
    )
    for i, x in enumerate(images):
        reference = unlearn(small_net, x, int(target[i]), steps=steps, last=weights == "last")
        first = kl_of(small_net, reference, x)
        assert float(found.record["matching_loss"][i, 0]) == pytest.approx(first, abs=1e-10)


@pytest.mark.parametrize("grid", [3, 5, 20])
def test_unlearned_grid_shift_is_constant_per_cell(grid, small_net, images):
    def by_cells(step):
        """Every place gets the mean over the places of its cell, one by one."""
        rows, columns = ([i * min(grid, n) // n for i in range(n)] for n in step.shape[1:])
        means = torch.zeros_like(step)
        for i, j in itertools.product(range(len(rows)), range(len(columns))):
            cell = [
                step[:, k, m]
                for k, m in itertools.product(range(len(rows)), range(len(columns)))
                if rows[k] == rows[i] and columns[m] == columns[j]
            ]
            means[:, i, j] = torch.stack(cell).mean(0)
        return means

    found = find(Unlearned(grid=grid, matching_steps=3, **NEAR), small_net, images)
    reference = unlearn(small_net, images[0], int(small_net(images[:1]).argmax()))
    expected, _ = slow_search(small_net, images[0], reference, 3, 0.12, 0.4, by_cells)
    assert found.values[0].numpy() == pytest.approx(expected.detach().numpy(), abs=1e-10)


def test_unlearned_grid_refuses_tables():
    model = torch.nn.Linear(6, 3).double().eval()
    with pytest.raises(NotApplicableError, match=r"expected images \(B, C, H, W\) for grid"):
        explain(model, torch.rand(2, 6).double(), "uni_paper", grid=3)


def test_unlearned_refuses_unlearned_origin():
    with pytest.raises(UnilensError, match="expected an origin that is not itself unlearned"):
        Unlearned(origin=["blur", Unlearned()])


@pytest.mark.parametrize("origin", ["blurred", "unlearned", ["blur", "dataset_sample"]])
def test_unlearned_refuses_unknown_origin(origin):
    with pytest.raises(UnilensError, match=r"expected origin to be one of input, auto, .*blur"):
        Unlearned(origin=origin)


@pytest.mark.parametrize(
    ("origin", "said"),
    [
        ([], r"expected at least one origin, got \[\]"),
        ([3], "expected baseline to be a function or an object"),
        (Weighted(), "expected one baseline per input, got 3"),
        ("weighted", "expected origin to be one of input, auto"),
    ],
)
def test_unlearned_refuses_other_values_as_origin(origin, said):
    with pytest.raises(UnilensError, match=said):
        Unlearned(origin=origin)


# --- the line search --------------------------------------------------------------------------

DOWN = {"projection": "ball", "line_search": True}


class Steep(torch.nn.Module):
    """A model whose loss has so sharp a bend that a step along its gradient overshoots."""

    def __init__(self, sharpness):
        super().__init__()
        torch.manual_seed(3)
        self.sharpness = sharpness
        self.head = torch.nn.Linear(6, 4).double()
        self.eval()

    def forward(self, inputs):
        return self.head((self.sharpness * inputs).sin())


def steep_rows(count=40):
    return torch.rand(count, 6, generator=torch.Generator().manual_seed(4)).double()


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("origin", ["input", "grey", "blur"])
def test_line_search_equals_replica(origin, steps, small_net, images):
    settings = {**DOWN, "origin": origin, "matching_steps": steps, "budget": 0.4}
    found = find(Unlearned(**settings), small_net, images)
    target = small_net(images).argmax(-1)
    starts = images if origin == "input" else find(baselines[origin](), small_net, images)
    for i, x in enumerate(images):
        reference = unlearn(small_net, x, int(target[i]))
        radius = 0.4 if origin == "input" else 0.4 * float((starts[i] - x).norm())
        expected, losses = line_search_by_hand(small_net, starts[i], reference, radius, steps)
        assert found.values[i].numpy() == pytest.approx(expected.numpy(), abs=1e-9)
        assert found.record["matching_loss"][i].tolist() == pytest.approx(losses, abs=1e-9)


@pytest.mark.parametrize("sharpness", [3.0, 30.0, 300.0])
def test_line_search_equals_replica_where_steps_overshoot(sharpness):
    model, rows = Steep(sharpness), steep_rows()
    found = find(Unlearned(**DOWN, matching_steps=2, budget=0.5), model, rows)
    target = model(rows).argmax(-1)
    for row, c, values, losses in zip(
        rows, target, found.values, found.record["matching_loss"], strict=True
    ):
        reference = unlearn(model, row, int(c))
        expected, expected_losses = line_search_by_hand(model, row, reference, 0.5, steps=2)
        assert values.numpy() == pytest.approx(expected.numpy(), abs=1e-9)
        assert losses.tolist() == pytest.approx(expected_losses, abs=1e-9)


@pytest.mark.parametrize("sharpness", [3.0, 30.0, 300.0])
def test_line_search_never_raises_loss_nor_leaves_budget(sharpness):
    model, rows = Steep(sharpness), steep_rows()
    found = find(Unlearned(**DOWN, matching_steps=3, budget=0.5), model, rows)
    losses = found.record["matching_loss"]
    assert losses.shape == (40, 4)
    assert bool((losses.diff(dim=1) <= 0).all())
    assert bool((losses[:, -1] < losses[:, 0]).any())
    assert float((found.values - rows).norm(dim=1).max()) <= 0.5 + 1e-12


class Kink(torch.nn.Module):
    """Logits `b + 10 |x|` and 0: the loss is least at 0, beyond which a long step leads up."""

    def __init__(self):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
        self.eval()

    def forward(self, inputs):
        first = self.bias + 10 * inputs[:, 0].abs()
        return torch.stack([first, 0 * first], dim=1)


def test_line_search_stays_where_no_length_lowers_loss():
    rows = torch.tensor([[1e-4], [-1e-3], [0.004], [-0.012], [0.04]], dtype=torch.float64)
    found = find(Unlearned(**DOWN, matching_steps=1, budget=0.5), Kink(), rows)
    losses, tries = found.record["matching_loss"], []
    for i, row in enumerate(rows):
        reference = unlearn(Kink(), row, 0)
        expected, expected_losses = line_search_by_hand(Kink(), row, reference, 0.5)
        assert found.values[i].tolist() == pytest.approx(expected.tolist(), abs=1e-12)
        assert losses[i].tolist() == pytest.approx(expected_losses, abs=1e-12)
        tries += [
            lengths
            for lengths in (1, 2, 3)
            if line_search_by_hand(Kink(), row, reference, 0.5, lengths=lengths)[1][1]
            < expected_losses[0]
        ][:1] or [None]
    assert tries == [None, None, 3, 2, 1]
    assert torch.equal(found.values[:2], rows[:2])
    assert torch.equal(losses[:2, 0], losses[:2, 1])


@pytest.mark.parametrize("sharpness", [30.0, 3000.0])
def test_line_search_of_row_does_not_depend_on_others(sharpness):
    model, rows = Steep(sharpness), steep_rows(12)
    together = find(Unlearned(**DOWN, matching_steps=3, budget=0.5), model, rows)
    for i in range(len(rows)):
        alone = find(Unlearned(**DOWN, matching_steps=3, budget=0.5), model, rows[i : i + 1])
        assert alone.values[0].tolist() == pytest.approx(together.values[i].tolist(), abs=1e-12)
        losses = together.record["matching_loss"][i].tolist()
        assert alone.record["matching_loss"][0].tolist() == pytest.approx(losses, abs=1e-12)


@pytest.mark.parametrize("sharpness", [0.3, 30.0, 3000.0])
@pytest.mark.parametrize("steps", [1, 3])
def test_line_search_takes_at_most_the_stated_passes(sharpness, steps):
    counted = []
    model, rows = Steep(sharpness), steep_rows(1)
    baseline = Unlearned(**DOWN, matching_steps=steps, budget=0.5)
    evaluator = Evaluator(model, on_pass=counted.append)
    target = model(rows).argmax(-1)
    baseline(evaluator, rows, target, generator=torch.Generator())  # the first passes are tried
    counted.clear()
    baseline(evaluator, rows, target, generator=torch.Generator())
    assert baseline.passes == (2 + 4 * steps, 1 + steps)
    fewest = baseline.passes.forward - 2 * steps
    assert fewest <= sum(counted) <= baseline.passes.forward


def test_line_search_needs_ball():
    with pytest.raises(UnilensError) as caught:
        Unlearned(line_search=True, projection="sphere")
    assert str(caught.value) == (
        "expected projection='ball' with line_search, which chooses the distance, got 'sphere'"
    )


def test_line_search_needs_ball_in_methods(small_net, images):
    for method, settings in (
        ("uni", {"line_search": True}),
        ("uni_blur", {"projection": "sphere"}),
    ):
        with pytest.raises(
            UnilensError, match=r"^expected projection='ball' with line_search, .*$"
        ):
            explain(small_net, images, method, **settings)
