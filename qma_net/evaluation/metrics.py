"""Pixel-level and image-level metrics, and bootstrap intervals of their means.

A pixel is predicted as tampered if its probability is strictly above 0.5, as in BenCo. TP, FP, FN
and TN are counted over the pixels of an image, without padding:

- ``f1`` is 2 TP / (2 TP + FP + FN), and ``iou`` is TP / (TP + FP + FN).
- ``permute_f1`` is the larger of the F1 of the mask and that of the inverted mask (BenCo's mode
  "double").
- ``auc`` is the area under the ROC curve, where ties count half. It is undefined (``None``, and
  omitted from means) if the ground truth has only one class.
- ``best_f1`` is the F1 at the best threshold for this image, an upper bound.

Scores that are NaN or infinite have no metrics: every function rejects them.
"""

import math
from collections.abc import Sequence

import numpy as np

from ..core.errors import QMANetError
from ..modeling.config import DEFAULT_THRESHOLD

PIXEL = ("f1", "permute_f1", "iou", "auc", "precision", "recall", "best_f1")
DRAWS = 2000  # Number of bootstrap resamples.
SEED = 0  # Random seed of the bootstrap.


class MetricError(QMANetError):
    """Scores for which no metric is defined."""


def pixel_metrics(mask: np.ndarray, truth: np.ndarray) -> dict[str, float | None]:
    """Compute the metrics of one image.

    Args:
        mask: Predicted probabilities, ``(H, W)``.
        truth: Ground truth, bool ``(H, W)``, True for tampered pixels.

    Returns:
        The metrics in :data:`PIXEL`, and ``marked``, the share of pixels that are predicted as
        tampered. For an authentic image, all others are None; ``auc`` is None if all pixels are
        tampered, and ``precision`` if none are predicted as tampered.

    Raises:
        MetricError: If the mask contains NaN or infinity.
        ValueError: If the shapes differ.
    """
    if mask.shape != truth.shape:
        raise ValueError(f"the mask has shape {mask.shape}, the ground truth {truth.shape}")
    require_finite(mask)
    marked = mask > DEFAULT_THRESHOLD
    tp = int((marked & truth).sum())
    fp, fn = int(marked.sum()) - tp, int(truth.sum()) - tp
    tn = truth.size - tp - fp - fn
    metrics: dict[str, float | None] = {"marked": (tp + fp) / truth.size, **dict.fromkeys(PIXEL)}
    if not truth.any():
        return metrics
    auc, best = roc_auc_and_best_f1(mask, truth)
    return metrics | {
        "f1": f1_of(tp, fp, fn),
        "permute_f1": max(f1_of(tp, fp, fn), f1_of(fn, tn, tp)),
        "iou": tp / (tp + fp + fn),
        "auc": auc,
        "precision": tp / (tp + fp) if marked.any() else None,
        "recall": tp / (tp + fn),
        "best_f1": best,
    }


def f1_of(tp: int, fp: int, fn: int) -> float:
    """Return 2 TP / (2 TP + FP + FN), or 0 without true positives."""
    return 2 * tp / (2 * tp + fp + fn) if tp else 0.0


def roc_auc_and_best_f1(scores: np.ndarray, truth: np.ndarray) -> tuple[float | None, float]:
    """Compute the area under the ROC curve and the best F1 over all thresholds, with one sort.

    A threshold never separates equal scores, so a constant map has an area of 0.5. The area is
    None if ``truth`` has only one class.

    Raises:
        MetricError: If a score is NaN or infinite.
    """
    require_finite(scores)
    scores, truth = scores.ravel(), truth.ravel()
    order = np.argsort(scores)[::-1]
    ordered = scores[order]
    last_of_ties = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)
    tp = np.cumsum(truth[order])[last_of_ties].astype(np.float64)
    above = last_of_ties + 1.0
    positives = tp[-1]
    negatives = len(truth) - positives
    best = float((2 * tp / (above + positives)).max()) if positives else 0.0
    if not positives or not negatives:
        return None, best
    tpr, fpr = (np.append(0.0, counts) for counts in (tp / positives, (above - tp) / negatives))
    return float(np.sum((fpr[1:] - fpr[:-1]) * (tpr[1:] + tpr[:-1]) / 2)), best


