"""Reading photos: real encoded files of every format, and files that are not photos."""

import io
import random
import struct
import sys
from contextlib import suppress

import cv2
import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from conftest import photograph
from qma_net.examine.metadata import read_facts
from qma_net.inference.photograph import PhotographError, read_photograph
from sample_archives import bomb, broken_photographs


def encoded(image, suffix, **options):
    data = io.BytesIO()
    image.save(data, format=suffix, **options)
    return data.getvalue()


@pytest.fixture
def pixels():
    return photograph(40, 60)


def test_all_sources_give_the_same_pixels_and_a_name(pixels, tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    with open(path, "rb") as file:
        sources = [path, str(path), path.read_bytes(), file, Image.open(path), pixels]
        names = [str(path), str(path), "bytes", str(path), str(path), "array"]
        for source, name in zip(sources, names, strict=True):
            read = read_photograph(source)
            assert (read.pixels == pixels).all()
            assert read.pixels.dtype == np.uint8
            assert (read.name, read.notes) == (name, ())
    assert read_photograph(read) is read
    assert read_photograph(path.read_bytes(), name="mine").name == "mine"


@pytest.mark.parametrize("orientation", range(2, 9))
def test_exif_orientation_is_applied(pixels, orientation):
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(pixels).transpose(undo[orientation])
    read = read_photograph(encoded(stored, "png", exif=exif))
    assert (read.pixels == pixels).all()
    assert read.notes == (f"rotated or mirrored by its EXIF orientation ({orientation})",)
    assert read.orientation == orientation


def test_alpha_palette_gray_and_cmyk_are_converted(pixels):
    image = Image.fromarray(pixels)
    alpha = image.copy()
    alpha.putalpha(90)
    grey = np.asarray(image.convert("L"))
    for data, expected, note in (
        (encoded(alpha, "png"), pixels, "alpha channel ignored"),
        (encoded(image.convert("L"), "jpeg", quality=100), None, "gray repeated in all channels"),
        (encoded(image.convert("L"), "png"), grey[..., None].repeat(3, 2), "gray repeated"),
        (
            encoded(image.convert("LA"), "png"),
            grey[..., None].repeat(3, 2),
            "alpha channel ignored",
        ),
        (encoded(image.quantize(256), "png"), None, "palette converted to RGB"),
        (encoded(image.convert("CMYK"), "tiff"), None, "CMYK converted to RGB"),
        (encoded(image.convert("CMYK"), "jpeg", quality=100), None, "CMYK converted to RGB"),
        (encoded(image.convert("1"), "png"), None, "black and white converted to gray"),
    ):
        read = read_photograph(data)
        assert read.pixels.shape == (40, 60, 3)
        assert read.notes[0].startswith(note)
        if expected is not None:
            assert (read.pixels == expected).all()
        elif "black" not in note:  # That one is dithered.
            reference = grey[..., None] if "gray" in note else pixels
            assert np.abs(read.pixels.astype(int) - reference).mean() < 12


def test_sixteen_bits_are_reduced_to_eight_and_noted(pixels):
    deep = pixels.astype(np.uint16) * 256 + 77
    note = "16 bits per channel reduced to 8"
    for suffix in (".png", ".tiff"):
        data = cv2.imencode(suffix, deep[..., ::-1])[1].tobytes()
        read = read_photograph(data)
        assert (read.pixels == pixels).all(), suffix
        assert read.notes == (note,)
        data = cv2.imencode(suffix, deep[..., 0])[1].tobytes()
        read = read_photograph(data)
        assert (read.pixels == pixels[..., :1]).all()
        assert read.notes == (note, "gray repeated in all channels")
    assert (read_photograph(deep).pixels == pixels).all()


def test_first_frame_of_an_animation_is_used(pixels):
    frames = [Image.fromarray(photograph(40, 60, seed)) for seed in range(3)]
    for suffix in ("webp", "png", "tiff"):
        options = {"lossless": True} if suffix == "webp" else {}
        data = encoded(frames[0], suffix, save_all=True, append_images=frames[1:], **options)
        read = read_photograph(data)
        assert (read.pixels == pixels).all(), suffix
        assert read.notes[0] == "first of 3 frames used"
    data = encoded(frames[0], "gif", save_all=True, append_images=frames[1:])
    assert read_photograph(data).notes[0] == "first of 3 frames used"


def test_heic_and_avif_are_read_with_orientation_and_metadata(pixels):
    pillow_heif = pytest.importorskip("pillow_heif", reason="the extra heif is not installed")
    pillow_heif.register_heif_opener()
    image, exif = Image.fromarray(pixels), Image.Exif()
    heic = read_photograph(encoded(image, "heif", quality=-1, chroma=444))
    assert heic.pixels.shape == pixels.shape
    assert np.abs(heic.pixels.astype(int) - pixels).mean() < 2
    assert heic.notes == ()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    # A HEIC keeps the EXIF orientation next to that of the container.
    for kind, name, stored in (("heif", "HEIC", {"Orientation": "6"}), ("avif", "AVIF", {})):
        data = encoded(image, kind, exif=exif.tobytes(), xmp=b"<x:xmpmeta/>")
        facts, read = read_facts(data), read_photograph(data)
        assert (facts.format, facts.xmp, facts.c2pa) == (name, "<x:xmpmeta/>", False)
        assert facts.exif == {"IFD0": {"Make": "Maker", **stored}}
        assert [
            note for note in facts.notes if "EXIF orientation 6 has no effect" not in note
        ] == []
        assert len(facts.notes) == (name == "HEIC")
        parts = [part.split(",")[0] for part in facts.parts]
        assert parts == ["ftyp", "meta", "mdat"]
        manifest = bytes.fromhex("d8fec3d61b0e483c92975828877ec481") + b"1234"
        for box in (b"\0\0\0\x1cuuid", b"\0\0\0\0uuid", b"\0\0\0\1uuid" + struct.pack(">Q", 36)):
            assert read_facts(data + box + manifest).c2pa, box
        broken = read_facts(data[:-10])
        assert any("damaged or truncated" in note for note in broken.notes)
        assert read.pixels.shape == (60, 40, 3)
        expected = np.rot90(pixels, -1).astype(int)
        assert np.abs(read.pixels - expected).mean() < np.abs(read.pixels - expected[::-1]).mean()
    deep = pillow_heif.from_bytes("RGB;16", (60, 40), (pixels.astype(np.uint16) * 257).tobytes())
    data = io.BytesIO()
    deep.save(data, quality=-1)
    assert read_photograph(data.getvalue()).notes == ("10 bits per channel reduced to 8",)
    other = Image.fromarray(photograph(40, 60, 1))
    data = encoded(other, "heif", save_all=True, append_images=[image], primary_index=1)
    read = read_photograph(data)
    assert np.abs(read.pixels.astype(int) - pixels).mean() < 12
    assert read.notes == ("primary image (2) of 2 used",)


def test_missing_heic_package_is_reported_with_the_extra_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    head = b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf"
    with pytest.raises(PhotographError, match=r"it is HEIC, .* pip install 'qma-net\[heif\]'"):
        read_photograph(head + b"\0" * 100, "IMG_1.HEIC")
    monkeypatch.setattr("PIL.features.check", lambda feature: feature != "avif")
    with pytest.raises(PhotographError, match=r"it is AVIF, .* pip install -U pillow"):
        read_photograph(head.replace(b"heic", b"avif") + b"\0" * 100)


def test_formats_that_no_camera_writes_are_noted(pixels):
    for kind, name in (("webp", "WebP"), ("avif", "AVIF"), ("jpeg", None), ("png", None)):
        notes = read_photograph(encoded(Image.fromarray(pixels), kind)).notes
        assert bool(notes) == bool(name)
        assert not name or notes[0].startswith(f"{name}: usually recompressed")


def test_files_that_are_not_photos_are_rejected_in_one_line(tmp_path):
    for name, reason in broken_photographs(tmp_path).items():
        with pytest.raises(PhotographError) as raised:
            read_photograph(tmp_path / name)
        message = str(raised.value)
        assert message.startswith(f"cannot read {tmp_path / name}"), message
        assert reason in message
        assert "\n" not in message


@pytest.mark.parametrize(
    "source",
    [
        3,
        None,
        np.zeros((4, 4, 3)),
        np.zeros((2, 4, 4, 3), np.uint8),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        Image.new("F", (4, 4)),
    ],
)
def test_unsupported_source_is_rejected(source):
    with pytest.raises(PhotographError, match="expected"):
        read_photograph(source)


def test_large_photo_is_read_without_changing_the_limit_of_pillow(monkeypatch, pixels):
    """Pillow's limit applies to all threads, so reading a photo must not raise it for a moment."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    limits = []
    monkeypatch.setattr(
        "qma_net.inference.photograph.exif_orientation",
        lambda *_: limits.append(Image.MAX_IMAGE_PIXELS) or 1,
    )
    for kind in ("png", "jpeg", "tiff", "webp"):
        data = encoded(Image.fromarray(pixels), kind)
        assert read_photograph(data).pixels.shape == pixels.shape
        with pytest.raises(Image.DecompressionBombError):
            Image.open(io.BytesIO(data))
    assert set(limits) == {1000}


def test_photo_beyond_our_limit_is_rejected():
    with pytest.raises(PhotographError, match="claims 40000x40000 pixels, more than 500 million"):
        read_photograph(bomb(), "bomb.png")


def test_sixteen_bit_color_tiff_is_oriented(pixels):
    """Pillow cannot read these, OpenCV ignores their orientation."""
    data = bytearray(cv2.imencode(".tiff", pixels[..., ::-1].astype(np.uint16) * 257)[1])
    start = struct.unpack_from("<I", data, 4)[0]
    (count,) = struct.unpack_from("<H", data, start)
    entries = data[start + 2 : start + 2 + 12 * count]
    orientation = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    tags = sorted(
        [orientation, *(bytes(entries[i : i + 12]) for i in range(0, 12 * count, 12))],
        key=lambda entry: struct.unpack_from("<H", entry),
    )
    directory = struct.pack("<H", count + 1) + b"".join(tags) + bytes(4)
    struct.pack_into("<I", data, 4, len(data))
    read = read_photograph(bytes(data) + directory)
    assert (read.pixels == np.rot90(pixels, -1)).all()
    assert read.orientation == 6
    assert read_facts(bytes(data) + directory).exif["IFD0"]["Orientation"] == "6"


def test_mutated_photo_is_read_or_rejected_in_one_line():
    seed, pixels = 20261124, Image.fromarray(photograph(48, 64))
    draw = random.Random(seed)
    kinds = ["jpeg", "png", "tiff", "webp", "bmp", "gif", "avif"]
    with suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener()
        kinds.append("heif")
    wholes = [encoded(pixels, kind) for kind in kinds]
    wholes += [
        encoded(pixels, "tiff", compression="tiff_lzw"),
        encoded(pixels, "jpeg", exif=exif()),
    ]
    for trial in range(400):
        data = bytearray(draw.choice(wholes))
        for _ in range(draw.choice((1, 3, 20))):
            at, length = draw.randrange(min(len(data), 600)), draw.choice((1, 2, 4, 16))
            if draw.random() < 0.6:
                data[at : at + length] = draw.randbytes(length)
            elif draw.random() < 0.5:
                del data[at : at + length]
            else:
                data[at:at] = data[at : at + length]
        try:
            lines = [read_photograph(bytes(data)).name]
        except PhotographError as error:
            lines = str(error).splitlines()
        except BaseException as error:
            raise AssertionError(f"seed {seed}, trial {trial}") from error
        assert len(lines) == 1, f"seed {seed}, trial {trial}"


def exif() -> bytes:
    """Return EXIF with an orientation, a camera and a text."""
    tags = Image.Exif()
    tags[0x0112], tags[0x010F], tags[0x9286] = 6, "camera", "x" * 200
    return tags.tobytes()


def repeated_exif(entries: int = 24, size: int = 60_000) -> bytes:
    """Return EXIF data whose entries all claim the same bytes."""
    head = b"MM\0*\0\0\0\x08" + struct.pack(">H", entries)
    start = len(head) + 12 * entries + 4
    tags = (struct.pack(">HHII", 0xF000 + i, 7, size, start) for i in range(entries))
    return head + b"".join(tags) + bytes(4 + size)


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "avif", "tiff"])
def test_exif_entries_that_claim_the_same_bytes_are_rejected(pixels, kind, monkeypatch):
    """Pillow would copy the bytes for each entry, which is gigabytes for a larger file."""
    image, block = Image.fromarray(pixels), repeated_exif()
    data = block if kind == "tiff" else encoded(image, kind, exif=b"Exif\x00\x00" + block)
    parsed = []
    monkeypatch.setattr(ImageFileDirectory_v2, "load", lambda *_: parsed.append(kind))
    with pytest.raises(PhotographError, match="EXIF entries that claim more bytes"):
        read_photograph(data)
    assert parsed == []
    read_facts(data)
    assert parsed == []
