"""JSON files of a protocol for training and testing with BenCo.

During training with Protocol-CAT, only the four test sets of the paper's Table 1 are evaluated: the
two of Table 6 have 4133 images, which would take hours.
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from ..core.errors import QMANetError
from ..core.files import config_path, write_json
from .listing import ListingError, Pair, is_unfinished, read_listings
from .published import DATASETS

SAMPLES = 1840  # Images per list and epoch; the default of BenCo's BalancedDataset.


@dataclass(frozen=True)
class Protocol:
    """A protocol's templates in ``benco_configs/``, and how it relates to the paper and BenCo."""

    train: str
    while_training: str  # Test sets that are evaluated during training.
    test: str  # All test sets.
    about: str


PROTOCOLS = {
    "cat": Protocol(
        train="protocol_cat.json",
        while_training="test_sets_train.json",
        test="test_sets.json",
        about="Protocol-CAT: seven lists, as in BenCo 0.1.45, which make up the paper's four "
        "training sets. BenCo's repository once listed an eighth (compRAISE), and its "
        "documentation mentions nine lists of 1800 images; the paper's Table 3 has neither.",
    ),
    "mvss": Protocol(
        train="protocol_mvss.json",
        while_training="test_sets_mvss.json",
        test="test_sets_mvss.json",
        about="Protocol-MVSS: train on CASIAv2 and test on five other datasets, as in BenCo's "
        "scripts and its issue 123; the paper trains with Protocol-CAT only. With a single list, "
        f"every epoch uses all of CASIAv2; BenCo's BalancedDataset would use {SAMPLES} images.",
    ),
}


class ProtocolError(QMANetError):
    """A folder that contains none of a protocol's datasets."""


@dataclass
class WrittenProtocol:
    """The files of a protocol, as in :class:`Protocol`; None for files whose datasets are missing.

    For each dataset that was found, ``included`` has a line with the number of images. For each
    missing, empty or unfinished dataset, ``missing`` has a line with the consequences or a remedy.
    """

    about: str
    train: Path | None = None
    while_training: Path | None = None
    test: Path | None = None
    included: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Format the description for printing."""
        lines = [self.about, *self.included]
        lines += [f"MISSING {line}" for line in self.missing]
        for use, file in (
            ("training: --data_path", self.train),
            ("tests during training: --test_data_path", self.while_training),
            ("evaluation: --test_data_json, qma-net evaluate --test-sets", self.test),
        ):
            lines.append(f"{use} {file}" if file else f"{use}: not written, no dataset exists")
        return "\n".join(lines)


def write_protocol(
    name: str, root: str | os.PathLike[str], out: str | os.PathLike[str] | None = None
) -> WrittenProtocol:
    """Write the JSON files of a protocol, with absolute paths, for the datasets that exist.

    Args:
        name: ``"cat"`` or ``"mvss"``.
        root: Folder of the prepared datasets, each in a subfolder with the dataset's name.
        out: Where to write, by default ``root``.

    Raises:
        ProtocolError: If ``root`` contains none of the protocol's datasets.
    """
    protocol = PROTOCOLS[name]
    root = Path(root).resolve()
    out = root if out is None else Path(out).resolve()
    written = WrittenProtocol(protocol.about)
    templates: list[tuple[str, str]] = _read_template(protocol.train)
    train: list[list[str]] = []
    pairs: list[Pair] = []
    for kind, path in templates:
        path = path.replace("ROOT", str(root))
        consequence = "the model is not trained on it"
        if len(templates) > 1:
            share = f"{SAMPLES} of the {SAMPLES * len(templates)} images of an epoch"
            consequence = f"{share} are missing, so results are not comparable with the paper's"
        if dataset := _read_dataset(path, "training", consequence, written):
            train.append([kind, path])
            pairs += dataset
    tests = {}
    for key, path in _read_template(protocol.test).items():
        path = path.replace("ROOT", str(root))
        consequence = f"no results for {key}, and averages over fewer datasets"
        if _read_dataset(path, "test", consequence, written):
            tests[key] = path
    if not train and not tests:
        raise ProtocolError(
            f"--root '{root}' contains no prepared datasets, such as {root / 'CASIAv2'}; "
            "create them with `qma-net data prepare`"
        )
    if train:
        written.train = out / protocol.train
        rows = [[str(pair.image), str(pair.mask)] for pair in pairs]
        write_json(written.train, rows if len(templates) == 1 else train)
    selected = {key: tests[key] for key in _read_template(protocol.while_training) if key in tests}
    if tests:
        written.test = out / protocol.test
        write_json(written.test, tests)
    if selected:
        written.while_training = out / protocol.while_training
        write_json(written.while_training, selected)
    return written


def _read_template(name: str):
    return json.loads(config_path(name).read_text(encoding="utf-8"))


def _read_dataset(
    path: str, role: str, consequence: str, written: WrittenProtocol
) -> tuple[Pair, ...]:
    """Read a dataset and add a line about it to ``written``; return () if it has no pairs."""
    try:
        (listing,) = read_listings(path)
    except ListingError:
        written.missing.append(f"{path}: {role}, {consequence}")
        return ()
    if not listing.pairs:
        written.missing.append(f"{path} (exists but is empty): {role}, {consequence}")
        return ()
    count = str(len(listing.pairs))
    if listing.is_folder:
        if listing.name in DATASETS:
            count += f" of the paper's {DATASETS[listing.name].tampered}"
        if is_unfinished(listing.path):
            written.missing.append(
                f"{path}: `qma-net data prepare` did not finish; run the same command again"
            )
    written.included.append(f"{role}: {path}, {count} images")
    return listing.pairs
