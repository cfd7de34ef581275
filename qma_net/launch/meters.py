"""BenCo's ``MetricLogger`` while it trains and tests: what is done between two batches.

BenCo's loops walk through their batches with ``MetricLogger.log_every``; what comes after a
batch's step comes before the next one is taken from it.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from contextlib import contextmanager


@contextmanager
def between_batches(before: Callable | None, after: Callable, *, finite_only: bool):
    """Calls ``before(batch)`` and ``after(number)`` around every batch that BenCo walks through.

    Args:
        before: called with the batch that comes next, where given.
        after: called with the number of batches that are done; what it raises ends the loop.
        finite_only: averages leave out what is not finite, as its step is left out.
    """
    import IMDLBenCo.training_scripts.utils.misc as misc

    logger = misc.MetricLogger

    class Logger(logger):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            if finite_only:
                self.meters = defaultdict(_finite_meter(misc.SmoothedValue))

        def log_every(self, *args, **kwargs):
            for number, batch in enumerate(super().log_every(*args, **kwargs), 1):
                if before:
                    before(batch)
                yield batch
                after(number)

    misc.MetricLogger = Logger
    try:
        yield
    finally:
        misc.MetricLogger = logger


def _finite_meter(smoothed_value: type) -> type:
    """BenCo's running average, of finite values; the window that is printed shows all."""

    class FiniteMeter(smoothed_value):
        def update(self, value, n=1):
            if math.isfinite(value):
                super().update(value, n)
            else:
                self.deque.append(value)

        @property
        def global_avg(self):
            return self.total / self.count if self.count else math.nan

    return FiniteMeter
