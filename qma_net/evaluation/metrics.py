"""Pixel-level and image-level metrics, and bootstrap intervals of their means.

A pixel is predicted as tampered if its mask value is strictly above 0.5, as in BenCo. TP, FP, FN
and TN are counted over the pixels of an image, without padding:

- ``f1`` is 2 TP / (2 TP + FP + FN), and ``iou`` is TP / (TP + FP + FN).
- ``permute_f1`` is the larger of the F1 of the mask and that of the inverted mask (BenCo's mode
  "double").
- ``auc`` is the area under the ROC curve, where ties count half. It is undefined (``None``, and
  omitted from means) if the ground truth has only one class.
- ``best_f1`` is the F1 at the best threshold for this image, an upper bound.
- ``average_precision`` is the mean of the precision at every threshold, weighted by the increase in
  recall.
- ``mcc`` is Matthews' correlation coefficient, (TP TN - FP FN) / sqrt((TP + FP) (TP + FN) (TN + FP)
  (TN + FN)). It is 0, the value of a random prediction, if all pixels are predicted as the same
  class, and undefined if the ground truth has only one class.
- ``tpr`` is TP / (TP + FN), the same as ``recall``, and ``fpr`` is FP / (FP + TN).
- ``fpr_at_95_recall`` is the lowest false positive rate of all thresholds with a recall of at least
  0.95.

Scores that are NaN or infinite have no metrics: every function rejects them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np

from ..core.errors import QMANetError
from ..modeling.config import DEFAULT_THRESHOLD

# Later metrics follow the original ones, so that the columns of result files keep their order.
PIXEL = (
    *("f1", "permute_f1", "iou", "auc", "precision", "recall", "best_f1"),
    *("average_precision", "mcc", "tpr", "fpr", "fpr_at_95_recall"),
)
MIN_RECALL = 0.95  # Of ``fpr_at_95_recall``.
DRAWS = 2000  # Number of bootstrap resamples.
SEED = 0  # Random seed of the bootstrap.


class MetricError(QMANetError):
    """Scores for which no metric is defined."""


def pixel_metrics(mask: np.ndarray, truth: np.ndarray) -> dict[str, float | None]:
    """Compute the metrics of one image.

    Args:
        mask: Predicted mask values, ``(H, W)``, or only those of the pixels that count, ``(N,)``.
        truth: Ground truth, bool, of the same shape, True for tampered pixels.

    Returns:
        The metrics in :data:`PIXEL`, and ``marked``, the fraction of pixels that are predicted as
        tampered. For an authentic image, all others are None; ``auc``, ``mcc`` and the false
        positive rates are None if all pixels are tampered, and ``precision`` if none are predicted
        as tampered. If there are no pixels, all are None.

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
    share = (tp + fp) / truth.size if truth.size else None
    metrics: dict[str, float | None] = {"marked": share, **dict.fromkeys(PIXEL)}
    if not truth.any():
        return metrics
    curve = RankingCurve.of(mask, truth)
    return metrics | {
        "f1": f1_of(tp, fp, fn),
        "permute_f1": max(f1_of(tp, fp, fn), f1_of(fn, tn, tp)),
        "iou": tp / (tp + fp + fn),
        "auc": curve.roc_auc(),
        "precision": tp / (tp + fp) if marked.any() else None,
        "recall": tp / (tp + fn),
        "best_f1": curve.best_f1(),
        "average_precision": curve.average_precision(),
        "mcc": mcc_of(tp, fp, fn, tn),
        "tpr": tp / (tp + fn),
        "fpr": fp / (fp + tn) if fp + tn else None,
        "fpr_at_95_recall": curve.fpr_at_recall(MIN_RECALL),
    }


def boundary_band(truth: np.ndarray, width: int) -> np.ndarray:
    """Return the pixels near the boundary of the tampered region, bool ``(H, W)``.

    A pixel belongs to the band if a pixel of the other class is at most ``width`` rows and
    ``width`` columns away, so the band is ``width`` pixels wide on both sides of the boundary. The
    edge of the image is not a boundary.
    """
    row, column = (np.ones(shape, np.uint8) for shape in ((1, 2 * width + 1), (2 * width + 1, 1)))
    pixels = truth.astype(np.uint8)
    # OpenCV treats pixels outside of the image as neutral in both operations.
    grown = cv2.dilate(cv2.dilate(pixels, row), column)
    band: np.ndarray = grown != cv2.erode(cv2.erode(pixels, row), column)
    return band


def mcc_of(tp: int, fp: int, fn: int, tn: int) -> float | None:
    """Return Matthews' correlation coefficient; see the description of this module."""
    if not (tp + fn and fp + tn):
        return None
    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return (tp * tn - fp * fn) / math.sqrt(product) if product else 0.0


def f1_of(tp: int, fp: int, fn: int) -> float:
    """Return 2 TP / (2 TP + FP + FN), or 0 if there are no true positives."""
    return 2 * tp / (2 * tp + fp + fn) if tp else 0.0


