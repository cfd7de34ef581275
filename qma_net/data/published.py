"""Facts about the paper's ten datasets: where they are published, their layout and their masks.

Where BenCo could read a published mask, or its negative, without conversion, masks are binarized
like in BenCo (mean of the three channels above 127.5), because the paper's numbers were made with
BenCo. In datasets that may contain masks of 0 and 1 or of class numbers, every nonzero pixel is
tampered. None of the archives was available when this table was written: ``layout`` names the
sources, and ``unverified`` lists what nobody has checked on the files.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

MINIATURE = "a miniature with this layout, not the archive itself"
COPY_MOVE, SPLICE, REMOVAL, AI_GENERATED = "copy-move", "splice", "removal", "ai-generated"
TYPES = (COPY_MOVE, SPLICE, REMOVAL, AI_GENERATED)  # the columns of the paper's Tables 3 and 4
MAX_SIDE_RULES = {
    "training": "allowed: training resizes every image, so results stay comparable",
    "test": "changes the results on this test set if it reduces any image",
}


def channel_sum(mask: np.ndarray) -> np.ndarray:
    """Return the sum of the three channels, 0 to 765: uint8 ``(H, W, 3)`` to uint16 ``(H, W)``."""
    return mask[..., 0].astype(np.uint16) + mask[..., 1] + mask[..., 2]


def as_benco(mask: np.ndarray) -> np.ndarray:
    """Return the pixels that BenCo reads as tampered: uint8 ``(H, W, 3)`` to bool ``(H, W)``."""
    return channel_sum(mask) > 382  # 3 x 127.5 = 382.5


def black_is_tampered(mask: np.ndarray) -> np.ndarray:
    """Return what BenCo reads as tampered in the negative: uint8 ``(H, W, 3)`` to bool."""
    return channel_sum(mask) < 383


def nonzero_is_tampered(mask: np.ndarray) -> np.ndarray:
    """Return the nonzero pixels of ``(H, W)`` of any type or of uint8 ``(H, W, 3)``."""
    return (mask > 0) if mask.ndim == 2 else (mask > 0).any(axis=-1)


def green_is_tampered(mask: np.ndarray) -> np.ndarray:
    """Return the green (200 or 255) pixels of a red and green JPEG, uint8 ``(H, W, 3)``."""
    return (mask[..., 1] > mask[..., 0]) & (mask[..., 1] > 120)


@dataclass(frozen=True)
class PublishedDataset:
    """One dataset as it is published and as the paper counts it.

    Images and masks are found by regular expressions, which ignore case and are matched with
    paths relative to the source. An image belongs to the mask with the same groups ``key`` and
    ``part``.

    Attributes:
        name: The paper's name.
        role: ``"training"`` or ``"test"``.
        tampered: Number of tampered images in the paper (Tables 3 and 4).
        smallest: Smallest resolution in the paper, width x height.
        largest: Largest resolution in the paper.
        where: Where it is published.
        terms: Its terms of use.
        layout: Its folders and file names, and the sources of this information.
        image: Pattern of tampered images; ``{quality}`` stands for the JPEG quality.
        mask: Pattern of masks.
        authentic: Pattern of authentic images, empty if there are none.
        read: Converts a mask to tampered pixels, bool ``(H, W)``.
        rule: What ``read`` does, in words.
        unverified: What nobody has checked on the files.
        notes: Known peculiarities.
        known_faults: Stems of images whose mask is known to have another size.
        remedy: What to do about these masks.
        or_match: Pattern that pairs the remaining images and masks, if the text that it matches
            is unique among them.
        table: End of the path of a CSV file that pairs images and masks instead of their names.
        parts: Subsets, each with a list that pairs images and masks.
        list_name: JSON list that is written next to ``Tp/``, one per ``{part}``.
        types: Maps to manipulation types: columns of ``table``, or ``parts``, or else patterns of
            image names. It is empty if nothing tells the types.
        benco_side: Long side in pixels of the reduced copy that BenCo's own lists name, or 0.
        verified_on: What the recipe was tested on.
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
    remedy: str = "use a corrected mask"
    or_match: str = ""
    table: str = ""
    parts: tuple[str, ...] = ()
    list_name: str = ""
    types: dict[str, str] = field(default_factory=dict)
    benco_side: int = 0
    verified_on: str = MINIATURE

    def type_of(self, name: str, part: str = "") -> str | None:
        """Return an image's manipulation type by its file name or subset, if these tell it."""
        if self.parts:
            return self.types.get(part)
        for pattern, manipulation in self.types.items():
            if re.search(pattern, name, re.IGNORECASE):
                return manipulation
        return None

    def type_in_row(self, row: dict[str, str]) -> str | None:
        """Return the type that a row of ``table`` (lower-case columns) marks, if it is just one."""
        marked = [
            manipulation
            for column, manipulation in self.types.items()
            if row.get(column, "").upper() in ("Y", "TRUE")
        ]
        return marked[0] if len(marked) == 1 else None

    def max_side_rule(self) -> str:
        """State whether ``data prepare --max-side`` changes results on this dataset."""
        rule = MAX_SIDE_RULES[self.role]
        if self.benco_side:
            rule += f"; BenCo's own lists name a copy with long side {self.benco_side}"
            if self.role == "training":
                rule += ", also as a test set, where it changes the results"
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
        terms="none stated; both repositories ask for a citation",
        layout="CASIA2.0_revised/{Au,Tp} next to CASIA2.0_Groundtruth/, or Au/ Tp/ with "
        "groundtruth/ or Gt/: Tp_*.jpg|tif with <stem>_gt.png (lists and READMEs of both "
        "repositories, CAT-Net, TruFor)",
        image=r"(?P<key>Tp_[DS]_[^/]+)\.(jpe?g|tiff?)$",
        mask=r"(?P<key>Tp_[DS]_[^/]+?)(_gt3?)?\.png$",
        authentic=r"(^|/)Au_[^/]+\.(jpe?g|bmp|tiff?)$",
        or_match=r"_(\d{5})$",
        read=as_benco,
        rule="white above 127.5",
        types={r"Tp_S_[^/]+$": COPY_MOVE, r"Tp_D_[^/]+$": SPLICE},
        verified_on="a miniature and 18 of its images with their masks, not the whole archive",
        unverified=(
            "in which direction the five transposed masks are rotated",
            "that no two unpaired names end in the same five digits",
        ),
        notes=(
            "in the older ground truth, 17 masks differ in size from their images",
            "images and masks with different names (originals before 2021-04-20) are paired by "
            "their last five digits and listed",
            "about 23 authentic images occur twice",
            "types are taken from the names, S for copy-move and D for splice: 3295 and 1828 in "
            "the revised archive; the paper's 3274 and 1849 are the counts before 39 names were "
            "changed from S to D and 60 from D to S",
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
        remedy="use the masks of github.com/SunnyHaze/CASIA2.0-Corrected-Groundtruth",
    ),
    PublishedDataset(
        name="IMD2020",
        role="training",
        tampered=2010,
        smallest="260x193",
        largest="2958x4437",
        where="IMD2020.zip, staff.utia.cas.cz/novozada/db/ (the real-life part)",
        terms="no licence stated on the page",
        layout="IMD2020/<folder>/<name>.jpg|png with <name>_mask.png next to it and one *_orig.jpg "
        "(lists of CAT-Net and TruFor)",
        image=r"(^|/)(?P<key>[^/]+/(?![^/]*(mask|orig))[^/]+)\.(jpe?g|png)$",
        mask=r"(^|/)(?P<key>[^/]+/[^/]+)_mask\.png$",
        authentic=r"(^|/)[^/]+/[^/]*orig[^/]*\.(jpe?g|png)$",
        read=as_benco,
        rule="white above 127.5 (CAT-Net and TruFor: above 0)",
        benco_side=1024,
        unverified=("the values in the masks; the report counts their grey pixels",),
        notes=("the mask of z14/00030_fake differs in size from its image",),
        known_faults=frozenset(["00030_fake"]),
        remedy=f"use images/00030_fake_mask.png of {CORRECTIONS} if it has the right size",
    ),
    PublishedDataset(
        name="FantasticReality",
        role="training",
        tampered=19423,
        smallest="500x333",
        largest="6000x4000",
        where="zefirus.org/MAG (offline); a link in github.com/mjkwon2021/CAT-Net issue 51",
        terms="not seen; reportedly set by the authors",
        layout="FantasticReality_v1/dataset/ColorFakeImages/<stem>.jpg with "
        "SegmentationFake/<stem>.npz, ColorRealImages/ (CAT-Net, SAFIRE)",
        image=r"(^|/)ColorFakeImages/(?P<key>[^/]+)\.jpe?g$",
        mask=r"(^|/)SegmentationFake/(?P<key>[^/]+)\.npz$",
        authentic=r"(^|/)ColorRealImages/[^/]+\.jpe?g$",
        read=nonzero_is_tampered,
        rule="any class number above 0 in the array arr_0",
        list_name="FantasticReality",
        unverified=("the type and the extra dimension of the arrays", "the terms"),
        notes=("CAT-Net's lists contain 18098 of the 19423 images",),
    ),
    PublishedDataset(
        name="TampCOCO",
        role="training",
        tampered=800_000,
        smallest="72x51",
        largest="640x640",
        where="kaggle.com/datasets/qsii24/tampcoco (13 parts)",
        terms="CC-BY 4.0, and COCO's terms for the photos",
        layout="tampCOCO/{sp,cm,bcm,bcmc}_images/, {sp,cm,bcm}_masks/ and "
        "{sp,cm,bcm,bcmc}_COCO_list.txt of 'image,mask' lines (CAT-Net; lists at the top level: "
        "Mesorch issue 23)",
        image=r"(^|/)(?P<part>sp|cm|bcm|bcmc)_images/(?P<key>[^/]+)\.jpg$",
        mask=r"(^|/)(sp|cm|bcm)_masks/[^/]+\.png$",
        authentic="",
        parts=("sp", "cm", "bcm", "bcmc"),
        list_name="{part}_COCO_list",
        types={"sp": SPLICE, "cm": COPY_MOVE, "bcm": COPY_MOVE, "bcmc": COPY_MOVE},
        read=nonzero_is_tampered,
        rule="above 0 (loaders map values above 1 to 1 and keep 0 and 1)",
        unverified=(
            "the values in the masks",
            "the full lists: only the validation lists were read",
        ),
        notes=(
            "the paper's 800000 is nominal: the lists contain about 799441 lines, some of them "
            "repeated and some naming missing files",
            "bcmc has no masks: its list names those of bcm",
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
        terms="none stated; asks for a citation",
        layout="'CASIA 1.0 dataset/Modified Tp/Tp/{CM,Sp}/<stem>.jpg' with "
        "'CASIA 1.0 groundtruth/{CM,Sp}/<stem>_gt.png' (the masks' zip; SAFIRE; IML-ViT issue 10)",
        image=r"((^|/)(?P<part>CM|Sp)/)?(?P<key>Sp_[DS]_[^/]+)\.jpe?g$",
        mask=r"((^|/)(?P<part>CM|Sp)/)?(?P<key>Sp_[DS]_[^/]+?)(_gt)?\.png$",
        authentic=r"(^|/)Au_[^/]+\.jpe?g$",
        read=as_benco,
        rule="white above 127.5 (one published mask also contains 52, 64 and 76)",
        types={r"Sp_S_[^/]+$": COPY_MOVE, r"Sp_D_[^/]+$": SPLICE},
        unverified=(
            "the sizes of the images",
            "the folder names inside 'Modified Tp'",
            "that S (copy-move) and D (splice) in the names match the folders CM and Sp",
        ),
        notes=("Sp_D_NRN_A_cha0011_sec0011_0542 has no mask and is omitted: 920 images, not 921",),
    ),
    PublishedDataset(
        name="Columbia",
        role="test",
        tampered=180,
        smallest="757x568",
        largest="1152x768",
        where="ee.columbia.edu/ln/dvmm/downloads/authsplcuncmp/ (a form)",
        terms="the form was not seen; a related dataset is for research only, no redistribution",
        layout="'Columbia Uncompressed Image Splicing Detection'/4cam_splc/<stem>.tif with "
        "4cam_splc/edgemask/<stem>_edgemask.jpg, 4cam_auth/ (SAFIRE, PhotoHolmes)",
        image=r"(^|/)(?P<key>[a-z0-9]+_[a-z][a-z0-9]+_sub_\d+)\.(tiff?|bmp)$",
        mask=r"(^|/)edgemask/(?P<key>[a-z0-9]+_[a-z][a-z0-9]+_sub_\d+)_edgemask\.jpg$",
        authentic=r"(^|/)[a-z0-9]+_\d+_sub_\d+\.(tiff?|bmp)$",
        read=green_is_tampered,
        rule="green above 120 and above red (red and green JPEGs: 255 near the splice boundary, "
        "200 elsewhere)",
        types={"": SPLICE},
        unverified=(
            "that green is the spliced part in all 180 masks (nearly every loader assumes so)",
            "that *_edgemask_3.jpg can be ignored",
        ),
    ),
    PublishedDataset(
        name="Coverage",
        role="test",
        tampered=100,
        smallest="334x190",
        largest="752x472",
        where="links in github.com/wenbihan/coverage",
        terms="non-commercial research; asks for a citation",
        layout="COVERAGE/image/Nt.tif with mask/Nforged.tif; image/N.tif is authentic "
        "(PhotoHolmes, lists of CAT-Net)",
        image=r"(^|/)(?P<key>\d+)t\.tiff?$",
        mask=r"(^|/)(?P<key>\d+)forged\.tiff?$",
        authentic=r"(^|/)image/\d+\.tiff?$",
        read=as_benco,
        rule="white above 127.5 (other loaders: above 120 or 125)",
        types={"": COPY_MOVE},
        unverified=(
            "the modes and values of the masks",
            "the sizes of the nine masks that do not fit",
        ),
        notes=("the masks of 41, 48, 55 to 59, 61 and 95 differ in size from their images",),
        known_faults=frozenset(f"{n}t" for n in (41, 48, 55, 56, 57, 58, 59, 61, 95)),
        remedy=f"use the corrected masks linked in {CORRECTIONS}",
    ),
    PublishedDataset(
        name="NIST16",
        role="test",
        tampered=564,
        smallest="500x500",
        largest="5616x3744",
        where="NIST's Media Forensics Challenge site (registration), NC2016_Test0613",
        terms="NIST's data agreement: no redistribution",
        layout="NC2016_Test0613/reference/manipulation/NC2016-manipulation-ref.csv names the "
        "image and mask of each row, relative to the top folder; tampered if IsTarget is Y "
        "(MediScore's copy of the table, TruFor, SAFIRE)",
        image=r"(^|/)probe/[^/]+\.jpe?g$",
        mask=r"(^|/)reference/manipulation/mask/[^/]+\.png$",
        authentic="",
        table="reference/manipulation/nc2016-manipulation-ref.csv",
        read=black_is_tampered,
        rule="black below 127.5, BenCo's threshold on the negative (SAFIRE: below 180, NIST's "
        "scorer: all but white)",
        types={
            "ismanipulationtypecopyclone": COPY_MOVE,
            "ismanipulationtypesplice": SPLICE,
            "ismanipulationtyperemoval": REMOVAL,
        },
        benco_side=1024,
        unverified=(
            "the share of grey pixels in the masks, where these three thresholds differ (see the "
            "report)",
            "the delimiter of the table in the released archive (both | and , are accepted)",
            "that the released table has the type columns of MediScore's copy",
        ),
        notes=(
            "each mask belongs to two images and is written for both",
            "types are taken from the table: MediScore's copy has 68 copy-move (CopyClone), 288 "
            "splice and 208 removal images, the paper 236, 225 and 103",
        ),
    ),
    PublishedDataset(
        name="CocoGlide",
        role="test",
        tampered=512,
        smallest="256x256",
        largest="256x256",
        where="CocoGlide.zip, grip.unina.it/download/prog/TruFor/",
        terms="COCO licences per image (licenses.json); TruFor's licence covers its software",
        layout="CocoGlide/fake/glide_inpainting_val2017_<id>_up.png with "
        "mask/<class>_<id>_mask.png, real/<class>_<id>.png (TruFor's lists)",
        image=r"(^|/)glide_inpainting_val2017_0*(?P<key>\d+)_up\.png$",
        mask=r"(^|/)mask/[^/]+?_0*(?P<key>\d+)_mask\.png$",
        authentic=r"(^|/)real/[^/]+\.png$",
        read=as_benco,
        rule="white above 127.5",
        types={"": AI_GENERATED},
        unverified=("the values in the masks: 0 and 255 according to a third party",),
        notes=(
            "paired by COCO id, since sorting by name would pair 511 of the 512 images wrongly",
        ),
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
            "the values and sizes of the masks",
            "that each Forged_JPEG folder contains 3621 images",
            "which quality the paper used: 100 unless --jpeg-quality is given",
        ),
        notes=("a mask belongs to all images of its id and is written for each of them",),
    ),
)

