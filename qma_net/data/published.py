"""How the paper's ten datasets are published: a table of facts, and how their masks are to be read.

Where BenCo could read a published mask, or its negative, as it is, the cut is BenCo's own (the mean
of the three channels above 127.5): the paper's numbers were made with BenCo. Sets whose masks may
hold 0/1 or class numbers are cut above 0. None of the archives could be had while this was written:
``layout`` says where each fact was seen, ``unverified`` what nobody checked on the files.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

MINIATURE = "a miniature built after the layout below, not the archive"
COPY_MOVE, SPLICE, REMOVAL, AI_GENERATED = "copy-move", "splice", "removal", "ai-generated"
TYPES = (COPY_MOVE, SPLICE, REMOVAL, AI_GENERATED)  # the columns of the paper's Tables 3 and 4
MAX_SIDE_RULES = {
    "training": "allowed: training resizes every image, and numbers stay comparable",
    "test": "changes the numbers of this test set where it reduces an image",
}


def total(mask: np.ndarray) -> np.ndarray:
    """The sum of three channels, 0 to 765; uint8 ``(H, W, 3)`` to uint16 ``(H, W)``."""
    return mask[..., 0].astype(np.uint16) + mask[..., 1] + mask[..., 2]


def as_benco(mask: np.ndarray) -> np.ndarray:
    """White is tampered, cut where BenCo cuts; uint8 ``(H, W, 3)`` to bool ``(H, W)``."""
    return total(mask) > 382  # 3 x 127.5 = 382.5


def black(mask: np.ndarray) -> np.ndarray:
    """Black is tampered: BenCo's cut on the negative; uint8 ``(H, W, 3)`` to bool ``(H, W)``."""
    return total(mask) < 383


def above_zero(mask: np.ndarray) -> np.ndarray:
    """Everything but 0 is tampered; ``(H, W)`` of any type or uint8 ``(H, W, 3)``."""
    return (mask > 0) if mask.ndim == 2 else (mask > 0).any(axis=-1)


def green(mask: np.ndarray) -> np.ndarray:
    """Green (200 or 255) on red is tampered, in a lossy JPEG; uint8 ``(H, W, 3)``."""
    return (mask[..., 1] > mask[..., 0]) & (mask[..., 1] > 120)


@dataclass(frozen=True)
class PublishedDataset:
    """One dataset as published, and as the paper counts it.

    ``tampered``, ``smallest`` and ``largest`` are the paper's (Tables 3 and 4; width x height).
    ``image``, ``mask`` and ``authentic`` are regular expressions, without regard to case, on paths
    relative to the source; an image and a mask belong together when their groups ``key`` (and
    ``part``) agree, or else, with ``or_match``, when what that finds in their keys is in no other
    of the unpaired. ``table`` is the end of a CSV's path that pairs them instead; ``parts`` are
    subsets with lists that do. ``list_name`` is the JSON list that is written beside ``Tp/``, one
    per ``{part}`` of those. ``types`` says what tells an image's manipulation type: columns of
    ``table``, or ``parts``, or else regular expressions on its name; it is empty where nothing
    does. ``benco_side`` is the long side in pixels of the copy that BenCo's own lists name, 0 where
    they name no reduced one.
    ``known_faults`` are stems whose mask is known not to fit, ``remedy`` what to do about those.
    """

    name: str
    role: str
    tampered: int
    smallest: str
    largest: str
    where: str
    terms: str
    layout: str
    image: str
    mask: str
    authentic: str
    read: Callable[[np.ndarray], np.ndarray]
    rule: str
    unverified: tuple[str, ...]
    notes: tuple[str, ...] = ()
    known_faults: frozenset[str] = frozenset()
    remedy: str = "take a corrected mask"
    or_match: str = ""
    table: str = ""
    parts: tuple[str, ...] = ()
    list_name: str = ""
    types: dict[str, str] = field(default_factory=dict)
    benco_side: int = 0
    verified_on: str = MINIATURE

    def type_of(self, name: str, part: str = "") -> str | None:
        """The manipulation type that an image's file name or its subset tells, if they do."""
        if self.parts:
            return self.types.get(part)
        found = (
            type_
            for pattern, type_ in self.types.items()
            if re.search(pattern, name, re.IGNORECASE)
        )
        return next(found, None)

    def type_in_row(self, row: dict[str, str]) -> str | None:
        """The manipulation type that a row of ``table`` (lower-case columns) tells, if just one."""
        said = [
            type_
            for column, type_ in self.types.items()
            if row.get(column, "").upper() in ("Y", "TRUE")
        ]
        return said[0] if len(said) == 1 else None

    def max_side_rule(self) -> str:
        """Whether ``data prepare --max-side`` changes numbers, by role."""
        rule = MAX_SIDE_RULES[self.role]
        if self.benco_side:
            rule += f"; BenCo's own lists name a copy of long side {self.benco_side}"
            if self.role == "training":
                rule += ", also as a test set, where it changes the numbers"
        return rule


