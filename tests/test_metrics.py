"""Metrics against values derived by hand, and against scikit-learn and BenCo where it is right."""

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    confusion_matrix,
    jaccard_score,
    matthews_corrcoef,
    precision_recall_fscore_support,
    roc_auc_score,
    roc_curve,
)

from qma_net.evaluation import metrics


def square():
    """A ground truth with 20 of 100 pixels tampered."""
    truth = np.zeros((10, 10), bool)
    truth[:2] = True
    return truth


# f1, permute_f1, iou, auc, precision, recall, best_f1, marked
BY_HAND = {
    "perfect": (lambda t: t * 1.0, (1, 1, 1, 1, 1, 1, 1, 0.2)),
    # The inverted mask is perfect. The best threshold predicts every pixel as tampered: 40 / 120.
    "inverted": (lambda t: 1.0 - t, (0, 1, 0, 0, 0, 0, 1 / 3, 0.8)),
    # All 100 pixels are predicted as tampered: 2 * 20 / (40 + 80) and 20 / 100.
    "constant high": (lambda t: t * 0 + 0.7, (1 / 3, 1 / 3, 0.2, 0.5, 0.2, 1, 1 / 3, 1)),
    # Precision is undefined. The inverted mask predicts every pixel as tampered.
    "empty": (lambda t: t * 0.0, (0, 1 / 3, 0, 0.5, None, 0, 1 / 3, 0)),
    # The threshold itself does not count as tampered.
    "one half": (lambda t: t * 0 + 0.5, (0, 1 / 3, 0, 0.5, None, 0, 1 / 3, 0)),
    # The ranking is perfect, but all probabilities are below the threshold.
    "below threshold": (lambda t: 0.1 + 0.3 * t, (0, 1 / 3, 0, 1, None, 0, 1, 0)),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_pixel_metrics_equal_values_derived_by_hand(case):
    predict, values = BY_HAND[case]
    got = metrics.pixel_metrics(predict(square()), square())
    names = ("f1", "permute_f1", "iou", "auc", "precision", "recall", "best_f1", "marked")
    for name, value in zip(names, values, strict=True):
        assert got[name] == (value if value is None else pytest.approx(value, abs=1e-12)), name


def test_metrics_are_undefined_if_ground_truth_has_one_class():
    empty = metrics.pixel_metrics(np.full((4, 4), 0.7), np.zeros((4, 4), bool))
    assert empty == {"marked": 1.0, **dict.fromkeys(metrics.PIXEL)}
    full = metrics.pixel_metrics(np.full((4, 4), 0.7), np.ones((4, 4), bool))
    assert full["auc"] is full["mcc"] is full["fpr"] is full["fpr_at_95_recall"] is None
    assert full["average_precision"] == 1
    assert full["f1"] == full["recall"] == 1


# average_precision, mcc, tpr, fpr, fpr_at_95_recall, for 20 tampered and 80 other pixels.
FURTHER_BY_HAND = {
    "perfect": (1, 1, 1, 0, 0),
    # TP and TN are 0, so MCC is -80 * 20 / sqrt(80 * 20 * 80 * 20). The precision is 20 / 100 as
    # soon as any pixel is recalled.
    "inverted": (0.2, -1, 0, 1, 1),
    "constant high": (0.2, 0, 1, 1, 1),
    "empty": (0.2, 0, 0, 0, 1),
    "one half": (0.2, 0, 0, 0, 1),
    "below threshold": (1, 0, 0, 0, 0),
}


@pytest.mark.parametrize("case", FURTHER_BY_HAND)
def test_further_pixel_metrics_equal_values_derived_by_hand(case):
    got = metrics.pixel_metrics(BY_HAND[case][0](square()), square())
    names = ("average_precision", "mcc", "tpr", "fpr", "fpr_at_95_recall")
    for name, value in zip(names, FURTHER_BY_HAND[case], strict=True):
        assert got[name] == pytest.approx(value, abs=1e-12), name


def test_false_positive_rate_at_recall_uses_the_highest_sufficient_threshold():
    # 19 of 20 tampered pixels are above 1 of 80 others; the last one is below all of them.
    truth, mask = square(), np.zeros((10, 10))
    mask[:2] = 0.9
    mask[0, 0], mask[5, 5] = -1, 0.95
    assert metrics.pixel_metrics(mask, truth)["fpr_at_95_recall"] == pytest.approx(1 / 80)
    mask[0, 1] = -1  # A recall of 18 / 20 does not suffice.
    assert metrics.pixel_metrics(mask, truth)["fpr_at_95_recall"] == 1


@pytest.mark.parametrize("levels", [2, 3, 50, 10**6])
def test_further_metrics_equal_those_of_scikit_learn(levels):
    rng = np.random.default_rng(levels)
    truth = rng.random((40, 30)) < 0.3
    mask = np.round(np.clip(0.4 * truth + 0.7 * rng.random((40, 30)), 0, 1) * levels) / levels
    got = metrics.pixel_metrics(mask, truth)
    y, scores = truth.ravel(), mask.ravel()
    fpr, tpr, _ = roc_curve(y, scores, drop_intermediate=False)
    tn, fp, fn, tp = confusion_matrix(y, scores > 0.5).ravel()
    expected = {
        "average_precision": average_precision_score(y, scores),
        "mcc": matthews_corrcoef(y, scores > 0.5),
        "tpr": tp / (tp + fn),
        "fpr": fp / (fp + tn),
        "fpr_at_95_recall": fpr[np.argmax(tpr >= 0.95)],
    }
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, abs=1e-12), name
    image = metrics.image_metrics(scores, y)["image_balanced_accuracy"]
    assert image == pytest.approx(balanced_accuracy_score(y, scores > 0.5), abs=1e-12)


