"""Small datasets, archives and files that several test modules build.

The sections are: images and masks; unreadable files; datasets in BenCo's formats; a dataset with
every fault; the published archives; photos for synthesis; test sets and results; pretrained
weights under other names.
"""

import io
import json
import shutil
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from conftest import photograph

# Images and masks


def save_image(path: Path, pixels: np.ndarray, **options) -> None:
    """Write pixels in the format of the suffix and create missing folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


H, W = 48, 64  # Size of the images in the archives.


def save_photograph(path: Path, seed: int, height: int = H, width: int = W, **options) -> None:
    """Write a photo that differs for every seed."""
    save_image(path, photograph(height, width, seed), **options)


def rectangle(size: tuple[int, int], value: int = 255) -> np.ndarray:
    """Return a uint8 mask of size (height, width) with a rectangle of one value on 0."""
    mask = np.zeros(size, np.uint8)
    mask[10:25, 10:30] = value
    return mask


def region(seed: int, height: int = H, width: int = W) -> np.ndarray:
    """Return a bool mask with a rectangle on a 16-pixel grid, which keeps its edges in JPEG."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), bool)
    y, x = 16 * rng.integers(0, (height // 16 - 1, width // 16 - 1))
    mask[y : y + 32, x : x + 16] = True
    return mask


def white(mask: np.ndarray, channels: int = 1) -> np.ndarray:
    """Convert a bool mask to 0 and 255, as grayscale, RGB or opaque RGBA."""
    grey = np.where(mask, 255, 0).astype(np.uint8)
    if channels == 1:
        return grey
    coloured = np.repeat(grey[..., None], channels, axis=-1)
    coloured[..., 3:] = 255
    return coloured


def set_orientation(path: Path, orientation: int = 6) -> None:
    """Set the EXIF orientation of a JPEG; viewers rotate 6 by 90 degrees."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.open(path).save(path, exif=exif, quality=95)


# Unreadable files


def truncate(path: Path) -> None:
    """Remove the second half of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def bomb() -> bytes:
    """Return a PNG of a few bytes that claims 40,000 x 40,000 pixels in its header."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", 40000, 40000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def broken_photographs(folder: Path) -> dict[str, str]:
    """Write unreadable files; return a part of the expected error message by file name."""
    buffer = io.BytesIO()
    Image.fromarray(photograph(200, 200)).save(buffer, format="jpeg")
    jpeg = buffer.getvalue()
    (folder / "folder.jpg").mkdir()
    files = {
        "text.jpg": (b"this is a text", "it is a text"),
        "zero.jpg": (b"", "it is empty (0 bytes)"),
        "post.jpg": (
            b"%!PS-Adobe-3.0 EPSF-3.0\n",
            "it is PostScript (EPS)",
        ),
        "cut.jpg": (jpeg[:300], "cannot be decoded (Truncated File Read"),
        "bomb.png": (bomb(), "claims 40000x40000 pixels"),
        "fake.tif": (b"II*\0" + b"\0" * 40, "TIFF"),
    }
    for name, (data, _) in files.items():
        (folder / name).write_bytes(data)
    reasons = {name: reason for name, (_, reason) in files.items()}
    return reasons | {"folder.jpg": "it is a folder", "absent.jpg": "No such file"}


# Datasets in BenCo's formats


def write_pair(
    folder: Path,
    stem: str,
    seed: int = 0,
    size: tuple[int, int] = (40, 60),
    *,
    mask_name: str | None = None,
    image_suffix: str = ".jpg",
) -> tuple[Path, Path]:
    """Write a valid pair of size (height, width) to Tp/ and Gt/; return both paths."""
    image, mask = folder / f"Tp/{stem}{image_suffix}", folder / f"Gt/{mask_name or stem}.png"
    save_image(image, photograph(*size, seed))
    save_image(mask, rectangle(size))
    return image, mask


def write_dataset(folder: Path, count: int = 2) -> list[list[str]]:
    """Write valid pairs of 32x32 pixels to Tp/ and Gt/; return the rows of a list of them."""
    for part in ("Tp", "Gt"):
        (folder / part).mkdir(parents=True)
    pairs = [write_pair(folder, str(i), seed=i, size=(32, 32)) for i in range(count)]
    return [[str(image), str(mask)] for image, mask in pairs]


def write_protocols_datasets(root: Path) -> None:
    """Write every dataset of both protocols like ``data prepare``, with two images each."""
    names = "CASIAv2 IMD2020 CASIAv1 Columbia Coverage NIST16 CocoGlide AutoSplice"
    for name in names.split():
        write_dataset(root / name)
    rows = write_dataset(root / "FantasticReality")
    (root / "FantasticReality/FantasticReality.json").write_text(json.dumps(rows))
    for part in ("sp", "cm", "bcm", "bcmc"):
        rows = write_dataset(root / "TampCOCO" / part)
        (root / f"TampCOCO/{part}_COCO_list.json").write_text(json.dumps(rows))


# A dataset with every fault


def one_of_each_fault(folder: Path) -> set[tuple[str, str]]:
    """Fill Tp/ and Gt/ with one of each fault; return the expected {(name, problem)}."""
    expected = set()

    def pair(stem, *problems, **options):
        expected.update(problems)
        return write_pair(folder, stem, seed=len(list(folder.glob("Tp/*"))), **options)

    pair("good")
    pair("suffixed", mask_name="suffixed_gt")
    image, _ = pair("cut", ("cut.jpg", "unreadable"))
    truncate(image)
    _, mask = pair("cutmask", ("cutmask.png", "unreadable"))
    truncate(mask)
    image, _ = pair("zero", ("zero.jpg", "unreadable"))
    image.write_bytes(b"")
    image, _ = pair("text", ("text.jpg", "unreadable"))
    image.write_text("this is not an image")
    _, mask = pair("small", ("small.jpg", "size-mismatch"))
    Image.fromarray(rectangle((30, 40))).save(mask)
    _, mask = pair("turned", ("turned.jpg", "size-mismatch"))
    Image.fromarray(rectangle((60, 40))).save(mask)
    for name, value in (("ones", 1), ("classes", 7)):
        _, mask = pair(name, (f"{name}.png", "mask-values"))
        Image.fromarray(rectangle((40, 60), value)).save(mask)
    _, mask = pair("greys", ("greys.png", "mask-values"))
    Image.fromarray(photograph(40, 60, 3)[..., 0]).save(mask)
    _, mask = pair("colours", ("colours.png", "mask-values"))
    coloured = np.zeros((40, 60, 3), np.uint8)
    coloured[..., 0], coloured[10:20, 10:20] = 200, (0, 200, 0)
    Image.fromarray(coloured).save(mask)
    _, mask = pair("palette", ("palette.png", "mask-values"))
    Image.fromarray(coloured).quantize(4).save(mask)
    _, mask = pair("deep", ("deep.png", "mask-values"))
    Image.fromarray(rectangle((40, 60)).astype(np.uint16) * 257).save(mask)
    _, mask = pair("array", ("array.npz", "mask-values"))
    np.savez(mask.with_suffix(".npz"), rectangle((40, 60), 1)[None])
    mask.unlink()
    _, mask = pair("inverted", ("inverted.png", "mask-inverted"))
    Image.fromarray(255 - rectangle((40, 60))).save(mask)
    _, mask = pair("empty", ("empty.png", "empty-mask"))
    Image.fromarray(rectangle((40, 60), 0)).save(mask)
    image, mask = pair("exif", ("exif.jpg", "exif-orientation"))
    set_orientation(image)
    image, mask = pair("exifmask", ("exifmask.jpg", "exif-orientation"))
    set_orientation(image)
    Image.fromarray(np.rot90(rectangle((40, 60)), -1)).save(mask)
    for name, mode in (("cmyk", "CMYK"), ("grey", "L"), ("alpha", "RGBA"), ("deepimage", "I;16")):
        image, _ = pair(name, (f"{name}.tif", "colour-mode"), image_suffix=".tif")
        opened = Image.open(image)
        if mode == "I;16":
            opened = Image.fromarray(np.asarray(opened.convert("L")).astype(np.uint16) * 257)
        (opened if mode == "I;16" else opened.convert(mode)).save(image)
    first, _ = pair("twin1")
    second, _ = pair("twin2", ("twin2.jpg", "duplicate"))
    second.write_bytes(first.read_bytes())
    _, mask = pair("nomask", ("nomask.jpg", "unpaired"))
    mask.unlink()
    image, _ = pair("noimage", ("noimage.png", "unpaired"))
    image.unlink()
    (folder / "Tp/.DS_Store").write_bytes(b"\0")
    expected.add((".DS_Store", "unpaired"))
    return expected


# The published archives, each with its known faults. Each function fills the folder of an unpacked
# archive. It returns the mask (bool) of every usable image by its path in the output folder, and a
# part of the reason for every image that is left out by the end of its name.


def casiav2(root: Path) -> tuple[dict, dict]:
    """Pairs by stem and one by its digits alone; two masks differ in size from their images."""
    top = root / "download" / "CASIA2.0_revised"
    masks = root / "download" / "CASIA2.0_Groundtruth"
    truth = {}
    for seed, (stem, suffix, mask_name, channels) in enumerate(
        [
            ("Tp_D_CRN_S_N_cha00063_art00014_11818", "jpg", "", 1),
            ("Tp_S_NNN_S_N_ani20009_ani20009_02052", "tif", "", 4),
            ("Tp_S_CNN_M_N_ind00091_ind00091_10647", "jpg", "Tp_D_CNN_M_N_ind0091_10647_gt", 3),
            (
                "Tp_D_NRD_S_N_cha10002_cha10001_20094",
                "tif",
                "Tp_D_NRD_S_N_cha10002_cha10001_20094_gt3",
                1,
            ),
        ]
    ):
        save_photograph(top / "Tp" / f"{stem}.{suffix}", seed)
        save_image(masks / f"{mask_name or stem + '_gt'}.png", white(region(seed), channels))
        truth[f"Tp/{stem}.{suffix}"] = region(seed)
    save_photograph(top / "Tp/Tp_D_CNN_M_N_sec00011_cha00085_11227.jpg", 7)
    save_image(masks / "Tp_D_CNN_M_N_sec00011_cha00085_11227_gt.png", white(region(7, W, H)))
    save_photograph(top / "Tp/Tp_S_NNN_S_N_sec00074_sec00074_00751.tif", 8)
    save_image(masks / "Tp_S_NNN_S_N_sec00074_sec00074_00751_gt.png", white(region(8)[:, :-1]))
    save_photograph(top / "Au/Au_ani_00001.jpg", 9)
    (top / "Tp/Thumbs.db").write_bytes(b"junk")
    (top / "tp_list.txt").write_text("Tp_D_CRN_S_N_cha00063_art00014_11818.jpg")
    (root / "__MACOSX").mkdir()
    (root / "__MACOSX/Tp_D_CRN_S_N_cha00063_art00014_11818.jpg").write_bytes(b"junk")
    return truth, {"11227.jpg": "known fault", "00751.tif": "known fault"}


def casiav1(root: Path) -> tuple[dict, dict]:
    """Pairs by stem or by parts of the names in one folder of images and two of masks."""
    names = {
        # By stem: a copy-move, a splice with a dot, a mask with gray pixels.
        "Sp_S_NNN_A_ani0001_ani0001_0001": "CM/Sp_S_NNN_A_ani0001_ani0001_0001",
        "Sp_D_NNN_A_ani0099_ani0100.0288": "Sp/Sp_D_NNN_A_ani0099_ani0100.0288",
        "Sp_D_NNN_R_cha0084_sec0061_0369": "Sp/Sp_D_NNN_R_cha0084_sec0061_0369",
        # The original name has S for D and a dot, or the two sources in reverse order.
        "Sp_S_NRD_A_ani0040_ani0054.0257": "Sp/Sp_D_NRD_A_ani0040_ani0054_0257",
        "Sp_D_NRN_A_ani0034_nat0069_0414": "Sp/Sp_D_NRN_A_nat0069_ani0034_0414",
        # A source is misspelled or wrong.
        "Sp_D_NRN_A_ant0063_nat0065_0443": "Sp/Sp_D_NRN_A_nat0063_nat0065_0443",
        "Sp_D_NNN_A_sec0049_sec0049_0117": "Sp/Sp_D_NNN_A_sec0049_sec0050_0117",
    }
    truth = {}
    for seed, (image, mask_name) in enumerate(names.items()):
        save_photograph(root / f"CASIA1/Sp/{image}.jpg", seed)
        mask = white(region(seed), 3)
        if "0369" in image:
            mask[0, :3] = [[52] * 3, [64] * 3, [76] * 3]
        save_image(root / f"CASIA 1.0 groundtruth/{mask_name}_gt.png", mask)
        truth[f"Tp/{image}.jpg"] = region(seed)
    lonely = "Sp_D_NRN_A_sce0011_cha0011_0542.jpg"
    save_photograph(root / f"CASIA1/Sp/{lonely}", 15)
    save_photograph(root / "CASIA1/Au/Au_ani_0001.jpg", 16)
    rotated = "Sp_D_CNN_A_sec0012_ani0007_0275"
    save_photograph(root / f"CASIA1/Sp/{rotated}.jpg", 17)
    save_image(root / f"CASIA 1.0 groundtruth/Sp/{rotated}_gt.png", white(region(17, W, H)))
    return truth, {lonely: "has no mask", f"{rotated}.jpg": "known fault"}


def imd2020(root: Path) -> tuple[dict, dict]:
    """Masks next to their images; one has another size."""
    truth = {}
    for folder, name in (("1a1ogs", "c8tf5mj_0.png"), ("z3", "00003_fake.jpg")):
        seed = len(truth)
        save_photograph(root / f"IMD2020/{folder}/{name}", seed)
        stem = name.split(".")[0]
        save_image(root / f"IMD2020/{folder}/{stem}_mask.png", white(region(seed), 4))
        save_photograph(root / f"IMD2020/{folder}/{stem.split('_')[0]}_orig.jpg", seed)
        truth[f"Tp/{name}"] = region(seed)
    save_photograph(root / "IMD2020/z14/00030_fake.jpg", 5)
    save_image(root / "IMD2020/z14/00030_fake_mask.png", white(region(5, 64, 80)))
    return truth, {"00030_fake.jpg": "known fault"}


def fantastic(root: Path) -> tuple[dict, dict]:
    """Masks as arrays of class numbers; one is truncated."""
    top = root / "FantasticReality_v1/dataset"
    (top / "SegmentationFake").mkdir(parents=True)
    truth = {}
    for seed, kind in enumerate((np.uint8, np.int64)):
        stem = f"IMG_000000{seed}_IMG_0000009"
        save_photograph(top / f"ColorFakeImages/{stem}.jpg", seed)
        classes = region(seed).astype(kind)[..., None] * 7
        np.savez_compressed(top / f"SegmentationFake/{stem}.npz", classes)
        truth[f"Tp/{stem}.jpg"] = region(seed)
    save_photograph(top / "ColorFakeImages/IMG_0000005_IMG_0000009.jpg", 5)
    (top / "SegmentationFake/IMG_0000005_IMG_0000009.npz").write_bytes(b"PK truncated")
    save_photograph(top / "ColorRealImages/IMG_0000001.jpg", 6)
    return truth, {"IMG_0000005_IMG_0000009.jpg": "cannot be decoded"}


def tampcoco(root: Path) -> tuple[dict, dict]:
    """Pairs by lists of four subsets; one line is repeated, one file missing and one empty."""
    top = root / "tampCOCO"
    pair = "9{}_000000000001.{e}_000000000002.{e}{}.{e}"
    names = {
        "sp": [(0, "_RT-32.0_RS0.95"), (1, "")],
        "cm": [(2, "")],
        "bcm": [(3, "_RT12.2")],
    }
    truth, lists = {}, {part: [] for part in ("sp", "cm", "bcm", "bcmc")}
    for part, rows in names.items():
        for seed, change in rows:
            jpg, png = pair.format(seed, change, e="jpg"), pair.format(seed, change, e="png")
            save_photograph(top / f"{part}_images/{jpg}", seed)
            mask = region(seed).astype(np.uint8) * (1 if part == "cm" else 255)
            save_image(top / f"{part}_masks/{png}", mask)
            lists[part].append(f"{part}_images/{jpg},{part}_masks/{png}")
            truth[f"{part}/Tp/{jpg}"] = region(seed)
    quality = "93_000000000001_aligned_Q76.jpg_000000000002_aligned_Q76.jpg_RT12.2_aligned_Q76.jpg"
    save_photograph(top / f"bcmc_images/{quality}", 13)
    lists["bcmc"].append(f"bcmc_images/{quality},bcm_masks/{pair.format(3, '_RT12.2', e='png')}")
    truth[f"bcmc/Tp/{quality}"] = region(3)
    lists["sp"].append(lists["sp"][0])
    missing = pair.format(8, "", e="jpg")
    lists["cm"].append(f"cm_images/{missing},cm_masks/{pair.format(8, '', e='png')}")
    empty = pair.format(7, "", e="jpg")
    (top / f"cm_images/{empty}").write_bytes(b"")
    save_image(top / f"cm_masks/{pair.format(7, '', e='png')}", white(region(7)))
    lists["cm"].append(f"cm_images/{empty},cm_masks/{pair.format(7, '', e='png')}")
    for part, lines in lists.items():
        (top / f"{part}_COCO_list.txt").write_text("\n".join(lines) + "\n")
    return truth, {missing: "is listed but missing", empty: "empty (0 bytes)"}


def columbia(root: Path) -> tuple[dict, dict]:
    """Red and green JPEG masks next to others that must be ignored."""
    top = root / "Columbia Uncompressed Image Splicing Detection"
    truth = {}
    for seed, stem in enumerate(("canong3_canonxt_sub_01", "nikond70_kodakdcs330_sub_30")):
        save_photograph(top / f"4cam_splc/4cam_splc/{stem}.tif", seed)
        colours = np.zeros((H, W, 3), np.uint8)
        colours[..., 0] = np.where(region(seed), 0, 200)
        colours[..., 1] = np.where(region(seed), 200, 0)
        colours[16:32] = np.where(colours[16:32] > 0, 255, 0)
        edges = top / "4cam_splc/4cam_splc/edgemask"
        save_image(edges / f"{stem}_edgemask.jpg", colours, quality=90)
        save_image(edges / f"{stem}_edgemask_3.jpg", 255 - colours)
        truth[f"Tp/{stem}.tif"] = region(seed)
    save_photograph(top / "4cam_auth/canong3_02_sub_01.tif", 5)
    save_image(top / "4cam_auth/edgemask/canong3_02_sub_01_edgemask.jpg", colours)
    return truth, {}


def coverage(root: Path) -> tuple[dict, dict]:
    """Bright masks next to those of the copied regions; one has another size."""
    truth = {}
    for number in (1, 2, 10):
        save_photograph(root / f"COVERAGE/image/{number}.tif", 100 + number)
        save_photograph(root / f"COVERAGE/image/{number}t.tif", number)
        for kind, mask in (
            ("forged", region(number)),
            ("copy", ~region(number)),
        ):
            save_image(
                root / f"COVERAGE/mask/{number}{kind}.tif", np.where(mask, 240, 9).astype("u1")
            )
        truth[f"Tp/{number}t.tif"] = region(number)
    save_photograph(root / "COVERAGE/image/41t.tif", 41)
    save_image(root / "COVERAGE/mask/41forged.tif", white(region(41, 64, 80)))
    (root / "COVERAGE/label").mkdir()
    (root / "COVERAGE/label/1.mat").write_bytes(b"")
    return truth, {"41t.tif": "known fault"}


def nist16(root: Path) -> tuple[dict, dict]:
    """Black masks and types by a table; each mask belongs to two images, one image is missing."""
    top = root / "NC2016_Test0613"
    manipulations = [f"IsManipulationType{name}" for name in ("Removal", "Splice", "CopyClone")]
    rows = [["TaskID", "ProbeFileName", "ProbeMaskFileName", "IsTarget", *manipulations]]
    truth = {}
    for seed, stem in enumerate(("NC2016_5310", "NC2016_1504")):
        mask = f"reference/manipulation/mask/{9 - seed}_mask.png"
        inverted = np.where(region(seed), 0, 255).astype(np.uint8)
        inverted[-1, :2] = 127, 128
        expected = region(seed)
        expected[-1, :2] = True, False
        save_image(top / mask, inverted)
        for post in ("", "b"):
            save_photograph(top / f"probe/{stem}{post}.jpg", seed + 3 * len(post))
            flags = ("N", "Y", "N") if seed == 0 else ("Y", "N", "N")
            rows.append(["manipulation", f'"probe/{stem}{post}.jpg"', mask, "Y", *flags])
            truth[f"Tp/{stem}{post}.jpg"] = expected
    save_photograph(top / "probe/NC2016_0001.jpg", 7)
    rows.append(rows[-1])
    rows.append(["manipulation", "probe/NC2016_0001.jpg", "", "N", "N", "N", "N"])
    rows.append(["manipulation", "probe/NC2016_0002.jpg", mask, "Y", *"NNY", "one field too many"])
    table = top / "reference/manipulation/NC2016-manipulation-ref.csv"
    table.write_text("\n".join("|".join(row) for row in rows))
    (top / "reference/splice").mkdir()
    (top / "reference/splice/NC2016-splice-ref.csv").write_text("not|this|one")
    return truth, {"NC2016_0002.jpg": "is named in the table but missing"}


def cocoglide(root: Path) -> tuple[dict, dict]:
    """Pairs by COCO id, which sorting by name would pair wrongly."""
    top = root / "CocoGlide"
    truth = {}
    for seed, (kind, number) in enumerate((("dining table", "100510"), ("airplane", "87038"))):
        name = f"glide_inpainting_val2017_{number}_up.png"
        save_photograph(top / f"fake/{name}", seed)
        save_photograph(top / f"real/{kind}_{number}.png", seed + 5)
        save_image(top / f"mask/{kind}_{number}_mask.png", white(region(seed)))
        truth[f"Tp/{name}"] = region(seed)
    (top / "licenses.json").write_text("{}")
    return truth, {}


def autosplice(root: Path) -> tuple[dict, dict]:
    """One mask for all images of an id, in three JPEG qualities."""
    top = root / "AutoSplice"
    truth = {}
    for seed, number in enumerate(("40574", "9")):
        for quality in (100, 90, 75):
            for k in (0, 2):
                save_photograph(top / f"Forged_JPEG{quality}/{number}_{k}.jpg", seed + k + quality)
                truth[f"Tp/{number}_{k}.jpg"] = region(seed)
        save_image(top / f"Mask/{number}_mask.png", white(region(seed)))
        save_photograph(top / f"Authentic/{number}.jpg", seed)
    return truth, {}


# The further test sets: pairs by name, some of them with black masks.


def _archive(root: Path, rows: list[tuple[str, str]], *, authentic: str, black: bool = False):
    """Write pairs of an image and a mask, an authentic image, and an image without a mask."""
    truth = {}
    for seed, (image, mask) in enumerate(rows):
        save_photograph(root / image, seed)
        save_image(root / mask, white(region(seed) ^ black))
        truth[f"Tp/{Path(image).name}"] = region(seed)
    if authentic:
        save_photograph(root / authentic, 9)
    lonely = Path(rows[0][0]).with_name(Path(rows[0][0]).name.replace("1", "7"))
    save_photograph(root / lonely, 8)
    return truth, {lonely.name: "has no mask"}


def dso1(root: Path) -> tuple[dict, dict]:
    """Image and mask have the same name; black pixels are tampered."""
    names = [f"splicing-{number}.png" for number in ("01", "10")]
    top = "tifs-database/DSO-1"
    rows = [(f"{top}/{name}", f"{top}-Fake-Images-Masks/{name}") for name in names]
    return _archive(root, rows, authentic=f"{top}/normal-01.png", black=True)


def realistic_tampering(root: Path) -> tuple[dict, dict]:
    """Masks with white and gray changes in the folders of two cameras."""
    cameras = [("Canon_60D", "DPP0012"), ("Sony_A57", "DSC06389")]
    folders = ("tampered-realistic/{}.TIF", "ground-truth/{}.PNG")
    rows = [
        tuple(f"data-images/{camera}/{folder.format(name)}" for folder in folders)
        for camera, name in cameras
    ]
    truth, left_out = _archive(root, rows, authentic="data-images/Canon_60D/pristine/DPP0012.TIF")
    grey = white(region(0)) // 255 * 40
    grey[:20] *= 6
    save_image(root / rows[0][1], grey)
    return truth, left_out


def comofod(root: Path) -> tuple[dict, dict]:
    """Binary masks next to colored ones, original images and post-processed versions."""
    truth, left_out = _archive(
        root, [(f"{n}_F.png", f"{n}_B.png") for n in ("001", "020")], authentic="001_O.png"
    )
    save_photograph(root / "001_F_JC1.jpg", 5)
    save_image(root / "001_M.png", white(region(0), 3))
    return truth, left_out


def grip(root: Path) -> tuple[dict, dict]:
    """Images and masks in one folder, with different endings."""
    stems = [f"forged_images/TP_C01_00{number}" for number in (1, 2)]
    return _archive(root, [(f"{s}_copy.png", f"{s}_gt.png") for s in stems], authentic="")


def openforensics(root: Path) -> tuple[dict, dict]:
    """Masks in a folder with the name of the images' folder."""
    names = [f"Test-Dev/{name}" for name in ("d1ccd04012", "8b4be51eff")]
    rows = [(f"{name}.jpg", f"Annotations_GT/Images/{name}.png") for name in names]
    return _archive(root, rows, authentic="")


def in_the_wild(root: Path) -> tuple[dict, dict]:
    """Images and masks with the same stem in two folders."""
    folders = ("label_in_wild/images/{}.jpg", "label_in_wild/masks/{}.png")
    rows = [tuple(folder.format(name) for folder in folders) for name in ("2251", "2508")]
    return _archive(root, rows, authentic="")


# The functions above by the name of the dataset.
ARCHIVES = {
    "CASIAv2": casiav2,
    "IMD2020": imd2020,
    "FantasticReality": fantastic,
    "TampCOCO": tampcoco,
    "CASIAv1": casiav1,
    "Columbia": columbia,
    "Coverage": coverage,
    "NIST16": nist16,
    "CocoGlide": cocoglide,
    "AutoSplice": autosplice,
    "DSO1": dso1,
    "RealisticTampering": realistic_tampering,
    "CoMoFoD": comofod,
    "GRIP": grip,
    "OpenForensics": openforensics,
    "InTheWild": in_the_wild,
}


# Photos for synthesis


def write_photographs(folder: Path) -> None:
    """Write eight photos, portrait and landscape, and files that cannot be used.

    The photos are in scenes/. All except number 4 have a label map of two squares in scenes_seg/.
    """
    for i in range(8):
        height, width = (80, 110) if i % 3 else (110, 70)
        labels = np.zeros((height, width), np.uint8)
        labels[15:40, 10:30] = labels[50:75, 35:60] = 3
        for name, pixels in (("scenes", photograph(height, width, i)), ("scenes_seg", labels)):
            (folder / name).mkdir(exist_ok=True)
            if (name, i) != ("scenes_seg", 4):
                cv2.imwrite(str(folder / name / f"{i}.png"), pixels)
    shutil.copy(folder / "scenes/2.png", folder / "scenes/copy_of_2.png")
    cv2.imwrite(str(folder / "small.png"), photograph(20, 20))
    (folder / "notes.txt").write_text("not a photo")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 not much of a picture")
    content = (folder / "scenes/5.png").read_bytes()
    (folder / "truncated.png").write_bytes(content[:40])  # The header is readable.


# Test sets and results


def write_set(folder: Path, count: int = 7, size: tuple[int, int] = (72, 64)) -> None:
    """Write ``count`` tampered images to Tp/ and Gt/, the first with the largest region."""
    for i in range(count):
        image, mask = photograph(*size, i), np.zeros(size, np.uint8)
        mask[20 : 60 - 5 * i, 10:50] = 255
        image[mask > 0] = photograph(*size, 50 + i)[mask > 0]
        for part, pixels in (("Tp", image), ("Gt", mask)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"{part}/{i}.png"), pixels)


def set_rows(folder: Path, count: int) -> list[list[str]]:
    """Return the rows of BenCo's JSON list for the images of :func:`write_set`."""
    return [[str(folder / f"{part}/{i}.png") for part in ("Tp", "Gt")] for i in range(count)]


def write_result(folder, name, f1, model="QMANet", flags=None, attack=None, stem="", **settings):
    """Write a result like ``evaluate``; the other metrics are derived from each image's F1."""
    from qma_net.evaluation import results
    from qma_net.evaluation.metrics import PIXEL
    from qma_net.report.collect import DEFAULTS
    from qma_net.report.paper_tables import paper_test_set

    if model == "QMANet":
        files = {"backbone_weights": "", "noiseprint_weights": "", "init_from": ""}
        flags = DEFAULTS | files | (flags or {})
    flags = flags or {}
    identity = f"{model} {sorted(flags.items())} {settings.get('checkpoint', 'run/c.pth')}"
    header = {
        "set": name,
        "path": f"data/{name}",
        "files_sha256": f"{len(f1)} images",
        "model": model,
        "model_flags": flags,
        "checkpoint": "run/c.pth",
        "checkpoint_sha256": f"{abs(hash(identity)):x}",
        "fit": "resize",
        "image_size": 512,
        "batch_size": 4,
        "attack": {"name": attack[0], "level": attack[1]} if attack else None,
        "versions": {"qma-net": "0.1.0"},
    }
    rows = []
    for i, value in enumerate(f1):
        measured = dict.fromkeys(PIXEL, value)
        measured |= {"iou": value / (2 - value), "auc": (1 + value) / 2, "marked": 0.1}
        path = f"data/{paper_test_set(name) or name}/Tp/{i}.png"
        row = {"index": i, "name": f"{i}.png", "label": 1, "path": path, "score": value}
        rows.append(row | measured | {"score_source": "pred_label"})
    results.write_result(folder, stem or name, header | settings, rows)


def write_training_log(folder: Path, end: str = "") -> None:
    """Write BenCo's ``log.txt`` of three epochs, followed by the incomplete line ``end``."""
    folder.mkdir()
    log = [{"train_lr": 1e-4 * i, "train_seg_loss": 1 - i / 9, "epoch": i} for i in range(3)]
    (folder / "log.txt").write_text("\n".join(map(json.dumps, log)) + "\n" + end)


# Pretrained weights under other names


def official_names(state):
    """Rename the parameters of a MiT to the names of the official repository."""
    names = {
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        "attention.q_proj": "attn.q",
        "attention.k_proj": "attn.k",
        "attention.v_proj": "attn.v",
        "attention.o_proj": "attn.proj",
        "attention.sequence_reduction.sequence_reduction": "attn.sr",
        "attention.sequence_reduction.layer_norm": "attn.norm",
    }
    official = {}
    for name, tensor in state.items():
        _, stage, rest = name.split(".", 2)
        stage = int(stage) + 1
        if rest.startswith("patch_embeddings."):
            rest = rest.removeprefix("patch_embeddings.").replace("layer_norm", "norm")
            official[f"patch_embed{stage}.{rest}"] = tensor
        elif rest.startswith("layer_norm."):
            official[f"norm{stage}.{rest.removeprefix('layer_norm.')}"] = tensor
        else:
            for ours, theirs in names.items():
                rest = rest.replace(ours, theirs)
            official[f"block{stage}.{rest.removeprefix('blocks.')}"] = tensor
    for name in [n for n in official if ".attn.k." in n]:
        value = official.pop(name.replace(".attn.k.", ".attn.v."))
        official[name.replace(".attn.k.", ".attn.kv.")] = torch.cat([official.pop(name), value])
    return official