CORRECTIONS = "github.com/SunnyHaze/IML-Dataset-Corrections"
TABLE = (
    PublishedDataset(
        name="CASIAv2",
        role="training",
        tampered=5123,
        smallest="320x240",
        largest="800x600",
        where="images: link in github.com/namtpham/casia2groundtruth; masks: its "
        "CASIA2.0_Groundtruth.zip; corrected copy: github.com/SunnyHaze/"
        "CASIA2.0-Corrected-Groundtruth",
        terms="none stated; both ask for citation",
        layout="CASIA2.0_revised/{Au,Tp} beside CASIA2.0_Groundtruth/, or Au/ Tp/ with "
        "groundtruth/ or Gt/: Tp_*.jpg|tif with <stem>_gt.png (lists and READMEs of both "
        "repositories, CAT-Net, TruFor)",
        image=r"(?P<key>Tp_[DS]_[^/]+)\.(jpe?g|tiff?)$",
        mask=r"(?P<key>Tp_[DS]_[^/]+?)(_gt3?)?\.png$",
        authentic=r"(^|/)Au_[^/]+\.(jpe?g|bmp|tiff?)$",
        or_match=r"_(\d{5})$",
        read=as_benco,
        rule="white above 127.5",
        types={r"Tp_S_[^/]+$": COPY_MOVE, r"Tp_D_[^/]+$": SPLICE},
        verified_on="a miniature, and 18 of its images with their masks; not the whole archive",
        unverified=(
            "which way the five transposed masks are turned",
            "that no two unpaired names end in the same five digits",
        ),
        notes=(
            "the older ground truth has 17 masks of another size than their image",
            "names that differ between image and mask (originals before 2021-04-20) are paired by "
            "their last five digits, and listed",
            "about 23 authentic images are there twice",
            "types are told by the names, S copy-move and D splice: 3295 and 1828 as the revised "
            "archive names them; the paper's 3274 and 1849 are those before 39 S became D and 60 D "
            "became S",
        ),
        known_faults=frozenset(
            """
            Tp_D_CNN_M_N_sec00011_cha00085_11227 Tp_D_CRN_S_N_ani10191_ani10190_12437
            Tp_D_CRN_S_N_nat10130_pla00049_11524 Tp_S_CRN_S_N_art00059_art00059_10508
            Tp_S_NNN_S_N_sec00012_sec00012_11230 Tp_D_NND_M_B_nat20098_nat20073_01602
            Tp_D_NRN_M_N_nat10134_nat00095_11912 Tp_D_NRN_M_N_nat10134_nat10124_11913
            Tp_S_NND_S_N_sec20064_sec20064_01654 Tp_S_NNN_S_N_art20077_art20077_01883
            Tp_S_NNN_S_N_ind20037_ind20037_01778 Tp_S_NNN_S_N_sec00074_sec00074_00751
            Tp_S_NRD_S_N_arc20079_arc20079_01719 Tp_S_NRD_S_N_pla20071_pla20071_01971
            Tp_S_NRN_S_B_ind10002_ind10002_20010 Tp_S_NRN_S_N_art20077_art20077_02316
            Tp_S_NRN_S_N_pla20080_pla20080_01980
            """.split()
        ),
        remedy="take the masks of github.com/SunnyHaze/CASIA2.0-Corrected-Groundtruth",
    ),
    PublishedDataset(
        name="IMD2020",
        role="training",
        tampered=2010,
        smallest="260x193",
        largest="2958x4437",
        where="IMD2020.zip, staff.utia.cas.cz/novozada/db/ (the real-life part)",
        terms="no licence seen on the page",
        layout="IMD2020/<folder>/<name>.jpg|png with <name>_mask.png beside it and one *_orig.jpg "
        "(lists of CAT-Net and TruFor)",
        image=r"(^|/)(?P<key>[^/]+/(?![^/]*(mask|orig))[^/]+)\.(jpe?g|png)$",
        mask=r"(^|/)(?P<key>[^/]+/[^/]+)_mask\.png$",
        authentic=r"(^|/)[^/]+/[^/]*orig[^/]*\.(jpe?g|png)$",
        read=as_benco,
        rule="white above 127.5 (CAT-Net and TruFor: above 0)",
        benco_side=1024,
        unverified=("the masks' values: nobody here saw one; the report counts their grey pixels",),
        notes=("z14/00030_fake has a mask of another size",),
        known_faults=frozenset(["00030_fake"]),
        remedy=f"take images/00030_fake_mask.png of {CORRECTIONS} if its size fits",
    ),
    PublishedDataset(
        name="FantasticReality",
        role="training",
        tampered=19423,
        smallest="500x333",
        largest="6000x4000",
        where="zefirus.org/MAG (dead); a link in github.com/mjkwon2021/CAT-Net issue 51",
        terms="not seen; said to carry the authors' requirements",
        layout="FantasticReality_v1/dataset/ColorFakeImages/<stem>.jpg with "
        "SegmentationFake/<stem>.npz, ColorRealImages/ (CAT-Net, SAFIRE)",
        image=r"(^|/)ColorFakeImages/(?P<key>[^/]+)\.jpe?g$",
        mask=r"(^|/)SegmentationFake/(?P<key>[^/]+)\.npz$",
        authentic=r"(^|/)ColorRealImages/[^/]+\.jpe?g$",
        read=above_zero,
        rule="array arr_0, any class number above 0",
        list_name="FantasticReality",
        unverified=("the arrays' type and extra dimension", "the terms"),
        notes=("CAT-Net's lists hold 18098 of the 19423",),
    ),
    PublishedDataset(
        name="TampCOCO",
        role="training",
        tampered=800_000,
        smallest="72x51",
        largest="640x640",
        where="kaggle.com/datasets/qsii24/tampcoco (13 parts)",
        terms="CC-BY 4.0, and COCO's terms for the photographs",
        layout="tampCOCO/{sp,cm,bcm,bcmc}_images/, {sp,cm,bcm}_masks/ and "
        "{sp,cm,bcm,bcmc}_COCO_list.txt of 'image,mask' lines (CAT-Net; the lists at the root: "
        "Mesorch issue 23)",
        image=r"(^|/)(?P<part>sp|cm|bcm|bcmc)_images/(?P<key>[^/]+)\.jpg$",
        mask=r"(^|/)(sp|cm|bcm)_masks/[^/]+\.png$",
        authentic="",
        parts=("sp", "cm", "bcm", "bcmc"),
        list_name="{part}_COCO_list",
        types={"sp": SPLICE, "cm": COPY_MOVE, "bcm": COPY_MOVE, "bcmc": COPY_MOVE},
        read=above_zero,
        rule="above 0 (loaders map values above 1 to 1 and keep 0 and 1)",
        unverified=("the masks' values", "the full lists: only the validation lists were read"),
        notes=(
            "the paper's 800000 is nominal: the lists hold about 799441 lines, some twice, and "
            "name absent files",
            "bcmc has no masks of its own: its list names those of bcm",
        ),
    ),
    PublishedDataset(
        name="CASIAv1",
        role="test",
        tampered=920,
        smallest="384x256",
        largest="384x256",
        where="images: link in github.com/namtpham/casia1groundtruth; masks: its "
        "'CASIA 1.0 groundtruth.zip'",
        terms="none stated; asks for citation",
        layout="'CASIA 1.0 dataset/Modified Tp/Tp/{CM,Sp}/<stem>.jpg' with "
        "'CASIA 1.0 groundtruth/{CM,Sp}/<stem>_gt.png' (the masks' zip; SAFIRE; IML-ViT issue 10)",
        image=r"((^|/)(?P<part>CM|Sp)/)?(?P<key>Sp_[DS]_[^/]+)\.jpe?g$",
        mask=r"((^|/)(?P<part>CM|Sp)/)?(?P<key>Sp_[DS]_[^/]+?)(_gt)?\.png$",
        authentic=r"(^|/)Au_[^/]+\.jpe?g$",
        read=as_benco,
        rule="white above 127.5 (one published mask also holds 52, 64 and 76)",
        types={r"Sp_S_[^/]+$": COPY_MOVE, r"Sp_D_[^/]+$": SPLICE},
        unverified=(
            "the images' sizes",
            "the folder names inside 'Modified Tp'",
            "that S (copy-move) and D (splice) in the names agree with the folders CM and Sp",
        ),
        notes=("Sp_D_NRN_A_cha0011_sec0011_0542 has no mask and is left out: 920, not 921",),
    ),
    PublishedDataset(
        name="Columbia",
        role="test",
        tampered=180,
        smallest="757x568",
        largest="1152x768",
        where="ee.columbia.edu/ln/dvmm/downloads/authsplcuncmp/ (a form)",
        terms="its form was not seen; the sister set is for research, without redistribution",
        layout="'Columbia Uncompressed Image Splicing Detection'/4cam_splc/<stem>.tif with "
        "4cam_splc/edgemask/<stem>_edgemask.jpg, 4cam_auth/ (SAFIRE, PhotoHolmes)",
        image=r"(^|/)(?P<key>[a-z0-9]+_[a-z][a-z0-9]+_sub_\d+)\.(tiff?|bmp)$",
        mask=r"(^|/)edgemask/(?P<key>[a-z0-9]+_[a-z][a-z0-9]+_sub_\d+)_edgemask\.jpg$",
        authentic=r"(^|/)[a-z0-9]+_\d+_sub_\d+\.(tiff?|bmp)$",
        read=green,
        rule="green above red and above 120: red and green JPEGs, bright (255) near the splice, "
        "200 elsewhere",
        types={"": SPLICE},
        unverified=(
            "that green is the spliced side in all 180 (nearly every loader reads it so)",
            "that *_edgemask_3.jpg may be ignored",
        ),
    ),
    PublishedDataset(
        name="Coverage",
        role="test",
        tampered=100,
        smallest="334x190",
        largest="752x472",
        where="links in github.com/wenbihan/coverage",
        terms="non-commercial research; cite",
        layout="COVERAGE/image/Nt.tif with mask/Nforged.tif; image/N.tif is authentic "
        "(PhotoHolmes, lists of CAT-Net)",
        image=r"(^|/)(?P<key>\d+)t\.tiff?$",
        mask=r"(^|/)(?P<key>\d+)forged\.tiff?$",
        authentic=r"(^|/)image/\d+\.tiff?$",
        read=as_benco,
        rule="bright above 127.5 (loaders cut at 120 or 125)",
        types={"": COPY_MOVE},
        unverified=("the masks' modes and values", "the sizes of the nine masks that do not fit"),
        notes=("the masks of 41, 48, 55 to 59, 61 and 95 have another size than their image",),
        known_faults=frozenset(f"{n}t" for n in (41, 48, 55, 56, 57, 58, 59, 61, 95)),
        remedy=f"take the corrected masks linked in {CORRECTIONS}",
    ),
    PublishedDataset(
        name="NIST16",
        role="test",
        tampered=564,
        smallest="500x500",
        largest="5616x3744",
        where="NIST's Media Forensics Challenge site (registration), NC2016_Test0613",
        terms="NIST's data agreement: no redistribution",
        layout="NC2016_Test0613/reference/manipulation/NC2016-manipulation-ref.csv names probe and "
        "mask of every row relative to the root; rows with IsTarget Y (MediScore's copy of the "
        "table, TruFor, SAFIRE)",
        image=r"(^|/)probe/[^/]+\.jpe?g$",
        mask=r"(^|/)reference/manipulation/mask/[^/]+\.png$",
        authentic="",
        table="reference/manipulation/nc2016-manipulation-ref.csv",
        read=black,
        rule="black below 127.5: BenCo's cut on the negative (SAFIRE cuts at 180, NIST's scorer "
        "takes all but white)",
        types={
            "ismanipulationtypecopyclone": COPY_MOVE,
            "ismanipulationtypesplice": SPLICE,
            "ismanipulationtyperemoval": REMOVAL,
        },
        benco_side=1024,
        unverified=(
            "the share of grey in the masks, where those three cuts differ: see the report",
            "the table's delimiter in the released archive: | or , is recognised",
            "that the released table's columns of types are those of MediScore's copy",
        ),
        notes=(
            "each mask serves two probes and is written for both",
            "types are told by the table: MediScore's copy of it has 68 copy-move (CopyClone), 288 "
            "splice and 208 removal, the paper 236, 225 and 103",
        ),
    ),
    PublishedDataset(
        name="CocoGlide",
        role="test",
        tampered=512,
        smallest="256x256",
        largest="256x256",
        where="CocoGlide.zip, grip.unina.it/download/prog/TruFor/",
        terms="per-image COCO licences (licenses.json); TruFor's own licence is for its software",
        layout="CocoGlide/fake/glide_inpainting_val2017_<id>_up.png with "
        "mask/<class>_<id>_mask.png, real/<class>_<id>.png (TruFor's lists)",
        image=r"(^|/)glide_inpainting_val2017_0*(?P<key>\d+)_up\.png$",
        mask=r"(^|/)mask/[^/]+?_0*(?P<key>\d+)_mask\.png$",
        authentic=r"(^|/)real/[^/]+\.png$",
        read=as_benco,
        rule="white above 127.5",
        types={"": AI_GENERATED},
        unverified=("the masks' values: 0 and 255 by a third party's account",),
        notes=("sorted by name, 511 of the 512 published names pair wrongly: joined by COCO id",),
    ),
    PublishedDataset(
        name="AutoSplice",
        role="test",
        tampered=3621,
        smallest="256x256",
        largest="4232x4232",
        where="form and links in github.com/shanface33/AutoSplice_Dataset",
        terms="academic, non-commercial",
        layout="AutoSplice/Forged_JPEG{100,90,75}/<id>_<k>.jpg with Mask/<id>_mask.png, Authentic/ "
        "(PhotoHolmes)",
        image=r"(^|/)Forged_JPEG{quality}/(?P<key>[^/_]+)_[^/]+\.jpe?g$",
        mask=r"(^|/)Mask/(?P<key>[^/_]+)_mask\.png$",
        authentic=r"(^|/)Authentic/[^/]+\.jpe?g$",
        read=as_benco,
        rule="white above 127.5 (PhotoHolmes: above 0)",
        types={"": AI_GENERATED},
        unverified=(
            "the masks' values and sizes",
            "that each Forged_JPEG folder holds 3621 images",
            "which quality the paper took: 100 unless --jpeg-quality says otherwise",
        ),
        notes=("one mask serves every image of its id and is written for each",),
    ),
)

