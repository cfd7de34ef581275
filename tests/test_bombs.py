"""Small files that would cost minutes or gigabytes: each is refused or read within bounds.

The CPU times are far below those without a limit and far above those with one.
"""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from conftest import cpu_at_most, photograph
from qma_net.core.images import MAX_SCANS, ImageError, open_image
from qma_net.data.listing import ListingError, read_listings
from qma_net.examine import examine_photo, read_evidence
from qma_net.examine.metadata import read_facts
from qma_net.inference.frames import MAX_FRAMES
from qma_net.inference.photograph import PhotographError, read_photograph

MANY = f"first of more than {MAX_FRAMES} frames used"


def encoded(image, kind, **options):
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def repeated_scans(size, count):
    """Return a progressive JPEG whose last scan is repeated."""
    data = encoded(Image.new("L", size), "JPEG", progressive=True)
    last, end = data.rindex(b"\xff\xda"), len(data) - 2
    return data[:last] + data[last:end] * count + data[end:]


def claiming(data, width, height):
    """Return a JPEG whose frame header claims another size."""
    frame = data.index(b"\xff\xc0\0\x11\x08") + 5
    return data[:frame] + struct.pack(">HH", height, width) + data[frame + 4 :]


def test_repeated_scans_are_refused_before_decoding():
    """Each scan of 50 bytes takes 0.01 s at 12 megapixels."""
    data = repeated_scans((4000, 3000), 3000)
    assert len(data) < 250_000
    with cpu_at_most(8):
        with pytest.raises(PhotographError, match=f"has more than {MAX_SCANS} scans"):
            read_photograph(data)
        evidence = read_evidence(data)
    assert evidence.photograph is None
    assert f"has more than {MAX_SCANS} scans" in evidence.fault


def test_repeated_scans_in_a_thumbnail_are_refused():
    thumbnail = repeated_scans((1400, 1400), 1500)
    exif = struct.pack(">2sHIHHHI", b"MM", 42, 8, 0, 0, 0, 0)
    exif = b"MM\0*\0\0\0\x08" + struct.pack(">HI", 0, 14) + struct.pack(">H", 2)
    start = len(exif) + 2 * 12 + 4
    for tag, value in ((0x0201, start), (0x0202, len(thumbnail))):
        exif += struct.pack(">HHII", tag, 4, 1, value)
    exif = b"Exif\0\0" + exif + bytes(4) + thumbnail
    assert len(exif) < 2**16 - 2
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    data = encoded(Image.fromarray(photograph(50, 70)), "JPEG")
    with cpu_at_most(2):
        facts = read_facts(data[:2] + segment + data[2:])
    assert facts.thumbnail is None
    assert any(f"has more than {MAX_SCANS} scans" in note for note in facts.notes)


def test_progressive_photo_with_many_scans_is_read():
    data = repeated_scans((64, 64), MAX_SCANS - 10)
    assert read_photograph(data).pixels.shape == (64, 64, 3)


@pytest.mark.parametrize(("width", "height"), [(22000, 22000), (9999, 9999)])
def test_header_that_claims_more_pixels_than_the_file_can_contain_is_refused(width, height):
    """Examining the first took 13 GiB, the second 3.6 GiB."""
    small = encoded(Image.new("RGB", (16, 16)), "JPEG")
    assert len(small) < 1000
    reason = f"claims {width}x{height} pixels, which its {len(small)} bytes cannot contain"
    with pytest.raises(PhotographError, match=reason):
        read_photograph(claiming(small, width, height))
    evidence = read_evidence(claiming(small, width, height))
    assert (evidence.photograph, evidence.facts.format) == (None, "JPEG")


def test_blank_png_of_42_megapixels_is_refused():
    """122 KB that compress 126 MB of zeros."""
    height, width = 6000, 7000
    content = zlib.compress(bytes(height * (1 + 3 * width)), 9)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", content), (b"IEND", b""))
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
    assert len(data) < 130_000
    with pytest.raises(PhotographError, match="claims 7000x6000 pixels, which its"):
        read_photograph(data)


