"""``qma-net robust``: the same evaluation as ``qma-net evaluate``, on attacked images."""

import os
from collections.abc import Sequence
from typing import Any

from .attacks import Attack, read_attacks
from .evaluate import evaluate
from .settings import EvaluationError


def robust(
    checkpoints: Sequence[str | os.PathLike[str]],
    test_sets: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    attacks: Sequence[Attack] | None = None,
    **options: Any,
) -> None:
    """Write ``<set>/clean.json``, ``<set>/<attack>-<level>.json`` and ``<set>/averages.json``.

    Attacks are applied before resizing, as in BenCo. The random generators are seeded with the
    attack, its level and the index of the image, so results do not depend on the number of
    processes. The clean result is not part of any average.

    The arguments are those of :func:`qma_net.evaluation.evaluate.evaluate`. The default attacks are
    the 18 of the paper.

    Raises:
        EvaluationError: If there is no attack; see also ``evaluate``.
    """
    attacks = read_attacks() if attacks is None else attacks
    if not attacks:
        raise EvaluationError("no attack to apply; define at least one attack with one level")
    evaluate(checkpoints, test_sets, out, attacks=attacks, **options)
