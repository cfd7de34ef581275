"""Replacement of unreadable training images, up to a limit.

BenCo's datasets read an image and its mask in ``_get_image``, and a single unreadable file would
end an epoch of hours. In training sets the next pair of the same list is used instead, and the
image is reported once. Test sets are not changed.
"""

import json
import logging
import tempfile
from pathlib import Path
from typing import Any

from .nonfinite_steps import SKIPPED_FILE, record_skipped
from .torchrun import LaunchError

logger = logging.getLogger(__name__)

EVERY_RANK = "every_rank"  # Attribute of log records that are not printed by rank 0 alone.
MAX_SHARE = 0.01  # Of a list's images that may be unreadable,
MIN_LIMIT = 10  # or this many, if that is more.
MAX_ATTEMPTS = 10  # Pairs that are tried in a row; ends the search if a disk has failed.


def member_datasets(dataset: Any) -> list[Any]:
    """Return the datasets that a BenCo training set consists of: itself, or a protocol's."""
    return getattr(dataset, "dataset_list", [dataset])


class UnreadableImages:
    """The unreadable images of a training, on this rank.

    Args:
        max_share: The share of a list's images that may be unreadable.

    Attributes:
        excess: A description of a list with too many unreadable images; empty if there is none.
    """

    def __init__(self, max_share: float = MAX_SHARE):
        self.max_share = max_share
        self.excess = ""
        self._found: dict[str, set[str]] = {}

    def protect(self, dataset: Any, folder: Path | None) -> None:
        """Replace unreadable images of a training set from now on.

        Args:
            dataset: BenCo's training set.
            folder: The output folder, for ``skipped.txt``.
        """
        self._folder = folder
        # The loader's processes append to this file, and it is read between batches.
        self._temporary = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._reports, self._position = Path(self._temporary.name) / "reports.jsonl", 0
        self._reports.touch()
        for member in member_datasets(dataset):
            if hasattr(member, "_get_image"):
                member._get_image = _ReplacingReader(member, self._reports)

    def read_reports(self) -> None:
        """Log what the loader's processes have replaced since the last call."""
        with open(self._reports, "rb") as file:
            file.seek(self._position)
            new = file.read()
        complete = new[: new.rfind(b"\n") + 1]
        self._position += len(complete)
        for report in complete.splitlines():
            listing, size, image, reason, replacement = json.loads(report)
            found = self._found.setdefault(listing, set())
            if image in found:
                continue
            found.add(image)
            limit = max(MIN_LIMIT, int(self.max_share * size))
            action = f"replaced by {replacement}" if replacement else "no replacement was found"
            line = f"{image} cannot be used ({reason}); {action}"
            record_skipped(self._folder, line)
            logger.info(
                *("%s (unreadable image %d of %s, limit %d)", line, len(found), listing, limit),
                extra={EVERY_RANK: True},
            )
            if len(found) > limit or not replacement:
                self.excess = f"{len(found)} unreadable images in {listing} (limit {limit})"

    def error(self) -> LaunchError:
        """Return the error for a list with too many unreadable images."""
        return LaunchError(
            f"got {self.excess or 'too many unreadable images on another rank'}; they are listed "
            f"in {SKIPPED_FILE}. Run `qma-net data check` to find all of them and exclude them "
            "with --skip_bad"
        )


class _ReplacingReader:
    """Replaces a dataset's ``_get_image``: reads the requested pair, or else the next one."""

    def __init__(self, dataset: Any, reports: Path):
        self.dataset, self.reports = dataset, reports

    def __call__(self, index: int) -> tuple:
        size = len(self.dataset)
        failures: list[tuple[int, Exception]] = []
        for attempt in range(min(MAX_ATTEMPTS, size)):
            candidate = (index + attempt) % size
            try:
                pair = type(self.dataset)._get_image(self.dataset, candidate)
            except MemoryError:
                raise
            except Exception as error:  # A decoder may raise anything.
                failures.append((candidate, error))
                continue
            self._report(failures, replacement=candidate)
            return pair
        self._report(failures, replacement=None)
        raise failures[0][1]

    def _report(self, failures: list[tuple[int, Exception]], replacement: int | None) -> None:
        paths = self.dataset.tp_path
        for index, error in failures:
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            listing = str(self.dataset.entry_path)
            other = None if replacement is None else paths[replacement]
            report = json.dumps([listing, len(paths), paths[index], reason, other])
            with open(self.reports, "a", encoding="utf-8") as file:
                file.write(report + "\n")