def test_tiff_that_only_opencv_reads_is_checked_as_well():
    """Pillow does not open 16-bit color, so it does not check the size either."""
    import cv2

    data = bytearray(cv2.imencode(".tiff", photograph(40, 60).astype(np.uint16) * 257)[1])
    start = struct.unpack_from("<I", data, 4)[0]
    for entry in range(struct.unpack_from("<H", data, start)[0]):
        at = start + 2 + 12 * entry
        if struct.unpack_from("<H", data, at)[0] in (256, 257):
            struct.pack_into("<HII", data, at + 2, 4, 1, 22000)
    with pytest.raises(PhotographError, match="claims 22000x22000 pixels, which its"):
        read_photograph(bytes(data))


def test_large_photo_with_little_detail_is_opened():
    """The strongest compression that a real photo has is far from the limit."""
    column = np.linspace(0, 255, 6000).astype(np.uint8)[:, None, None]
    image = Image.fromarray(np.broadcast_to(column, (6000, 8000, 3)).copy())
    data = encoded(image, "JPEG", quality=5)
    with open_image(data, max_pixels=10**9) as opened:
        assert opened.size == (8000, 6000)


def test_gif_with_millions_of_frames_is_not_walked():
    data = encoded(Image.fromarray(photograph(40, 60)), "GIF")
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
    with cpu_at_most(5):
        photo = read_photograph(data[:-1] + frame * 5 * 10**6 + b"\x3b")
    assert photo.notes[0] == MANY
    assert read_photograph(data[:-1] + frame * 2 + b"\x3b").notes[0] == "first of 3 frames used"


def test_gif_with_long_comments_is_refused():
    """Pillow takes 15 s to join 10 MB of comments, and four times as long for twice as many."""
    data = encoded(Image.new("P", (10, 10)), "GIF")
    descriptor = data.index(b"\x2c\0\0\0\0")
    comment = b"\x21\xfe" + (b"\xff" + b"x" * 255) * 40_000 + b"\0"
    short = b"\x21\xfe\x01x\0"
    for block in (comment, short * 300_000):
        with cpu_at_most(2), pytest.raises(PhotographError, match="more than 1 MiB of text"):
            read_photograph(data[:descriptor] + block + data[descriptor:])
    with cpu_at_most(2):
        evidence = read_evidence(data[:descriptor] + comment + data[descriptor:])
    assert evidence.photograph is None
    read_photograph(data[:descriptor] + short * 100 + data[descriptor:])


@pytest.mark.parametrize("is_loop", [True, False])
def test_tiff_with_many_directories_is_not_walked(is_loop):
    data = bytearray(encoded(Image.fromarray(photograph(40, 60)), "TIFF"))
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    struct.pack_into("<I", data, start + 2 + 12 * count, len(data))
    step, size = 18, 200_000
    for i in range(size):
        following = len(data) + step if i + 1 < size else (start if is_loop else 0)
        data += struct.pack("<HHHIII", 1, 256, 4, 1, 1, following)
    with cpu_at_most(10):
        photo = read_photograph(bytes(data))
        examine_photo(None, bytes(data))
    assert photo.notes[0] == MANY


def test_frames_of_ordinary_files_are_counted():
    frames = [Image.fromarray(photograph(40, 60, seed)) for seed in range(3)]
    for kind in ("GIF", "TIFF", "WEBP", "PNG", "AVIF"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        assert "first of 3 frames used" in read_photograph(data).notes, kind
        assert not any("frames" in note for note in read_photograph(encoded(frames[0], kind)).notes)


def test_frame_count_that_a_png_claims_is_not_repeated():
    frames = [Image.fromarray(photograph(40, 60, seed)) for seed in range(2)]
    data = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])
    at = data.index(b"acTL")
    body = struct.pack(">II", 2**31 - 1, 0)
    chunk = b"acTL" + body + struct.pack(">I", zlib.crc32(b"acTL" + body))
    assert read_photograph(data[:at] + chunk + data[at + len(chunk) :]).notes[0] == MANY


def test_pipe_in_place_of_a_list_or_an_image_is_refused(tmp_path):
    """Opening a pipe waits until another program writes to it."""
    os.mkfifo(tmp_path / "list.json")
    with pytest.raises(ListingError, match="is not a regular file"):
        read_listings(tmp_path / "list.json")
    with pytest.raises(ImageError, match="is a pipe or a device"):
        open_image(tmp_path / "list.json")
