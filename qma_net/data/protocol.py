"""BenCo's training and test JSONs of a protocol, from the templates and what is there.

Protocol-CAT trains on seven lists of equal weight, as BenCo 0.1.45 ships them and as they make up
the paper's four datasets: CASIAv2, FantasticReality, IMD2020 and TampCOCO's sp, cm, bcm and bcmc.
An older list in BenCo's repository has an eighth, compRAISE, and its documents speak of nine lists
of 1800: neither is ours, as the paper's Table 3 has no compRAISE and nothing names a ninth.
Protocol-MVSS trains on CASIAv2 alone and tests on BenCo's five other sets. A training on
Protocol-CAT tests on the four sets of the paper's Table 1 as it goes, and not on the two of Table
6, whose 4133 images would cost hours.
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from ..core.errors import QMANetError
from ..core.files import config_path, write_text
from .journal import is_unfinished
from .listing import ListingError, Pair, read_listings
from .published import DATASETS

SAMPLES = 1840  # images of each list in an epoch, by default of BenCo's BalancedDataset


@dataclass(frozen=True)
class Protocol:
    """Templates of a protocol's JSONs in ``benco_configs/``, and what a user must know of it.

    ``test`` has all test sets, ``while_training`` those that a training tests on as it goes.
    """

    train: str
    while_training: str
    test: str
    about: str


PROTOCOLS = {
    "cat": Protocol(
        train="protocol_cat.json",
        while_training="test_sets_train.json",
        test="test_sets.json",
        about="Protocol-CAT here: seven lists, as BenCo 0.1.45 ships them and as they make up the "
        "paper's four training sets. BenCo's repository once listed an eighth (compRAISE) and its "
        "documents say nine of 1800; the paper's Table 3 has neither.",
    ),
    "mvss": Protocol(
        train="protocol_mvss.json",
        while_training="test_sets_mvss.json",
        test="test_sets_mvss.json",
        about="Protocol-MVSS here: train on CASIAv2, test on the five others, as BenCo's scripts "
        "and its issue 123 have it; the paper trains on Protocol-CAT only. One list, so all of "
        f"CASIAv2 in every epoch: BenCo's BalancedDataset would take {SAMPLES} of it.",
    ),
}


class ProtocolError(QMANetError):
    """A folder that holds none of a protocol's datasets; one line says what was expected."""


@dataclass
class WrittenProtocol:
    """The files written, what each holds, and what is missing and what that means."""

    train: Path | None
    while_training: Path | None
    test: Path | None
    about: str
    found: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def text(self) -> str:
        """What a person reads."""
        lines = [self.about, *self.found]
        lines += [f"MISSING {line}" for line in self.missing]
        for use, file in (
            ("training: --data_path", self.train),
            ("tests while training: --test_data_path", self.while_training),
            ("evaluation: --test_data_json, qma-net evaluate --test-sets", self.test),
        ):
            lines.append(f"{use} {file}" if file else f"{use}: not written, nothing is there")
        return "\n".join(lines)


def write_protocol(
    name: str, root: str | os.PathLike, out: str | os.PathLike | None = None
) -> WrittenProtocol:
    """Writes the JSONs of protocol ``cat`` or ``mvss``, with absolute paths, of what is there.

    Args:
        name: ``"cat"`` or ``"mvss"``.
        root: folder with the prepared datasets, each under its own name.
        out: where to write, default ``root``.

    Raises:
        ProtocolError: when none of the protocol's datasets is under ``root``.
    """
    protocol = PROTOCOLS[name]
    root = Path(root).resolve()
    out = Path(out).resolve() if out is not None else root
    written = WrittenProtocol(None, None, None, protocol.about)
    rows = json.loads(config_path(protocol.train).read_text())
    train, pairs = [], []
    for kind, path in rows:
        path = path.replace("ROOT", str(root))
        meaning = "the model does not learn from it"
        if len(rows) > 1:
            share = f"{SAMPLES} of the {SAMPLES * len(rows)} images of an epoch"
            meaning = f"{share} are gone: numbers are not comparable with the paper's"
        found = _found(path, f"training, {meaning}", written)
        if found is not None:
            train.append([kind, path])
            pairs += found
    tests = {}
    for key, path in json.loads(config_path(protocol.test).read_text()).items():
        path = path.replace("ROOT", str(root))
        if _found(path, f"test, no {key} row and an average over fewer sets", written) is not None:
            tests[key] = path
    if not train and not tests:
        raise ProtocolError(
            f"got --root {root}, expected prepared datasets in it, such as {root / 'CASIAv2'}: "
            "qma-net data prepare makes them"
        )
    if train:
        written.train = out / protocol.train
        alone = [[str(pair.image), str(pair.mask)] for pair in pairs]
        write_text(written.train, json.dumps(alone if len(rows) == 1 else train, indent=1))
    written.test = _write_sets(out / protocol.test, tests)
    chosen = json.loads(config_path(protocol.while_training).read_text())
    written.while_training = _write_sets(
        out / protocol.while_training, {key: tests[key] for key in chosen if key in tests}
    )
    return written


def _write_sets(file: Path, sets: dict[str, str]) -> Path | None:
    """Writes test sets by name; returns where, ``None`` where there are none to write."""
    if not sets:
        return None
    write_text(file, json.dumps(sets, indent=1))
    return file


def _found(path: str, meaning: str, written: WrittenProtocol) -> list[Pair] | None:
    """The pairs of a dataset, noted with the paper's count; ``None`` where it is not there."""
    role = meaning.split(",")[0]
    try:
        (listing,) = read_listings(path)
    except ListingError:
        written.missing.append(f"{path}: {meaning}")
        return None
    if not listing.pairs:
        written.missing.append(f"{path} (it is there, and empty): {meaning}")
        return None
    paper = DATASETS.get(listing.name)
    count = f"{len(listing.pairs)} images"
    if paper and listing.is_folder:
        count += f" of the paper's {paper.tampered}"
    if listing.is_folder and is_unfinished(listing.path):
        written.missing.append(f"{path}: its data prepare was not finished, run it again")
    written.found.append(f"{role}: {path}, {count}")
    return list(listing.pairs)