DATASETS = {dataset.name: dataset for dataset in TABLE}


def dataset_named(name: str) -> tuple[PublishedDataset | None, str]:
    """The dataset that a name means, without regard to case, and which of its subsets.

    The name is the dataset's own, or that of a subset's list, such as ``sp_COCO_list``; the subset
    is "" for a whole dataset. ``None`` for any other name.
    """
    for dataset in TABLE:
        if name.lower() == dataset.name.lower():
            return dataset, ""
        for part in dataset.parts:
            if name.lower() == dataset.list_name.format(part=part).lower():
                return dataset, part
    return None, ""


def count_types(types: Iterable[str | None]) -> dict[str, int] | None:
    """How many images are of each of :data:`TYPES`; ``None`` where one's type is not known."""
    counts = Counter(types)
    return None if None in counts else {type_: counts[type_] for type_ in TYPES}


def published_facts() -> str:
    """The table, for a person."""
    lines = []
    for item in DATASETS.values():
        lines += [
            f"{item.name} ({item.role}, {item.tampered} tampered images in the paper)",
            f"  published: {item.where}",
            f"  terms: {item.terms}",
            f"  layout: {item.layout}",
            f"  masks: {item.rule}",
            f"  --max-side: {item.max_side_rule()}",
            f"  verified on: {item.verified_on}",
            *(f"  not verified: {line}" for line in item.unverified),
            *(f"  note: {line}" for line in item.notes),
        ]
    return "\n".join(lines)
