"""Replacement of unreadable training images, up to a limit.

BenCo's datasets read an image and its mask in ``_get_image``, and a single unreadable file would
abort an epoch that takes hours. In training sets the next pair of the same list is used instead,
and the image is reported once. Test sets are not changed.
"""

import json
import logging
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from ..core.files import to_json
from .nonfinite_steps import SKIPPED_FILE, record_skipped
from .torchrun import LaunchError

logger = logging.getLogger(__name__)

EVERY_RANK = "every_rank"  # Attribute of log records that every rank prints.
MAX_SHARE = 0.01  # Share of a list's images that may be unreadable,
MIN_LIMIT = 10  # or this number, whichever is larger.
MAX_ATTEMPTS = 10  # Pairs tried in a row, so that the search ends if a disk has failed.


def member_datasets(dataset: Any) -> list[Any]:
    """Return the datasets of a BenCo training set: a protocol's members, or the set itself."""
    return getattr(dataset, "dataset_list", [dataset])


class UnreadableImages:
    """The unreadable images of a training run, on this rank."""

    def __init__(self) -> None:
        self.excess = ""  # Describes a list with too many unreadable images.
        self._by_list: dict[str, set[str]] = {}

    def protect(self, dataset: Any, folder: Path | None) -> None:
        """Replace unreadable images of a training set, and record them in the output folder."""
        self._folder = folder
        # The loader's processes append to this file, which is read between batches.
        self._temporary = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._reports, self._position = Path(self._temporary.name) / "reports.jsonl", 0
        self._reports.touch()
        for member in member_datasets(dataset):
            if hasattr(member, "_get_image"):
                member._get_image = partial(_read_or_replace, member, self._reports)

    def read_reports(self) -> None:
        """Log what the loader's processes have replaced since the last call."""
        with open(self._reports, "rb") as file:
            file.seek(self._position)
            new = file.read()
        complete = new[: new.rfind(b"\n") + 1]
        self._position += len(complete)
        for report in complete.splitlines():
            listing, size, image, reason, replacement = json.loads(report)
            unreadable = self._by_list.setdefault(listing, set())
            if image in unreadable:
                continue
            unreadable.add(image)
            count, limit = len(unreadable), max(MIN_LIMIT, int(MAX_SHARE * size))
            action = f"replaced by {replacement}" if replacement else "no replacement was found"
            line = f"{image} cannot be used ({reason}); {action}"
            record_skipped(self._folder, line)
            logger.info(
                *("%s (unreadable image %d of %s, limit %d)", line, count, listing, limit),
                extra={EVERY_RANK: True},
            )
            if count > limit or not replacement:
                self.excess = f"{listing} has {count} unreadable images (limit {limit})"

    def error(self) -> LaunchError:
        """Return the error for a list with too many unreadable images."""
        return LaunchError(
            f"{self.excess or 'another rank has too many unreadable images'}; they are listed "
            f"in {SKIPPED_FILE}. Run `qma-net data check` to find all of them and exclude them "
            "with --skip_bad"
        )


def _read_or_replace(dataset: Any, reports: Path, index: int) -> tuple:
    """Read a pair with the dataset's own ``_get_image``, or else the next readable pair."""
    size = len(dataset)
    failures: list[tuple[int, Exception]] = []
    pair, replacement = None, None
    for attempt in range(min(MAX_ATTEMPTS, size)):
        candidate = (index + attempt) % size
        try:
            pair = type(dataset)._get_image(dataset, candidate)
            replacement = dataset.tp_path[candidate]
            break
        except MemoryError:
            raise
        except Exception as error:  # A decoder may raise anything.
            failures.append((candidate, error))
    for failed, cause in failures:
        reason = f"{type(cause).__name__}: {cause}".splitlines()[0][:200]
        image = dataset.tp_path[failed]
        report = [str(dataset.entry_path), size, image, reason, replacement]
        with open(reports, "a", encoding="utf-8") as file:
            file.write(to_json(report) + "\n")
    if pair is None:
        raise failures[0][1]
    return pair
