"""An unreadable image of a training set is replaced by another of its list, up to a limit.

BenCo's datasets read an image and its mask in ``_get_image``; one that cannot be read ends an epoch
of hours. In the datasets that are trained on, the next pair of the same list takes its place, it is
named, and it counts once. Datasets that are tested on are left alone.
"""

import json
import os
import tempfile
from pathlib import Path

from .finite import write_skipped
from .process import LaunchError, say_anywhere
from .startup import lists_of

SHARE = 0.01  # of a list's images may be unreadable
AT_LEAST = 10  # images of a list may be
ATTEMPTS = 10  # pairs that are tried in a row: a disk that is gone would make a long loop


class Unreadable:
    """Unreadable images of one training, on this rank.

    Args:
        share: of a list's images that may be unreadable.
    """

    def __init__(self, share: float = SHARE):
        self.share = share
        self.too_many = ""  # what is said of a list that has too many
        self._found: dict[str, set[str]] = {}

    def protect(self, dataset, folder: Path | None) -> None:
        """Puts replacement into a training set of BenCo's and into those that it is made of."""
        self._folder = folder
        # The loader's processes write to this file; it is read between batches.
        self._reports, self._read = tempfile.NamedTemporaryFile(), 0  # noqa: SIM115
        for one in lists_of(dataset):
            if hasattr(one, "_get_image"):
                one._get_image = _Replacing(one, self._reports.name)

    def read_reports(self) -> None:
        """Says what the loaders have replaced since the last call."""
        written = os.pread(self._reports.fileno(), 2**20, self._read)
        whole = written[: written.rfind(b"\n") + 1]
        self._read += len(whole)
        for report in whole.splitlines():
            listing, size, image, reason, replacement = json.loads(report)
            found = self._found.setdefault(listing, set())
            if image in found:
                continue
            found.add(image)
            limit = max(AT_LEAST, int(self.share * size))
            line = f"{image} cannot be used ({reason}), {replacement or 'nothing'} takes its place"
            write_skipped(self._folder, line)
            say_anywhere(f"{line} (image {len(found)} of {listing}, at most {limit})")
            if len(found) > limit or not replacement:
                self.too_many = f"{len(found)} unusable images in {listing} (at most {limit})"

    def error(self) -> LaunchError:
        """One line for a list with too many."""
        return LaunchError(
            f"got {self.too_many or 'too many unusable images in a training list'}, expected whole "
            f"ones: they are named in skipped.txt; qma-net data check names "
            "all, --skip_bad leaves them out"
        )


class _Replacing:
    """``_get_image`` of a dataset of BenCo's, or of the pair after the one that was asked for."""

    def __init__(self, dataset, reports: str):
        self.dataset, self.reports = dataset, reports

    def __call__(self, index: int) -> tuple:
        size = len(self.dataset)
        broken = []
        for attempt in range(min(ATTEMPTS, size)):
            number = (index + attempt) % size
            try:
                found = type(self.dataset)._get_image(self.dataset, number)
            except MemoryError:
                raise
            except Exception as error:  # whatever a decoder throws
                broken.append((number, error))
                continue
            self._report(broken, replacement=number)
            return found
        self._report(broken, replacement=None)
        raise broken[0][1]

    def _report(self, broken: list, replacement: int | None) -> None:
        paths = self.dataset.tp_path
        for number, error in broken:
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            listing = str(self.dataset.entry_path)
            other = None if replacement is None else paths[replacement]
            report = json.dumps([listing, len(paths), paths[number], reason, other])
            with open(self.reports, "a") as file:
                file.write(report + "\n")