def test_band_has_the_given_width_on_both_sides_of_the_boundary():
    rows = metrics.boundary_band(square(), 1).any(axis=1)
    assert rows.nonzero()[0].tolist() == [1, 2]  # Rows 0 and 1 are tampered.
    assert metrics.boundary_band(square(), 2).all(axis=1).nonzero()[0].tolist() == [0, 1, 2, 3]
    one_pixel = np.zeros((9, 9), bool)
    one_pixel[4, 4] = True
    assert metrics.boundary_band(one_pixel, 2).sum() == 25
    # The edge of the image is not a boundary.
    assert not metrics.boundary_band(np.ones((9, 9), bool), 3).any()
    assert not metrics.boundary_band(np.zeros((9, 9), bool), 3).any()


def test_pixels_of_the_band_do_not_count():
    """Only the pixels next to the boundary are wrong: rows 1 and 2 of a region of rows 0 and 1."""
    mask = np.zeros((10, 10))
    mask[[0, 2]] = 1
    assert metrics.pixel_metrics(mask, square())["f1"] == 0.5  # TP, FP and FN are 10 each.
    counted = ~metrics.boundary_band(square(), 1)
    got = metrics.pixel_metrics(mask[counted], square()[counted])
    assert (got["f1"], got["auc"], got["mcc"], got["marked"]) == (1, 1, 1, 10 / 80)
    nothing = metrics.pixel_metrics(np.empty(0), np.empty(0, bool))
    assert set(nothing.values()) == {None}