DATASETS = {dataset.name: dataset for dataset in TABLE}


def dataset_named(name: str) -> tuple[PublishedDataset | None, str]:
    """Find the dataset and the subset that a name refers to, ignoring case.

    Args:
        name: Name of a dataset or of a subset's list, such as ``sp_COCO_list``.

    Returns:
        The dataset, None if no dataset has this name; and its subset, ``""`` for the whole.
    """
    for dataset in TABLE:
        if name.lower() == dataset.name.lower():
            return dataset, ""
        for part in dataset.parts:
            if name.lower() == dataset.list_name.format(part=part).lower():
                return dataset, part
    return None, ""


def count_types(types: Iterable[str | None]) -> dict[str, int] | None:
    """Count the images of each type in :data:`TYPES`; return None if any type is unknown."""
    counts = Counter(types)
    return None if None in counts else {name: counts[name] for name in TYPES}


def published_facts() -> str:
    """Format the table for printing."""
    lines = []
    for item in TABLE:
        lines += [
            f"{item.name} ({item.role}, {item.tampered} tampered images in the paper)",
            f"  published: {item.where}",
            f"  terms: {item.terms}",
            f"  layout: {item.layout}",
            f"  tampered pixels: {item.rule}",
            f"  --max-side: {item.max_side_rule()}",
            f"  tested on: {item.verified_on}",
            *(f"  not verified: {line}" for line in item.unverified),
            *(f"  note: {line}" for line in item.notes),
        ]
    return "\n".join(lines)