def image_metrics(scores: Sequence[float], labels: Sequence[int]) -> dict[str, float | None]:
    """Compute image-level F1, AUC and accuracy.

    An image counts as tampered if its score is above 0.5. The AUC is None if all images have the
    same label; F1 is None without tampered images.

    Raises:
        MetricError: If a score is NaN or infinite.
    """
    score, tampered = np.asarray(scores, np.float64), np.asarray(labels, bool)
    require_finite(score)
    flagged = score > DEFAULT_THRESHOLD
    tp = int((flagged & tampered).sum())
    fp, fn = int(flagged.sum()) - tp, int(tampered.sum()) - tp
    return {
        "image_f1": f1_of(tp, fp, fn) if tampered.any() else None,
        "image_auc": roc_auc_and_best_f1(score, tampered)[0],
        "image_accuracy": float((flagged == tampered).mean()),
    }


def require_finite(scores: np.ndarray) -> None:
    """Raise a :class:`MetricError` if a score is NaN or infinite."""
    count = int(np.count_nonzero(~np.isfinite(scores)))
    if count:
        raise MetricError(
            f"got {count} of {scores.size} scores that are NaN or infinite, expected numbers: "
            "the model or the result file is damaged"
        )


def mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are not None, or None if there are none.

    Raises:
        MetricError: If a value is NaN or infinite.
    """
    defined = [value for value in values if value is not None]
    require_finite(np.array(defined, np.float64))
    return math.fsum(defined) / len(defined) if defined else None


def bootstrap_interval(values: Sequence[float | None]) -> list[float] | None:
    """Compute the 95% percentile bootstrap interval of the mean; None without values."""
    defined = np.array([value for value in values if value is not None])
    return _interval(_resampled_means(defined, SEED)) if len(defined) else None


def paired_bootstrap(first: Sequence[float | None], second: Sequence[float | None]) -> dict | None:
    """Compare two models on the same images by a bootstrap of the differences per image.

    Returns:
        ``difference`` of the means (second - first), its 95% ``interval``, its ``p_value`` (see
        :func:`bootstrap_p_value`), and ``n``, the number of images for which both values are
        defined; None if there are none.
    """
    pairs = zip(first, second, strict=True)
    differences = [b - a for a, b in pairs if a is not None and b is not None]
    if not differences:
        return None
    difference, interval = mean_and_interval([differences])
    return {
        "difference": difference,
        "interval": interval,
        "p_value": bootstrap_p_value(differences),
        "n": len(differences),
    }


def bootstrap_p_value(differences: Sequence[float]) -> float:
    """Return the two-sided p-value of a mean difference of zero.

    It is twice the share of resamples on the other side of zero. The observed difference counts as
    a resample, so the p-value is never zero.
    """
    means = _resampled_means(np.array(differences), SEED)
    other_side = (1 + min((means <= 0).sum(), (means >= 0).sum())) / (1 + DRAWS)
    return float(min(1.0, 2 * other_side))


def _resampled_means(values: np.ndarray, seed: int) -> np.ndarray:
    """Return the means of :data:`DRAWS` resamples of ``(n,)`` values, ``(DRAWS,)``."""
    require_finite(values)
    rng = np.random.default_rng(seed)
    # Drawing all resamples together would need DRAWS x n numbers.
    n, block = len(values), max(1, 10**6 // len(values))
    counts = (min(block, DRAWS - start) for start in range(0, DRAWS, block))
    return np.concatenate([values[rng.integers(n, size=(k, n))].mean(axis=1) for k in counts])


def mean_and_interval(columns: Sequence[Sequence[float]]) -> tuple[float, list[float]]:
    """Return the mean of the test sets' means, and its 95% bootstrap interval.

    Each of ``columns``, the values of a test set's images, is resampled on its own.
    """
    arrays = [np.array(values) for values in columns]
    draws = [_resampled_means(values, SEED + i) for i, values in enumerate(arrays)]
    average = float(np.mean([values.mean() for values in arrays]))
    return average, _interval(np.mean(draws, axis=0))


def _interval(means: np.ndarray) -> list[float]:
    return np.percentile(means, [50 * (1 - 0.95), 50 * (1 + 0.95)]).tolist()