@pytest.mark.parametrize("levels", [3, 50, 10**6])
def test_pixel_metrics_agree_with_scikit_learn(levels):
    """With few levels there are many ties."""
    rng = np.random.default_rng(levels)
    truth = rng.random((40, 30)) < 0.2
    mask = np.round(np.clip(0.3 * truth + 0.8 * rng.random((40, 30)), 0, 1) * levels) / levels
    got = metrics.pixel_metrics(mask.astype(np.float32), truth)
    y, scores = truth.ravel(), mask.astype(np.float32).ravel()
    precision, recall, f1, _ = precision_recall_fscore_support(y, scores > 0.5, average="binary")
    best = max(
        precision_recall_fscore_support(y, scores >= t, average="binary")[2]
        for t in np.unique(scores)[:: max(1, len(np.unique(scores)) // 200)]
    )
    assert got["auc"] == pytest.approx(roc_auc_score(y, scores), abs=1e-12)
    assert got["iou"] == pytest.approx(jaccard_score(y, scores > 0.5), abs=1e-12)
    assert (got["precision"], got["recall"], got["f1"]) == pytest.approx((precision, recall, f1))
    assert got["best_f1"] >= best - 1e-12
    assert levels > 50 or got["best_f1"] == pytest.approx(best)


def benco(evaluator, mask, truth, padding=None, **options):
    from IMDLBenCo import evaluation

    arrays = (mask, truth) if padding is None else (mask, truth, padding)
    tensors = [torch.from_numpy(a.astype(np.float64))[None, None] for a in arrays]
    got = getattr(evaluation, evaluator)(threshold=0.5, **options).batch_update(*tensors)
    return float(torch.as_tensor(got).sum())


def test_pixel_metrics_agree_with_benco_on_tampered_images():
    rng = np.random.default_rng(0)
    truth, mask = rng.random((30, 40)) < 0.2, rng.random((30, 40))
    got = metrics.pixel_metrics(mask, truth)
    assert got["f1"] == pytest.approx(benco("PixelF1", mask, truth), abs=1e-6)
    assert got["permute_f1"] == pytest.approx(
        benco("PixelF1", mask, truth, mode="double"), abs=1e-6
    )
    assert got["iou"] == pytest.approx(benco("PixelIOU", mask, truth), abs=1e-6)
    assert got["auc"] == pytest.approx(benco("PixelAUC", mask, truth), abs=1e-6)


def test_benco_differs_for_ties_and_authentic_images():
    """Two of its modes also have the same name, so that their results overwrite each other."""
    from IMDLBenCo.evaluation import PixelF1

    truth = square()
    constant = np.full((10, 10), 0.7)
    assert abs(benco("PixelAUC", constant, truth) - 0.5) > 0.1  # It depends on the sort order.
    assert metrics.pixel_metrics(constant, truth)["auc"] == 0.5
    nothing = np.zeros((10, 10))
    assert benco("PixelF1", nothing, nothing) == 0  # For a perfect prediction.
    assert metrics.pixel_metrics(nothing, nothing > 0)["f1"] is None
    assert PixelF1(mode="origin").name == PixelF1(mode="double").name


def test_image_metrics_equal_values_derived_by_hand():
    # TP, FN, FP and TN are 1 each. Correctly ranked pairs: 0.9 > 0.8, 0.9 > 0.1 and 0.3 > 0.1.
    got = metrics.image_metrics([0.9, 0.3, 0.8, 0.1], [1, 1, 0, 0])
    assert got == {
        "image_f1": 0.5,
        "image_auc": 0.75,
        "image_accuracy": 0.5,
        "image_balanced_accuracy": 0.5,
    }
    # One of one tampered image and one of three authentic images are right.
    unequal = metrics.image_metrics([0.9, 0.8, 0.8, 0.1], [1, 0, 0, 0])
    assert unequal["image_balanced_accuracy"] == pytest.approx((1 + 1 / 3) / 2)
    assert metrics.image_metrics([0.9, 0.5], [1, 1]) == {
        "image_f1": pytest.approx(2 / 3),
        "image_auc": None,
        "image_accuracy": 0.5,
        "image_balanced_accuracy": None,
    }
    assert metrics.image_metrics([0.9], [0])["image_f1"] is None


def test_bootstrap_interval_has_the_width_of_the_standard_error():
    assert metrics.mean([1.0, None, 0.0]) == 0.5
    assert metrics.mean([None]) is None
    assert metrics.bootstrap_interval([None]) is None
    assert metrics.bootstrap_interval([0.25] * 9) == [0.25, 0.25]
    values = list(np.random.default_rng(1).normal(0.6, 0.1, 400))
    low, high = metrics.bootstrap_interval(values)
    # A 95 % interval is 3.92 standard errors wide.
    assert high - low == pytest.approx(3.92 * np.std(values) / 20, rel=0.1)
    assert low < np.mean(values) < high
    assert metrics.bootstrap_interval(values) == [low, high]


def test_paired_bootstrap_detects_small_consistent_differences():
    rng = np.random.default_rng(2)
    hard = list(rng.random(100))
    better = [value + 0.02 + 0.01 * noise for value, noise in zip(hard, rng.normal(size=100))]  # noqa: B905
    got = metrics.paired_bootstrap(hard, better)
    assert got["difference"] == pytest.approx(0.02, abs=0.004)
    assert got["interval"][0] > 0
    assert got["p_value"] == pytest.approx(2 / (1 + metrics.DRAWS))  # The smallest possible value.
    same = metrics.paired_bootstrap(hard, hard)
    assert (same["difference"], same["p_value"]) == (0, 1)
    assert metrics.paired_bootstrap([None, 1.0], [0.5, 0.5])["n"] == 1
    assert metrics.paired_bootstrap([None], [1.0]) is None


def test_benco_counts_padding_in_the_last_batch_only():
    """The image has 8x8 of 12x12 pixels; the padding is predicted as tampered."""
    from IMDLBenCo.evaluation import PixelAccuracy

    rng = np.random.default_rng(3)
    truth, mask = np.zeros((12, 12), bool), np.ones((12, 12))
    truth[2:5, 1:7], mask[:8, :8] = True, rng.random((8, 8))
    shape_mask = np.zeros((12, 12))
    shape_mask[:8, :8] = 1
    tensors = [torch.from_numpy(a.astype(float))[None, None] for a in (mask, truth, shape_mask)]
    ours = metrics.pixel_metrics(mask[:8, :8], truth[:8, :8])
    for name, evaluator in (("f1", "PixelF1"), ("iou", "PixelIOU"), ("auc", "PixelAUC")):
        assert ours[name] == pytest.approx(
            benco(evaluator, mask, truth, padding=shape_mask), abs=1e-6
        )
    accuracy = PixelAccuracy(threshold=0.5)
    whole_batch, tail = accuracy.batch_update(*tensors), accuracy.remain_update(*tensors)
    right = ((mask > 0.5) == truth)[:8, :8].mean()
    assert float(whole_batch) == pytest.approx(right)
    assert abs(float(tail) - right) > 0.1  # The last batch of a test set.


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_have_no_metrics(value):
    """Sorting places NaN above all numbers, so the AUC of a mask of NaN was 0.668 for one image."""
    mask, truth = np.full((4, 4), 0.2, np.float32), np.eye(4, dtype=bool)
    mask[1, 2] = value
    for compute in (
        lambda: metrics.pixel_metrics(mask, truth),
        lambda: metrics.pixel_metrics(mask, np.zeros((4, 4), bool)),
        lambda: metrics.image_metrics([0.1, value], [0, 1]),
        lambda: metrics.mean([0.1, None, value]),
        lambda: metrics.bootstrap_interval([0.1, value]),
        lambda: metrics.paired_bootstrap([0.1, 0.2], [0.3, value]),
    ):
        with pytest.raises(metrics.MetricError, match="NaN or infinite"):
            compute()
