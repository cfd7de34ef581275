"""What a mask is worth: exact metrics per image, and their means with intervals.

A pixel is marked where its probability is strictly above 0.5, as BenCo does. With TP, FP, FN, TN
counted over the photograph's pixels (padding excluded):

- ``f1`` is 2 TP / (2 TP + FP + FN), ``iou`` is TP / (TP + FP + FN);
- ``permute_f1`` is the larger of F1 and the inverted mask's F1 (BenCo's mode "double");
- ``auc`` is the area under the ROC curve, ties counted half; undefined where the truth has one
  class (then ``None``, and left out of means);
- ``best_f1`` is the F1 at the threshold that is best for this very image: an upper bound.
"""

import math
from collections.abc import Sequence

import numpy as np

from ..modeling.config import DEFAULT_THRESHOLD

PIXEL = ("f1", "permute_f1", "iou", "auc", "precision", "recall", "best_f1")
DRAWS = 2000  # of a bootstrap
SEED = 0  # of a bootstrap


def pixel_metrics(mask: np.ndarray, truth: np.ndarray) -> dict[str, float | None]:
    """The metrics of one manipulated photograph.

    Args:
        mask: probabilities ``(H, W)``.
        truth: bool ``(H, W)``, True on manipulated pixels.

    Returns:
        The metrics named in :data:`PIXEL`, and ``marked``, the share of marked pixels. All but
        ``marked`` are None where ``truth`` is empty, ``auc`` where it is full, ``precision``
        where nothing is marked.

    Raises:
        ValueError: when the shapes differ.
    """
    if mask.shape != truth.shape:
        raise ValueError(f"got a mask {mask.shape} for a truth {truth.shape}, expected one shape")
    marked = mask > DEFAULT_THRESHOLD
    tp = int((marked & truth).sum())
    fp, fn = int(marked.sum()) - tp, int(truth.sum()) - tp
    tn = truth.size - tp - fp - fn
    found = {"marked": (tp + fp) / truth.size}
    if not truth.any():
        return found | dict.fromkeys(PIXEL)
    auc, best = roc_auc_and_best_f1(mask, truth)
    return found | {
        "f1": f1_of(tp, fp, fn),
        "permute_f1": max(f1_of(tp, fp, fn), f1_of(fn, tn, tp)),
        "iou": tp / (tp + fp + fn),
        "auc": auc,
        "precision": tp / (tp + fp) if marked.any() else None,
        "recall": tp / (tp + fn),
        "best_f1": best,
    }


def f1_of(tp: int, fp: int, fn: int) -> float:
    """2 TP / (2 TP + FP + FN), and 0 where nothing is there to find."""
    return 2 * tp / (2 * tp + fp + fn) if tp else 0.0


def roc_auc_and_best_f1(scores: np.ndarray, truth: np.ndarray) -> tuple[float | None, float]:
    """Area under the ROC curve and the best F1 over all thresholds, from one sort.

    Equal scores fall under a threshold together, so a constant map has an area of 0.5. The area
    is None where ``truth`` has one class.
    """
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
    """Image-level F1, accuracy (score above 0.5) and AUC; AUC is None with one class of image."""
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels, bool)
    called = scores > DEFAULT_THRESHOLD
    tp, fp, fn = (called & labels).sum(), (called & ~labels).sum(), (~called & labels).sum()
    return {
        "image_f1": f1_of(int(tp), int(fp), int(fn)) if labels.any() else None,
        "image_auc": roc_auc_and_best_f1(scores, labels)[0],
        "image_accuracy": float((called == labels).mean()),
    }


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of what is defined; None where nothing is."""
    defined = [value for value in values if value is not None]
    return math.fsum(defined) / len(defined) if defined else None


def bootstrap_interval(
    values: Sequence[float | None], seed: int = SEED, share: float = 0.95
) -> list[float] | None:
    """The percentile interval of the mean over images drawn anew; None without values."""
    defined = np.array([value for value in values if value is not None])
    if not len(defined):
        return None
    edges = np.percentile(resampled_means(defined, seed), [50 * (1 - share), 50 * (1 + share)])
    return [float(edge) for edge in edges]


def paired_bootstrap(
    first: Sequence[float | None], second: Sequence[float | None], seed: int = SEED
) -> dict | None:
    """Is the second better on the same images? Differences drawn anew, image by image.

    Returns:
        ``difference`` of the means (second - first), its 95 % ``interval``, the two-sided
        ``p_value`` (share of draws on the other side of zero, doubled, the observed one counted
        as a draw: never zero), and ``n`` images where both are defined; None without any.
    """
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if None not in (a, b)]
    if not pairs:
        return None
    differences = np.array([b - a for a, b in pairs])
    means = resampled_means(differences, seed)
    other_side = (1 + min((means <= 0).sum(), (means >= 0).sum())) / (1 + DRAWS)
    return {
        "difference": float(differences.mean()),
        "interval": [float(edge) for edge in np.percentile(means, [2.5, 97.5])],
        "p_value": float(min(1.0, 2 * other_side)),
        "n": len(pairs),
    }


def resampled_means(values: np.ndarray, seed: int) -> np.ndarray:
    """Means of :data:`DRAWS` resamples of ``(n,)``; a few at a time, so that memory stays small."""
    rng = np.random.default_rng(seed)
    n, at_once = len(values), max(1, 10**6 // len(values))
    blocks = (min(at_once, DRAWS - start) for start in range(0, DRAWS, at_once))
    return np.concatenate([values[rng.integers(n, size=(k, n))].mean(axis=1) for k in blocks])


def mean_and_interval(columns: list[list[float]]) -> tuple[float, list[float]]:
    """The mean of the columns' means, and its 95 % interval: images drawn anew in each column.

    Args:
        columns: values of the images of one test set each; none empty.
    """
    if len(columns) == 1:
        return float(np.mean(columns[0])), bootstrap_interval(columns[0])
    draws = [resampled_means(np.array(values), SEED + i) for i, values in enumerate(columns)]
    edges = np.percentile(np.mean(draws, axis=0), [2.5, 97.5])
    return float(np.mean([np.mean(values) for values in columns])), [float(e) for e in edges]
