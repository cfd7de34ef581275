"""``data prepare`` on archives with their published file names and small images.

``archive_names.yaml`` contains samples of the names. The complete lists are in the shared data.
"""

import csv
import gzip
import io
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import yaml

from qma_net.data.check import Report
from qma_net.data.plan import plan_jobs
from qma_net.data.prepare import prepare
from qma_net.data.published import ALL_DATASETS, DATASETS
from sample_archives import save_image

NAMES = yaml.safe_load(Path(__file__).with_name("archive_names.yaml").read_text(encoding="utf-8"))


@dataclass
class Archive:
    """The files of an archive: pairs of image and mask, other images, and texts by path."""

    dataset: str
    pairs: list[tuple[str, str]]
    others: list[str] = field(default_factory=list)  # Authentic images or images without a mask.
    texts: dict[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write small images; files of the same kind are hard links to one."""
        originals: dict[tuple[str, bool], Path] = {}
        folders: set[Path] = set()
        masks = {mask for _, mask in self.pairs}
        rule = ALL_DATASETS[self.dataset].mask_rule
        for name in {*masks, *(image for image, _ in self.pairs), *self.others}:
            path = folder / name
            if path.parent not in folders:
                path.parent.mkdir(parents=True, exist_ok=True)
                folders.add(path.parent)
            kind = (path.suffix, name in masks)
            if kind in originals:
                os.link(originals[kind], path)
            else:
                write_small_file(path, rule=rule if name in masks else "")
                originals[kind] = path
        for name, text in self.texts.items():
            (folder / name).write_text(text, encoding="utf-8")

    def planned(self, folder: Path) -> tuple[dict[str, str], int]:
        """Return the mask of each tampered image, and the number of authentic images."""
        dataset = ALL_DATASETS[self.dataset]
        jobs = plan_jobs(dataset, folder, authentic=True, jpeg_quality=100).jobs
        pairs = {job.image: job.mask for job in jobs if job.mask is not None}
        return pairs, len(jobs) - len(pairs)


def write_small_file(path: Path, *, rule: str) -> None:
    """Write an image, or a mask of the rule, of 8x8 pixels."""
    half = np.zeros((8, 8), np.uint8)
    half[:, :4] = 255
    if path.suffix == ".npz":
        np.savez(path, half[..., None] // 255 * 3)
    elif rule == "green":
        save_image(path, np.stack([255 - half, half, 0 * half], axis=-1), quality=95)
    else:
        save_image(path, 255 - half if rule == "black" else half)


def assert_only_equal_images(report: Report) -> None:
    """Check that there are no errors, except that the subsets of TampCOCO share images here."""
    assert {finding.problem for finding in report.errors} <= {"duplicate"}


def sample(name: str) -> Archive:
    """Read a sample of an archive's names. A row is ``image -> mask`` or an image without one."""
    entry = NAMES[name]
    rows = [line.split(" -> ") for line in entry["names"].splitlines()]
    pairs = [(row[0], row[1]) for row in rows if len(row) == 2]
    others = [row[0] for row in rows if len(row) == 1]
    return Archive(entry["dataset"], pairs, others, entry.get("texts", {}))


@pytest.mark.parametrize("name", NAMES)
def test_sample_of_the_published_names_is_paired(name, tmp_path):
    archive = sample(name)
    archive.write(tmp_path / "source")
    pairs, _ = archive.planned(tmp_path / "source")
    assert pairs == dict(archive.pairs)
    options = {"workers": 1, "progress": False}
    prepared = prepare(archive.dataset, tmp_path / "source", tmp_path / "out", **options)
    assert prepared.report["tampered"] == len(archive.pairs)
    assert_only_equal_images(prepared.checked)


def test_every_dataset_has_a_sample_of_its_names():
    assert {entry["dataset"] for entry in NAMES.values()} == set(ALL_DATASETS)


@pytest.mark.parametrize("dataset", ALL_DATASETS.values(), ids=list(ALL_DATASETS))
def test_examples_of_the_layout_match_the_patterns(dataset):
    image, mask = [path for path in dataset.examples if not path.endswith((".csv", ".txt"))]
    pattern = dataset.image.replace("{quality}", "100")
    assert re.search(pattern, image, re.IGNORECASE)
    assert re.search(dataset.mask, mask, re.IGNORECASE)
    assert not re.search(pattern, mask, re.IGNORECASE)


# The complete lists of names, from ../shared/layouts.


class Lists:
    """The lists of names in the shared data."""

    def __init__(self, find: Callable[[str], Path]):
        self._find = find

    def lines(self, name: str) -> list[str]:
        """Read the lines of ``name.gz``."""
        data = gzip.decompress(self._find(f"layouts/{name}.gz").read_bytes())
        return data.decode("utf-8-sig").splitlines()

    def rows(self, name: str) -> list[list[str]]:
        """Read the fields of each line of ``name.txt.gz``."""
        return [line.split(",") for line in self.lines(f"{name}.txt")]

    def pairs(self, name: str) -> list[tuple[str, str]]:
        """Read image and mask of each line."""
        return [(row[0], row[1]) for row in self.rows(name)]

    def images(self, name: str) -> list[str]:
        """Read the first field of each line."""
        return [row[0] for row in self.rows(name)]

    def renames(self, name: str) -> dict[str, str]:
        """Read the corrected stem of each original stem from a table of corrections."""
        table = csv.reader(io.StringIO("\n".join(self.lines(f"{name}-published-renames.csv"))))
        files = [[cell for cell in row if cell.endswith((".jpg", ".tif"))][:2] for row in table]
        pairs = [file for file in files if len(file) == 2 and file[0].startswith(("Sp_", "Tp_"))]
        return {stem(original): stem(corrected) for original, corrected in pairs}


@pytest.fixture
def lists(shared):
    return Lists(shared)


def stem(file: str) -> str:
    return PurePosixPath(file).stem


CASIAV1_NAMES = ("original", "renamed", "corrected")


def casiav1(lists: Lists, names: str, *, image_folders: bool, mask_folders: bool) -> Archive:
    """Return an archive of CASIA v1.0.

    Args:
        lists: The lists of names.
        names: ``original`` as found, ``renamed`` by the published table, or ``corrected`` as in
            TruFor's list.
        image_folders: Divide the images into CM/ and Sp/ instead of only Sp/.
        mask_folders: Divide the masks in the same way, as published.
    """
    found = [file for file in lists.images("CASIAv1-found-images") if "/Sp/" in file]
    stems = [stem(file) for file in found]
    if names == "renamed":
        renames = lists.renames("CASIAv1")
        assert len(renames) == 33
        assert set(renames) <= set(stems)
        stems = [renames.get(name, name) for name in stems]
    elif names == "corrected":
        stems = [stem(file) for file in lists.images("CASIAv1-trufor-tampered")]
    assert len(set(stems)) == 921
    images = []
    for name in stems:
        folder = "CM" if image_folders and name.startswith("Sp_S_") else "Sp"
        images.append(f"CASIA1/{folder}/{name}.jpg")
    masks = [file for file in lists.images("CASIAv1-published-masks") if file.endswith("_gt.png")]
    if not mask_folders:
        masks = [f"groundtruth/{PurePosixPath(file).name}" for file in masks]
    authentic = [file for file in lists.images("CASIAv1-found-images") if "/Au/" in file]
    # The pairs are not known; write() needs the names only.
    pairs = list(zip(images, [*masks, masks[0]], strict=True))
    return Archive("CASIAv1", pairs, authentic)


@pytest.mark.parametrize("mask_folders", [True, False], ids=["CM and Sp", "groundtruth"])
@pytest.mark.parametrize("image_folders", [True, False], ids=["CM and Sp", "Sp"])
@pytest.mark.parametrize("names", CASIAV1_NAMES)
def test_casiav1_has_920_pairs(lists, tmp_path, names, image_folders, mask_folders):
    archive = casiav1(lists, names, image_folders=image_folders, mask_folders=mask_folders)
    archive.write(tmp_path)
    pairs, authentic = archive.planned(tmp_path)
    assert (len(pairs), authentic) == (920, 800)
    assert len(set(pairs.values())) == 920
    (lonely,) = {image for image, _ in archive.pairs} - pairs.keys()
    assert stem(lonely).endswith("_0542")
    renames = lists.renames("CASIAv1")
    by_stem = 0
    for image, mask in pairs.items():
        name, mask_name = stem(image), stem(mask).removesuffix("_gt")
        by_stem += name == mask_name
        assert renames.get(name, mask_name) == mask_name
        # Letters and number agree; the sources also do, except in five names.
        assert (name[5:10], name[-4:]) == (mask_name[5:10], mask_name[-4:])
        if sources(name) != sources(mask_name):
            assert name[-4:] in ("0117", "0513", "0514", "0051", "0443")
    assert by_stem == {"original": 814, "renamed": 847, "corrected": 920}[names]


def sources(name: str) -> set[str]:
    return set(re.findall(r"[a-z]{3}\d{4}", name))


def casiav2(lists: Lists, *, original: bool) -> Archive:
    """Return the archive of CASIA v2.0 with corrected or original image names."""
    images = lists.images("CASIAv2-published-tp_list")
    masks = {
        stem(file).removesuffix("_gt")
        for file in lists.images("CASIAv2-published-groundtruth_list")
    }
    by_correction = {new: old for old, new in lists.renames("CASIAv2").items()} if original else {}
    pairs: list[tuple[str, str]] = []
    others = [f"CASIA2.0_revised/Au/{file}" for file in lists.images("CASIAv2-published-au_list")]
    for file in images:
        name = by_correction.get(stem(file), stem(file))
        image = f"CASIA2.0_revised/Tp/{name}{PurePosixPath(file).suffix}"
        if stem(file) in masks:
            pairs.append((image, f"CASIA2.0_Groundtruth/{stem(file)}_gt.png"))
        else:
            others.append(image)
    return Archive("CASIAv2", pairs, others)


def imd2020(lists: Lists) -> Archive:
    rows = lists.rows("IMD2020-safire-train")
    return Archive("IMD2020", [(row[0], row[1]) for row in rows], sorted({row[2] for row in rows}))


def nist16(lists: Lists) -> Archive:
    """Return the archive of NIST16 with its published table."""
    lines = lists.lines("NIST16-published-manipulation-ref.csv")
    rows = list(csv.DictReader(lines, delimiter="|"))
    pairs = [(r["ProbeFileName"], r["ProbeMaskFileName"]) for r in rows if r["IsTarget"] == "Y"]
    authentic = [row["ProbeFileName"] for row in rows if row["IsTarget"] == "N"]
    table = "reference/manipulation/NC2016-manipulation-ref.csv"
    return Archive("NIST16", pairs, authentic, {table: "\n".join(lines)})


def tampcoco(lists: Lists) -> Archive:
    """Return the validation part of TampCOCO, the only one whose names are known."""
    pairs, texts = [], {}
    for part in DATASETS["TampCOCO"].parts:
        rows = lists.pairs(f"TampCOCO-{part}-safire-valid")
        texts[f"{part}_COCO_list.txt"] = "\n".join(map(",".join, rows))
        pairs += rows
    return Archive("TampCOCO", pairs, texts=texts)


def listed(dataset: str, tampered: str, authentic: str = "") -> Callable[[Lists], Archive]:
    """Return a function that reads an archive whose pairs and authentic images are listed."""

    def read(lists: Lists) -> Archive:
        others = lists.images(authentic) if authentic else []
        return Archive(dataset, lists.pairs(tampered), others)

    return read


def safire(name: str) -> Callable[[Lists], Archive]:
    return listed(name, f"{name}-safire-tampered", f"{name}-safire-authentic")


def dso1(lists: Lists) -> Archive:
    authentic = [f"DSO-1/{file}" for file in lists.images("DSO1-trufor-authentic")]
    return Archive("DSO1", lists.pairs("DSO1-catnet-tampered"), authentic)


def comofod(lists: Lists) -> Archive:
    """Return the small image category, with original images and colored masks as published."""
    pairs = lists.pairs("CoMoFoD-catnet-tampered")
    return Archive("CoMoFoD", pairs, [image.replace("_F", "_O") for image, _ in pairs])


# Archives with their numbers of tampered and authentic images.
ARCHIVES = {
    "CASIAv1 original": (
        lambda lists: casiav1(lists, "original", image_folders=False, mask_folders=True),
        920,
        800,
    ),
    "CASIAv2 corrected": (lambda lists: casiav2(lists, original=False), 5122, 7491),
    "CASIAv2 original": (lambda lists: casiav2(lists, original=True), 5122, 7491),
    "CASIAv2 SAFIRE": (safire("CASIAv2"), 5105, 7491),
    "IMD2020": (imd2020, 2009, 413),
    "FantasticReality": (safire("FantasticReality"), 19423, 16592),
    "TampCOCO validation": (tampcoco, 400, 0),
    "Columbia": (safire("Columbia"), 180, 183),
    "Coverage": (safire("Coverage"), 100, 100),
    "NIST16": (nist16, 564, 560),
    "CocoGlide": (safire("CocoGlide"), 512, 512),
    "DSO1": (dso1, 100, 100),
    "RealisticTampering": (safire("RealisticTampering"), 220, 220),
    "CoMoFoD": (comofod, 200, 200),
    "GRIP": (listed("GRIP", "GRIP-catnet-tampered"), 80, 0),
    "OpenForensics": (listed("OpenForensics", "OpenForensics-trufor-tampered"), 2000, 0),
}
LARGE = [name for name, (_, count, _) in ARCHIVES.items() if count > 5000]


def with_large_ones_slow(names: Iterable[str]) -> list:
    return [pytest.param(n, marks=pytest.mark.slow if n in LARGE else ()) for n in names]


@pytest.mark.parametrize("name", [name for name in ARCHIVES if "CASIAv1" not in name])
def test_published_names_are_paired(lists, tmp_path, name):
    read, tampered, authentic = ARCHIVES[name]
    archive = read(lists)
    archive.write(tmp_path)
    pairs, other_count = archive.planned(tmp_path)
    assert pairs == dict(archive.pairs)
    assert (len(pairs), other_count) == (tampered, authentic)


@pytest.mark.parametrize("name", with_large_ones_slow(ARCHIVES))
def test_archive_is_prepared_completely(lists, tmp_path, name):
    read, tampered, authentic = ARCHIVES[name]
    archive = read(lists)
    archive.write(tmp_path / "source")
    options = {"authentic": True, "link": True, "progress": False}
    prepared = prepare(archive.dataset, tmp_path / "source", tmp_path / "out", **options)
    report = prepared.report
    assert (report["tampered"], report["authentic"]) == (tampered, authentic)
    assert prepared.is_complete == (name != "TampCOCO validation")
    assert_only_equal_images(prepared.checked)
    left_out = {"CASIAv1 original": 1, "CASIAv2 corrected": 1, "CASIAv2 original": 1}
    assert Counter(row["why"] for row in report["left_out"]) == Counter(
        {"has no mask": left_out[name]} if name in left_out else {}
    )
    renamed = {"CASIAv1 original": 106, "CASIAv2 original": 141}
    assert len(report["renamed"]) == renamed.get(name, 0)
