"""Tables: what is known in closed form, and what scikit-learn's models themselves say."""

import numpy
import pandas
import pytest
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

import unilens
from unilens import UnilensError
from unilens.errors import NotApplicableError
from unilens.interop.tables import TableExplainer

TABLE = load_breast_cancer(as_frame=True)
ROWS = TABLE.data.iloc[:6]


@pytest.fixture(scope="module")
def classifier():
    model = make_pipeline(StandardScaler(), LogisticRegression())
    return model.fit(TABLE.data.to_numpy(), TABLE.target)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(30, 8), nn.Tanh(), nn.Linear(8, 2)).double().eval()


def test_occlusion_of_a_regression_is_its_coefficients_times_the_features():
    random = numpy.random.default_rng(0)
    rows = random.normal(size=(50, 4))
    model = LinearRegression().fit(rows, rows @ [1.0, -2.0, 0.0, 3.0] + 7)
    found = TableExplainer(model)(rows)
    numpy.testing.assert_allclose(found, rows * model.coef_, atol=1e-9)


def test_occlusion_is_how_far_predict_proba_falls(classifier):
    rows = ROWS.to_numpy()
    means = TABLE.data.to_numpy().mean(0)
    explainer = TableExplainer(
        classifier, "occlusion", 1, baseline=lambda model, x, *_, **__: x * 0 + torch.tensor(means)
    )
    found = explainer(rows)
    whole = classifier.predict_proba(rows)[:, 1]
    for feature in (0, 7, 29):
        hidden = rows.copy()
        hidden[:, feature] = means[feature]
        fall = whole - classifier.predict_proba(hidden)[:, 1]
        numpy.testing.assert_allclose(found[:, feature], fall, atol=1e-12)


def test_the_class_that_is_explained_is_the_one_predicted(classifier):
    found = TableExplainer(classifier).explain(ROWS.to_numpy())
    assert found.target.tolist() == classifier.predict(ROWS.to_numpy()).tolist()
    expected = classifier.predict_proba(ROWS.to_numpy()).max(1)
    numpy.testing.assert_allclose(found.score.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("method", ["occlusion", "rise", "sobol", "random"])
def test_methods_without_gradients_explain_functions(classifier, method):
    found = TableExplainer(classifier.predict_proba, method)(ROWS.to_numpy())
    assert found.shape == (6, 30)
    assert numpy.isfinite(found).all()
    assert numpy.abs(found).max() > 0


@pytest.mark.parametrize("method", ["uni_blur", "ig", "gradient", "smoothgrad", "agi", "gradcam"])
def test_methods_that_need_gradients_say_so_in_one_line(classifier, method):
    with pytest.raises(NotApplicableError, match=f"{method} needs gradients") as caught:
        TableExplainer(classifier, method)
    assert "\n" not in str(caught.value)


def test_a_baseline_that_needs_gradients_is_refused_as_well(classifier):
    with pytest.raises(NotApplicableError, match="occlusion needs gradients"):
        TableExplainer(classifier, "occlusion", baseline="unlearned")


def test_frames_reach_the_model_as_frames():
    model = LogisticRegression(max_iter=5000).fit(TABLE.data, TABLE.target)
    found = TableExplainer(model)(ROWS)  # an array would warn of missing names: an error here
    assert isinstance(found, numpy.ndarray)
    assert found.shape == ROWS.shape
    bare = LogisticRegression(max_iter=5000).fit(TABLE.data.to_numpy(), TABLE.target)
    numpy.testing.assert_allclose(found, TableExplainer(bare)(ROWS.to_numpy()), atol=1e-12)


def test_a_torch_model_is_explained_as_explain_does(network):
    rows = StandardScaler().fit_transform(TABLE.data)[:6]
    found = TableExplainer(network)(rows)
    expected = unilens.explain(network, torch.as_tensor(rows))
    assert numpy.array_equal(found, expected.values.numpy())
    ig = TableExplainer(network, "ig", target=1, baseline="image_mean", n_steps=8)(rows)
    other = unilens.explain(
        network, torch.as_tensor(rows), "ig", 1, baseline="image_mean", n_steps=8
    )
    assert numpy.array_equal(ig, other.values.numpy())
    fast = unilens.Evaluator(network, independent=False)
    quick = TableExplainer(fast, "ig", 1, baseline="image_mean", n_steps=8)(rows)
    numpy.testing.assert_allclose(quick, ig, rtol=1e-9, atol=1e-14)


def test_rows_come_in_the_precision_of_the_model(network):
    found = TableExplainer(network.float(), "gradient")(ROWS.to_numpy())
    assert found.dtype == numpy.float32


def test_probabilities_that_are_zero_stay_finite():
    def certain(rows):
        return numpy.stack([numpy.ones(len(rows)), numpy.zeros(len(rows))], 1)

    found = TableExplainer(certain, outputs="probability").explain(numpy.ones((2, 3)))
    assert found.score.tolist() == [1.0, 1.0]
    assert found.values.abs().max() == 0


WRONG = {
    "not probabilities": (
        lambda: TableExplainer(lambda rows: rows, outputs="probability")(numpy.ones((2, 3))),
        "each row summing to one, got values from 1 to 1; pass outputs='score'",
    ),
    "outputs": (lambda: TableExplainer(lambda rows: rows, outputs="logits"), "probability, score"),
    "no model": (lambda: TableExplainer(3), "estimator with predict_proba.*got int"),
    "words": (
        lambda: TableExplainer(lambda rows: rows)(pandas.DataFrame({"a": ["red", "blue"]})),
        "a table of numbers, got DataFrame",
    ),
    "one row": (lambda: TableExplainer(lambda rows: rows)(numpy.ones(3)), r"got shape \(3,\)"),
    "missing": (
        lambda: TableExplainer(lambda rows: rows)(numpy.array([[1.0, numpy.nan]])),
        "finite inputs, got NaN",
    ),
    "a method": (lambda: TableExplainer(lambda rows: rows, "occlude"), "did you mean occlusion"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_gets_one_clear_line(case):
    run, message = WRONG[case]
    with pytest.raises(UnilensError, match=message) as caught:
        run()
    assert "\n" not in str(caught.value)