@dataclass(frozen=True)
class RankingCurve:
    """The counts at every threshold, from a single sort of the scores.

    A threshold never separates equal scores, so a constant map has an AUC of 0.5.

    Attributes:
        tp: Number of true positives at each threshold, from the highest to the lowest, float64.
        above: Number of scores at or above each threshold.
        negatives: Number of negatives in the ground truth.
    """

    tp: np.ndarray
    above: np.ndarray
    negatives: int

    @classmethod
    def of(cls, scores: np.ndarray, truth: np.ndarray) -> Self:
        """Compute the counts for non-empty scores and a bool ground truth of the same shape.

        Raises:
            MetricError: If a score is NaN or infinite.
        """
        require_finite(scores)
        scores, truth = scores.ravel(), truth.ravel()
        order = np.argsort(scores)[::-1]
        ordered = scores[order]
        last_of_ties = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)
        tp = np.cumsum(truth[order])[last_of_ties].astype(np.float64)
        return cls(tp, last_of_ties + 1.0, len(truth) - int(tp[-1]))

    @property
    def positives(self) -> float:
        """Number of positives in the ground truth."""
        return float(self.tp[-1])

    def roc_auc(self) -> float | None:
        """Compute the area under the ROC curve; None if the ground truth has only one class."""
        if not self.positives or not self.negatives:
            return None
        tpr, fpr = (np.append(0.0, rates) for rates in (self.tp / self.positives, self._fpr()))
        return float(np.sum((fpr[1:] - fpr[:-1]) * (tpr[1:] + tpr[:-1]) / 2))

    def best_f1(self) -> float:
        """Compute the highest F1 of all thresholds; 0 if there are no positives."""
        best = (2 * self.tp / (self.above + self.positives)).max() if self.positives else 0.0
        return float(best)

    def average_precision(self) -> float | None:
        """Compute the average precision; None if there are no positives."""
        if not self.positives:
            return None
        gained = np.diff(self.tp, prepend=0.0)
        return float(np.sum(gained * (self.tp / self.above)) / self.positives)

    def fpr_at_recall(self, recall: float) -> float | None:
        """Return the lowest false positive rate at which the recall is reached.

        The result is None if the ground truth has only one class.
        """
        if not self.positives or not self.negatives:
            return None
        first = np.argmax(self.tp / self.positives >= recall)
        return float(self._fpr()[first])

    def _fpr(self) -> np.ndarray:
        return (self.above - self.tp) / self.negatives


def image_metrics(scores: Sequence[float], labels: Sequence[int]) -> dict[str, float | None]:
    """Compute image-level F1, AUC, accuracy and balanced accuracy.

    An image counts as tampered if its score is above 0.5. Balanced accuracy is the mean of the
    fractions of tampered and of authentic images that are classified correctly. It and the AUC are
    None if all images have the same label; F1 is None if no image is tampered.

    Raises:
        MetricError: If a score is NaN or infinite.
    """
    score, tampered = np.asarray(scores, np.float64), np.asarray(labels, bool)
    require_finite(score)
    flagged = score > DEFAULT_THRESHOLD
    tp = int((flagged & tampered).sum())
    fp, fn = int(flagged.sum()) - tp, int(tampered.sum()) - tp
    tn = len(score) - tp - fp - fn
    is_mixed = 0 < tampered.sum() < len(tampered)
    return {
        "image_f1": f1_of(tp, fp, fn) if tampered.any() else None,
        "image_auc": RankingCurve.of(score, tampered).roc_auc(),
        "image_accuracy": float((flagged == tampered).mean()),
        "image_balanced_accuracy": (tp / (tp + fn) + tn / (tn + fp)) / 2 if is_mixed else None,
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
    """Compute the 95% percentile bootstrap interval of the mean; None if there are no values."""
    defined = np.array([value for value in values if value is not None])
    return _interval(_resampled_means(defined, SEED)) if len(defined) else None


def paired_bootstrap(first: Sequence[float | None], second: Sequence[float | None]) -> dict | None:
    """Compare two models on the same images by a bootstrap of the per-image differences.

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
    """Return the two-sided p-value for the hypothesis that the mean difference is zero.

    It is twice the fraction of resampled means on the rarer side of zero. The observed difference
    counts as a resample, so the p-value is never zero.
    """
    means = _resampled_means(np.array(differences), SEED)
    other_side = (1 + min((means <= 0).sum(), (means >= 0).sum())) / (1 + DRAWS)
    return float(min(1.0, 2 * other_side))


def _resampled_means(values: np.ndarray, seed: int) -> np.ndarray:
    """Return the means of :data:`DRAWS` resamples of ``(n,)`` values, with shape ``(DRAWS,)``."""
    require_finite(values)
    rng = np.random.default_rng(seed)
    # Drawing all resamples together would need DRAWS x n numbers.
    n, block = len(values), max(1, 10**6 // len(values))
    counts = (min(block, DRAWS - start) for start in range(0, DRAWS, block))
    return np.concatenate([values[rng.integers(n, size=(k, n))].mean(axis=1) for k in counts])


def mean_and_interval(columns: Sequence[Sequence[float]]) -> tuple[float, list[float]]:
    """Return the mean of the test sets' means, and its 95% bootstrap interval.

    ``columns`` has the per-image values of each test set; every set is resampled separately.
    """
    arrays = [np.array(values) for values in columns]
    draws = [_resampled_means(values, SEED + i) for i, values in enumerate(arrays)]
    average = float(np.mean([values.mean() for values in arrays]))
    return average, _interval(np.mean(draws, axis=0))


def _interval(means: np.ndarray) -> list[float]:
    return np.percentile(means, [50 * (1 - 0.95), 50 * (1 + 0.95)]).tolist()
