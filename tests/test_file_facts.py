"""Facts about files: each is correct or absent. Real encoded files with hand-derived values.

Where exiftool is installed, it must agree.
"""

import io
import json
import re
import shutil
import struct
import subprocess
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from conftest import cpu_at_most, photograph
from qma_net.core.exif import MAX_ENTRIES
from qma_net.examine import examine_photo, read_evidence, render_page
from qma_net.examine.metadata import read_facts
from qma_net.examine.texts import MAX_LISTED
from qma_net.inference.photograph import PhotographError, read_photograph

NOTHING = "The file contains no EXIF, XMP, IPTC or text metadata"
ASCII, SHORT, LONG, RATIONAL, UNDEFINED, UTF8 = 2, 3, 4, 5, 7, 129
XMP_START = b"http://ns.adobe.com/xap/1.0/\0"


def encoded(kind, **options):
    file = io.BytesIO()
    Image.fromarray(photograph(40, 60)).save(file, kind, **options)
    return file.getvalue()


def with_segments(data, *segments):
    """Insert segments, pairs of a marker and a payload, at the start of a JPEG."""
    added = b"".join(
        bytes((0xFF, marker)) + struct.pack(">H", len(payload) + 2) + payload
        for marker, payload in segments
    )
    return data[:2] + added + data[2:]


def with_exif(block, *more):
    blocks = [(0xE1, b"Exif\0\0" + content) for content in (block, *more)]
    return with_segments(encoded("JPEG"), *blocks)


def chunk(kind, content):
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def with_chunks(*chunks, after=False):
    """Insert chunks into a PNG before or after its pixels."""
    data, added = encoded("PNG"), b"".join(chunk(*pair) for pair in chunks)
    position = len(data) - 12 if after else 33
    return data[:position] + added + data[position:]


def tiff(ifd0=(), exif=(), gps=(), order="<"):
    """Return EXIF data with directories of entries: tag, type, number of values and content."""
    pointers = [(0x8769, LONG, 1, b"")] * bool(exif) + [(0x8825, LONG, 1, b"")] * bool(gps)
    directories = [sorted([*ifd0, *pointers]), sorted(exif), sorted(gps)]
    sizes = [6 + 12 * len(d) + sum(len(e[3]) for e in d if len(e[3]) > 4) for d in directories]
    starts = {0x8769: 8 + sizes[0], 0x8825: 8 + sizes[0] + sizes[1] * bool(exif)}
    block = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    for directory in directories:
        if not directory:
            continue
        values = b""
        start = len(block) + 6 + 12 * len(directory)
        block += struct.pack(order + "H", len(directory))
        for tag, kind, count, content in directory:
            if tag in starts:
                content = struct.pack(order + "I", starts[tag])
            if len(content) > 4:
                values, content = values + content, struct.pack(order + "I", start + len(values))
            block += struct.pack(order + "HHI", tag, kind, count) + content.ljust(4, b"\0")
        block += bytes(4) + values
    return block


def orientation(value, kind=SHORT, order="<"):
    return tiff([(0x0112, kind, 1, struct.pack(order + ("H" if kind == SHORT else "I"), value))])


def rationals(*pairs, order="<"):
    return struct.pack(f"{order}{2 * len(pairs)}I", *(number for pair in pairs for number in pair))


def gps(latitude, longitude, south=b"S\0", east=b"E\0", more=()):
    entries = [(2, RATIONAL, len(latitude), rationals(*latitude))]
    entries += [(4, RATIONAL, len(longitude), rationals(*longitude)), *more]
    for tag, reference in ((1, south), (3, east)):
        if reference:
            entries.append((tag, ASCII, len(reference), reference))
    return tiff(gps=entries)


SYDNEY = ((33, 1), (51, 1), (30, 1)), ((151, 1), (12, 1), (0, 1))


def iptc(*datasets):
    return b"".join(
        b"\x1c" + bytes((record, number)) + struct.pack(">H", len(content)) + content
        for record, number, content in datasets
    )


def photoshop(content):
    resource = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(content)) + content
    return b"Photoshop 3.0\0" + resource + b"\0" * (len(content) % 2)


def raw_profile(name, content):
    """Return a text chunk as ImageMagick writes it."""
    text = f"\n{name}\n{len(content):8}\n" + re.sub("(.{72})", r"\1\n", content.hex()) + "\n"
    return b"zTXt", f"Raw profile type {name}".encode() + b"\0\0" + zlib.compress(text.encode())


def page_of(data):
    return render_page(examine_photo(None, data))


def unfolded(page):
    """Return the page without its folded sections."""
    return re.sub(r"<details\b.*?</details>", "", page, flags=re.DOTALL)


def exiftool(data, tmp_path, *tags):
    """Return what exiftool says; None if it is not installed."""
    if not shutil.which("exiftool"):
        return None
    path = tmp_path / "photo"
    path.write_bytes(data)
    command = ["exiftool", "-json", "-n", "-a", *tags, str(path)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return json.loads(text)[0]


# --- EXIF texts ---------------------------------------------------------------------------

GREETING, JAPANESE = "Jürgen was here", "日本語のコメント"
UNICODE, JIS = b"UNICODE\0", b"JIS\0\0\0\0\0"


@pytest.mark.parametrize(
    ("order", "content", "expected"),
    [
        (">", UNICODE + GREETING.encode("utf-16-be"), GREETING),
        ("<", UNICODE + GREETING.encode("utf-16-le"), GREETING),
        (">", UNICODE + JAPANESE.encode("utf-16-be"), JAPANESE),
        ("<", UNICODE + JAPANESE.encode("utf-16-le"), JAPANESE),
        ("<", UNICODE + GREETING.encode("utf-16-be"), GREETING),
        (">", UNICODE + GREETING.encode("utf-16-le"), GREETING),
        ("<", UNICODE + JAPANESE.encode("utf-16-be"), JAPANESE),
        (">", UNICODE + b"\xff\xfe" + JAPANESE.encode("utf-16-le"), JAPANESE),
        ("<", UNICODE + b"\xfe\xff" + GREETING.encode("utf-16-be"), GREETING),
        ("<", UNICODE + b"Created with a photo editor\0\0", "Created with a photo editor"),
        ("<", b"ASCII\0\0\0Hello", "Hello"),
        ("<", JIS + JAPANESE.encode("iso2022_jp"), JAPANESE),
        ("<", bytes(8) + "Grüße".encode(), "Grüße"),
        ("<", b"Hello without a code", "Hello without a code"),
        ("<", UNICODE + bytes(40), ""),
    ],
)
def test_user_comment_is_decoded(order, content, expected):
    entry = (0x9286, UNDEFINED, len(content), content)
    facts = read_facts(with_exif(tiff(exif=[entry], order=order)))
    assert facts.exif["Exif"] == {"UserComment": expected}
    assert facts.notes == []


@pytest.mark.parametrize("order", ["<", ">"])
def test_user_comment_agrees_with_exiftool(order, tmp_path):
    content = UNICODE + GREETING.encode("utf-16-le" if order == "<" else "utf-16-be")
    data = with_exif(tiff(exif=[(0x9286, UNDEFINED, len(content), content)], order=order))
    theirs = exiftool(data, tmp_path, "-UserComment")
    if theirs is None:
        pytest.skip("exiftool is not installed (apt-get install libimage-exiftool-perl)")
    assert theirs["UserComment"] == read_facts(data).exif["Exif"]["UserComment"] == GREETING


def test_texts_of_exif_3_and_of_windows_are_read():
    artist, title = "Jürgen Groß".encode() + b"\0", "日本".encode() + b"\0"
    subject = "Tōkyō".encode("utf-16-le") + b"\0\0"
    ifd0 = [(0x013B, UTF8, len(artist), artist), (0x9C9F, 1, len(subject), subject)]
    ifd0.append((0x8298, ASCII, 14, b"Photo\0Editor\0\0"))
    facts = read_facts(with_exif(tiff(ifd0, exif=[(0xA436, UTF8, len(title), title)])))
    expected = {"Artist": "Jürgen Groß", "XPSubject": "Tōkyō", "Copyright": "Photo; Editor"}
    assert facts.exif == {"IFD0": expected, "Exif": {"ImageTitle": "日本"}}


# --- Presence of metadata -----------------------------------------------------------------

FBMD = b"FBMD01000a9c0300"
PRESS = [(1, 90, b"\x1b%G"), (2, 0, b"\0\x04"), (2, 80, "Jürgen Groß".encode())]
PRESS += [(2, 120, "Ein Foto für Jürgen".encode()), (2, 40, FBMD)]


def test_iptc_of_a_press_photo_is_shown(tmp_path):
    data = with_segments(encoded("JPEG"), (0xED, photoshop(iptc(*PRESS))))
    expected = {
        "RecordVersion": "4",
        "Byline": "Jürgen Groß",
        "Caption": "Ein Foto für Jürgen",
        "Instructions": FBMD.decode(),
    }
    assert read_facts(data).iptc == expected
    page = page_of(data)
    assert NOTHING not in page
    assert FBMD.decode() in page
    if theirs := exiftool(data, tmp_path, "-IPTC:all"):
        assert theirs["By-line"] == expected["Byline"]
        assert theirs["Caption-Abstract"] == expected["Caption"]
        assert theirs["SpecialInstructions"] == expected["Instructions"]


def test_iptc_without_a_character_set_is_utf_8_or_latin_1():
    for content in ("Jürgen".encode(), "Jürgen".encode("latin-1")):
        data = with_segments(encoded("JPEG"), (0xED, photoshop(iptc((2, 80, content)))))
        assert read_facts(data).iptc == {"Byline": "Jürgen"}


def test_iptc_is_read_from_every_place_in_which_programs_store_it():
    content, expected = iptc((2, 110, b"Agency")), {"Credit": "Agency"}
    halves = photoshop(content), b"Photoshop 3.0\0" + photoshop(content)[14:]
    for data in (
        with_segments(encoded("JPEG"), (0xED, content)),
        with_segments(
            encoded("JPEG"), (0xED, halves[0][:30]), (0xED, halves[1][:14] + halves[0][30:])
        ),
        with_chunks(raw_profile("iptc", photoshop(content)[14:])),
        with_chunks(raw_profile("iptc", content)),
        encoded("TIFF", tiffinfo={0x83BB: content}),
        encoded("TIFF", tiffinfo={0x8649: photoshop(content)[14:]}),
    ):
        assert read_facts(data).iptc == expected


def gif_with(extension):
    data = encoded("GIF")
    return data[:-1] + extension + b";"


def gif_xmp(packet):
    trailer = b"\x01" + bytes(range(255, -1, -1)) + b"\0"
    return b"\x21\xff\x0bXMP DataXMP" + packet + trailer


PACKET = b"<?xpacket begin=''?><x:xmpmeta xmlns:x='adobe:ns:meta/'>credit</x:xmpmeta>"
TEXTS = {
    "GIF comment": (gif_with(b"\x21\xfe\x05hello\0"), {"comment": "hello"}, ""),
    "GIF comment of two blocks": (
        gif_with(b"\x21\xfe\x05hello\x03 eh\0"),
        {"comment": "hello eh"},
        "",
    ),
    "GIF XMP": (gif_with(gif_xmp(PACKET)), {}, PACKET.decode()),
    "JPEG comment": (with_segments(encoded("JPEG"), (0xFE, b"hello")), {"comment": "hello"}, ""),
    "JPEG XMP": (with_segments(encoded("JPEG"), (0xE1, XMP_START + PACKET)), {}, PACKET.decode()),
    "PNG text": (with_chunks((b"tEXt", b"Author\0me")), {"Author": "me"}, ""),
    "PNG text at the end": (
        with_chunks((b"tEXt", b"Author\0me"), after=True),
        {"Author": "me"},
        "",
    ),
    "PNG XMP": (
        with_chunks((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + PACKET)),
        {},
        PACKET.decode(),
    ),
    "PNG XMP of ImageMagick": (with_chunks(raw_profile("xmp", PACKET)), {}, PACKET.decode()),
    "WebP XMP": (encoded("WEBP", xmp=PACKET), {}, PACKET.decode()),
    "AVIF XMP": (encoded("AVIF", xmp=PACKET), {}, PACKET.decode()),
    "TIFF XMP": (encoded("TIFF", tiffinfo={700: PACKET}), {}, PACKET.decode()),
}


@pytest.mark.parametrize("name", TEXTS)
def test_text_is_found_in_every_format(name):
    data, texts, xmp = TEXTS[name]
    facts = read_facts(data)
    assert (facts.texts, facts.xmp, facts.xmp_packet) == (texts, xmp, xmp)
    assert facts.notes == []
    assert NOTHING not in page_of(data)


def test_heic_metadata_is_read():
    pillow_heif = pytest.importorskip("pillow_heif", reason="the extra heif is not installed")
    pillow_heif.register_heif_opener()
    exif = b"Exif\0\0" + tiff([(0x010F, ASCII, 6, b"Maker\0")])
    facts = read_facts(encoded("HEIF", exif=exif, xmp=PACKET))
    assert (facts.exif, facts.xmp) == ({"IFD0": {"Make": "Maker"}}, PACKET.decode())


def box(name, content):
    return struct.pack(">I4s", len(content) + 8, name) + content


AVIF = encoded("AVIF", exif=b"Exif\0\0" + tiff([(0x010F, ASCII, 6, b"Maker\0")]), xmp=PACKET)


def with_extents(*sizes, reference=0):
    """Divide the metadata items of the AVIF into extents of these sizes and one for the rest."""
    at, meta = AVIF.index(b"iloc") - 4, AVIF.index(b"meta") - 4
    (size,), (meta_size,) = (struct.unpack_from(">I", AVIF, start) for start in (at, meta))
    growth, places = 2 * 8 * len(sizes), b""
    for start in range(at + 16, at + size, 14):
        item, _, _, offset, length = struct.unpack_from(">HHHII", AVIF, start)
        lengths = [] if item == 1 else [*sizes]  # Item 1 is the image.
        lengths.append(length - sum(lengths))
        places += struct.pack(">HHH", item, reference if item > 1 else 0, len(lengths))
        for length in lengths:
            places += struct.pack(">II", offset + growth, length)
            offset += length
    iloc = box(b"iloc", AVIF[at + 8 : at + 16] + places)
    assert len(iloc) == size + growth
    head = AVIF[:meta] + struct.pack(">I", meta_size + growth) + AVIF[meta + 4 : at]
    return head + iloc + AVIF[at + size :]


def test_items_in_several_extents_are_joined():
    for data in (AVIF, with_extents(), with_extents(9), with_extents(9, 1, 0, 12)):
        with Image.open(io.BytesIO(data)) as image:
            assert image.info["exif"].endswith(b"Maker\0")
        facts = read_facts(data)
        assert (facts.exif, facts.xmp) == ({"IFD0": {"Make": "Maker"}}, PACKET.decode())
        assert facts.unread == facts.notes == []


def test_items_that_cannot_be_read_are_named():
    expected = ["item 2 (EXIF)", "item 3 (XMP)"]
    for data in (
        with_extents(reference=1),  # In a different file.
        with_extents(*[0] * 200),
        AVIF.replace(b"iloc", b"free"),
    ):
        facts = read_facts(data)
        assert (facts.exif, facts.xmp, facts.unread) == ({}, "", expected)
        assert not facts.has_no_metadata
    at = AVIF.index(b"iloc") + 12 + 2 * 14 + 10
    facts = read_facts(AVIF[:at] + struct.pack(">I", 5000) + AVIF[at + 4 :])
    assert facts.xmp.startswith(PACKET.decode())
    assert facts.unread == ["the rest of item 3 (XMP)"]
    infe = AVIF.index(b"infe", AVIF.index(b"infe") + 4)
    facts = read_facts(AVIF[: infe + 4] + b"\0" + AVIF[infe + 5 :])
    assert facts.unread == ["an item of unknown type"]


def test_short_boxes_at_the_end_of_a_file_are_damage():
    start = box(b"ftyp", b"avif\0\0\0\0mif1avif")
    item = box(b"iinf", bytes(6) + box(b"infe", b""))
    for content in (box(b"iinf", b""), box(b"iloc", b""), item):
        assert read_facts(start + box(b"meta", bytes(4) + content)).exif == {}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF"])
def test_file_without_metadata_is_said_to_have_none(kind):
    assert NOTHING in page_of(encoded(kind))


def three_pages():
    pages = [Image.fromarray(photograph(40, 60, seed)) for seed in range(3)]
    file = io.BytesIO()
    pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:])
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (three_pages(), "tags of the third and later pages"),
        (with_segments(encoded("JPEG"), (0xEC, b"Ducky\0text")), "APP12 (unknown, Ducky)"),
        (with_segments(encoded("JPEG"), (0xED, b"Adobe_CM\0text")), "APP13 (unknown, Adobe_CM)"),
        (with_segments(encoded("JPEG"), (0xE1, b"\xff\xfe")), "APP1 (unknown)"),
        (with_chunks((b"meTa", b"text")), "meTa"),
        (gif_with(b"\x21\xff\x0bSOMETHING10\x05hello\0"), "SOMETHING10"),
        (encoded("PNG") + b"text", "4 bytes after the end of the image"),
        (encoded("JPEG")[:-2], "the rest of the file"),
        (with_exif(b"II*\0" + struct.pack("<I", 5000) + bytes(100)), "EXIF"),
        (with_chunks((b"eXIf", b"II*\0\x88\x13\0\0")), "EXIF"),
        (encoded("TIFF")[:4] + struct.pack("<I", 2**31) + encoded("TIFF")[8:], "EXIF"),
        (with_segments(encoded("JPEG"), (0xED, photoshop(b"no data sets"))), "IPTC"),
        (with_segments(encoded("JPEG"), (0xED, photoshop(iptc((1, 30, b"AFP"))))), "IPTC"),
    ],
)
def test_parts_that_are_not_read_are_named(data, part):
    facts, page = read_facts(data), page_of(data)
    assert part in facts.unread
    assert NOTHING not in page
    assert re.search(
        f"parts of the file (can contain metadata and )?were not read:\\s{re.escape(part)}", page
    )


def test_damaged_exif_and_iptc_are_named_as_partly_read():
    pointer = struct.pack("<I", 5000)
    block = tiff([(0x010F, ASCII, 6, b"Maker\0"), (0x8769, LONG, 1, pointer)])
    facts = read_facts(with_exif(block))
    assert (facts.exif, facts.unread) == ({"IFD0": {"Make": "Maker"}}, ["parts of the EXIF"])
    content = iptc((2, 80, b"Somebody")) + b"no data set"
    facts = read_facts(with_segments(encoded("JPEG"), (0xED, photoshop(content))))
    assert (facts.iptc, facts.unread) == ({"Byline": "Somebody"}, ["parts of the IPTC"])


def test_empty_exif_and_iptc_are_no_metadata():
    assert NOTHING in page_of(encoded("JPEG", exif=Image.Exif().tobytes()))
    character_set = iptc((1, 0, b"\0\4"), (1, 90, b"\x1b%G"))
    for content in (bytes(20), character_set):
        assert NOTHING in page_of(with_segments(encoded("JPEG"), (0xED, photoshop(content))))
    other = photoshop(character_set) + b"8BIM\x04\x0b\0\0\0\0\0\4http"
    truncated = photoshop(character_set + bytes(20))[:-20]
    for content in (other, truncated):
        facts = read_facts(with_segments(encoded("JPEG"), (0xED, content)))
        assert facts.unread == ["Photoshop resources"]
    content = photoshop(character_set + iptc((1, 30, b"AFP")))
    assert read_facts(with_segments(encoded("JPEG"), (0xED, content))).unread == ["IPTC"]


# --- Several blocks, and other places -----------------------------------------------------


def test_second_exif_segment_is_shown_and_the_first_one_applies(tmp_path):
    first = tiff([(0x0112, SHORT, 1, b"\1\0"), (0x010F, ASCII, 6, b"First\0")])
    second = tiff([(0x0112, SHORT, 1, b"\6\0"), (0x010F, ASCII, 7, b"Second\0")])
    data = with_exif(first, second)
    evidence = read_evidence(data)
    assert evidence.photograph.pixels.shape == (40, 60, 3)
    assert evidence.facts.exif == {
        "IFD0": {"Make": "First", "Orientation": "1"},
        "IFD0 2": {"Make": "Second", "Orientation": "6"},
    }
    notes = "\n".join(evidence.facts.notes)
    assert "2 blocks of EXIF data" in notes
    assert "the EXIF orientation 6 has no effect" in notes
    if theirs := exiftool(data, tmp_path, "-G4", "-Make"):
        makes = [value for name, value in theirs.items() if name.endswith("Make")]
        assert makes == ["First", "Second"]
    reversed_order = read_evidence(with_exif(second, first))
    assert reversed_order.photograph.pixels.shape == (60, 40, 3)
    assert reversed_order.facts.exif["IFD0"]["Make"] == "Second"


@pytest.mark.parametrize("other", ["raw profile", "eXIf"])
def test_block_that_decoding_uses_is_the_first_one_of_a_png(other):
    used = tiff([(0x0112, SHORT, 1, b"\6\0"), (0x010F, ASCII, 5, b"Used\0")])
    ignored = gps(*SYDNEY)
    chunks = {"raw profile": raw_profile("exif", b"Exif\0\0" + ignored), "eXIf": (b"eXIf", ignored)}
    for after in (False, True):
        evidence = read_evidence(with_chunks(chunks[other], (b"eXIf", used), after=after))
        assert evidence.photograph.orientation == 6
        assert evidence.facts.exif["IFD0"] == {"Make": "Used", "Orientation": "6"}
        assert evidence.facts.exif["GPS 2"]["GPSLatitude"] == "33/1 51/1 30/1"
        assert evidence.facts.position is None
        assert not [note for note in evidence.facts.notes if "has no effect" in note]


def test_exif_that_continues_in_a_second_segment_is_one_block():
    text = b"a" * 300 + b"\0"
    block = tiff([(0x010F, ASCII, len(text), text)])
    data = with_exif(block[:100], block[100:])
    facts = read_facts(data)
    assert facts.exif == {"IFD0": {"Make": "a" * 300}}
    assert facts.notes == []


def test_gps_of_every_block_is_folded():
    data = with_exif(tiff([(0x010F, ASCII, 6, b"First\0")]), gps(*SYDNEY))
    page = page_of(data)
    assert "33/1 51/1 30/1" in page
    assert "33/1" not in unfolded(page)
    assert "EXIF, GPS 2 (4 entries); may reveal where somebody lives" in page


@pytest.mark.parametrize("name", ["exif", "APP1"])
def test_exif_in_a_text_chunk_is_decoded_and_its_position_folded(name):
    block = gps(*SYDNEY)
    data = with_chunks(raw_profile(name, b"Exif\0\0" + block))
    facts, page = read_facts(data), page_of(data)
    assert facts.position == (-33.8583333, 151.2)
    assert facts.exif["GPS"]["GPSLatitude"] == "33/1 51/1 30/1"
    assert facts.texts == {}
    assert block.hex()[:60] not in page
    assert "151" not in re.sub(r"[0-9a-f]{64}|base64,[^\"]*", "", unfolded(page))
    assert "33/1 51/1 30/1" in page


def test_gps_data_without_a_position_is_not_called_a_position():
    data = with_exif(tiff(gps=[(0, 1, 4, b"\2\3\0\0")]))  # GPSVersionID only.
    page = page_of(data)
    assert "EXIF, GPS (1 entry)" in page
    assert "where somebody lives" not in page
    assert '<details class="private">' not in page
    examination = examine_photo(None, data)
    assert examination.without_location() is examination


def test_texts_with_a_position_are_private():
    page = page_of(with_chunks((b"tEXt", b"exif:GPSLatitude\x0033/1, 51/1")))
    start = '<details class="private"><summary>Text: exif:GPSLatitude; may reveal'
    (section,) = re.findall(f"{start}.*?</details>", page, re.DOTALL)
    assert "33/1, 51/1" in section
    assert page.count("33/1, 51/1") == 1


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_xmp_in_utf_16_and_utf_32_is_decoded(encoding):
    text = '<x:xmpmeta xmlns:x="adobe:ns:meta/">Jürgen</x:xmpmeta>'
    data = with_segments(encoded("JPEG"), (0xE1, XMP_START + text.encode(encoding)))
    facts = read_facts(data)
    assert facts.xmp == facts.xmp_packet == text


def test_position_in_xmp_is_folded_and_announced():
    packet = b'<x:xmpmeta><rdf:Description exif:GPSLatitude="33,51.5S"/></x:xmpmeta>'
    page = page_of(with_segments(encoded("JPEG"), (0xE1, XMP_START + packet)))
    assert '<details class="private"><summary>XMP; may reveal where somebody lives' in page
    assert "33,51.5S" in page
    assert "33,51.5S" not in unfolded(page)


# --- GPS ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("south", "east", "position"),
    [
        (b"S\0", b"E\0", (-33.8583333, 151.2)),
        (b"s\0", b"w\0", (-33.8583333, -151.2)),
        (b"n\0", b"e\0", (33.8583333, 151.2)),
        (b"South\0", b"East\0", (-33.8583333, 151.2)),
        (b"", b"E\0", None),
        (b"S\0", b"", None),
        (b"\0\0", b"E\0", None),
        (b"E\0", b"S\0", None),
    ],
)
def test_hemisphere_is_that_of_the_reference(south, east, position, tmp_path):
    data = with_exif(gps(*SYDNEY, south=south, east=east))
    facts = read_facts(data)
    assert facts.position == position
    assert facts.exif["GPS"]["GPSLatitude"] == "33/1 51/1 30/1"
    missing = [note for note in facts.notes if "hemisphere is missing or invalid" in note]
    assert bool(missing) == (position is None)
    theirs = exiftool(data, tmp_path, "-Composite:GPSLatitude") if position else None
    if theirs:
        assert theirs["GPSLatitude"] == pytest.approx(position[0])


@pytest.mark.parametrize(
    ("latitude", "expected"),
    [
        (((33, 1), (5150, 100), (0, 1)), -33.8583333),
        (((33, 1), (51, 1), (0, 0)), -33.85),
        (((33, 1), (51, 1)), -33.85),
        (((338583333, 10**7),), -33.8583333),
        (((33, 1), (59, 1), (60, 1)), -34.0),
        (((33, 1), (61, 1), (0, 1)), None),
        (((33, 1), (51, 1), (3000, 1)), None),
        (((91, 1), (0, 1), (0, 1)), None),
        (((90, 1), (0, 1), (1, 1)), None),
        (((33, 0), (51, 1), (30, 1)), None),
        (((33, 1), (0, 0), (30, 1)), None),
    ],
)
def test_angles_are_valid_or_not_stated(latitude, expected):
    facts = read_facts(with_exif(gps(latitude, SYDNEY[1])))
    assert (facts.position and facts.position[0]) == expected
    assert (facts.notes == []) == (expected is not None)


@pytest.mark.parametrize(
    ("reference", "altitude", "expected"),
    [
        (b"\0", (1234, 10), "123.4 m above sea level"),
        (b"\1", (5, 1), "5 m below sea level"),
        (b"\2", (5, 1), "5 m above the ellipsoid"),
        (b"", (5, 1), "5 m (without a reference)"),
        (b"\0", (5, 0), ""),
    ],
)
def test_altitude_is_stated_with_its_reference(reference, altitude, expected):
    more = [(6, RATIONAL, 1, rationals(altitude))]
    if reference:
        more.append((5, 1, 1, reference))
    facts = read_facts(with_exif(gps(*SYDNEY, more=more)))
    assert facts.altitude == expected
    assert facts.position == (-33.8583333, 151.2)


# --- Orientation --------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, 9, 600])
def test_invalid_orientation_is_not_a_rotation(value):
    for data in (
        with_exif(orientation(value)),
        with_chunks((b"eXIf", orientation(value))),
        encoded("WEBP", exif=orientation(value)),
    ):
        evidence = read_evidence(data)
        assert evidence.photograph.pixels.shape == (40, 60, 3)
        assert evidence.photograph.orientation == 1
        assert not [note for note in evidence.photograph.notes if "rotated" in note]
        assert evidence.facts.exif["IFD0"]["Orientation"] == str(value)
        expected = f"EXIF: the orientation ({value}) is invalid, so the photo is shown as stored"
        assert evidence.facts.notes == [expected]


XMP_6 = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
WITHOUT_EFFECT = {
    "XMP of a JPEG": with_segments(encoded("JPEG"), (0xE1, XMP_START + XMP_6)),
    "XMP of a PNG": with_chunks((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP_6)),
    "XMP of a WebP": encoded("WEBP", xmp=XMP_6),
    "XMP of a TIFF": encoded("TIFF", tiffinfo={700: XMP_6}),
    "raw profile": with_chunks(raw_profile("exif", b"Exif\0\0" + orientation(6))),
    "raw profile after eXIf": with_chunks(
        (b"eXIf", orientation(1)), raw_profile("exif", b"Exif\0\0" + orientation(6))
    ),
    "number of the wrong type": with_exif(orientation(6, LONG)),
}


@pytest.mark.parametrize("name", WITHOUT_EFFECT)
def test_orientation_that_browsers_ignore_is_noted_and_not_applied(name):
    """Compared with Chromium 156: it applies the orientation of EXIF only, as a SHORT."""
    evidence = read_evidence(WITHOUT_EFFECT[name])
    assert evidence.photograph.pixels.shape == (40, 60, 3)
    assert evidence.photograph.orientation == 1
    notes = [note for note in evidence.facts.notes if "orientation" in note]
    assert len(notes) == 1
    assert "has no effect" in notes[0] or "is invalid" in notes[0]
    assert not [note for note in evidence.photograph.notes if "rotated" in note]


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_orientation_is_applied_and_shown(order):
    block = tiff([(0x0112, SHORT, 1, struct.pack(order + "H", 6))], order=order)
    expected = np.rot90(photograph(40, 60), -1)
    for data in (with_chunks((b"eXIf", block)), with_chunks((b"eXIf", block), after=True)):
        evidence = read_evidence(data)
        assert np.array_equal(evidence.photograph.pixels, expected)
        assert evidence.photograph.notes == ("rotated or mirrored by its EXIF orientation (6)",)
        assert evidence.facts.exif == {"IFD0": {"Orientation": "6"}}
        assert evidence.facts.notes == []


def test_orientation_of_an_avif_is_that_of_the_container():
    evidence = read_evidence(encoded("AVIF", exif=b"Exif\0\0" + orientation(6)))
    assert evidence.photograph.pixels.shape == (60, 40, 3)
    assert "rotated or mirrored by its AVIF orientation (6)" in evidence.photograph.notes
    # Pillow moves the orientation from EXIF to the container.
    assert evidence.facts.exif == {}


# --- Further images -----------------------------------------------------------------------


def with_index(primary, images, kinds, order="<"):
    """Return a JPEG with an index of further images (MPF) and these images."""
    count = 1 + len(images)
    size = len(primary) + 4 + 4 + 8 + 2 + 3 * 12 + 4 + 16 * count
    offsets = [size - 10 + sum(map(len, images[:i])) for i in range(len(images))]
    entries = struct.pack(order + "IIIHH", 0x030000, size, 0, 0, 0)
    for image, kind, offset in zip(images, kinds, offsets, strict=True):
        entries += struct.pack(order + "IIIHH", kind, len(image), offset, 0, 0)
    block = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, 3)
    block += struct.pack(order + "HHI", 0xB000, UNDEFINED, 4) + b"0100"
    block += struct.pack(order + "HHII", 0xB001, LONG, 1, count)
    block += struct.pack(order + "HHIII", 0xB002, UNDEFINED, 16 * count, 50, 0) + entries
    return with_segments(primary, (0xE2, b"MPF\0" + block)) + b"".join(images)


GAIN_MAP = with_segments(encoded("JPEG"), (0xE1, XMP_START + b'<a hdrgm:Version="1.0"/>'))
CONTAINER = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description hdrgm:Version="1.0">
 <Container:Directory><rdf:Seq>
 <rdf:li rdf:parseType="Resource"><Container:Item Item:Semantic="Primary" Item:Mime="image/jpeg"/>
 </rdf:li>{}</rdf:Seq></Container:Directory></rdf:Description></rdf:RDF></x:xmpmeta>"""
ITEM = '<rdf:li><Container:Item Item:Semantic="{}" Item:Mime="{}" Item:Length="{}"/></rdf:li>'


@pytest.mark.parametrize("order", ["<", ">"])
def test_images_of_the_index_are_listed_and_do_not_trail(order, tmp_path):
    item = ITEM.format("GainMap", "image/jpeg", len(GAIN_MAP))
    xmp = XMP_START + CONTAINER.format(item).encode()
    primary = with_segments(encoded("JPEG"), (0xE1, xmp))
    data = with_index(primary, [GAIN_MAP], [0], order)
    facts = read_facts(data)
    assert facts.trailing == 0
    assert facts.embedded == [f"JPEG, gain map, {len(GAIN_MAP):,} bytes"]
    assert read_photograph(data).notes == ()
    assert read_facts(data + b"more").trailing == 4
    assert "which the file does not declare" not in page_of(data)
    if theirs := exiftool(data, tmp_path, "-MPImageLength", "-MPImageStart"):
        assert theirs["MPImageLength"] == len(GAIN_MAP)
        assert data[theirs["MPImageStart"] :] == GAIN_MAP


def test_index_of_an_mpo_from_pillow_is_read():
    frames = [Image.fromarray(photograph(40, 60, seed)) for seed in range(3)]
    file = io.BytesIO()
    frames[0].save(file, "MPO", save_all=True, append_images=frames[1:])
    data = file.getvalue()
    facts = read_facts(data)
    assert facts.trailing == 0
    assert len(facts.embedded) == 2
    assert all(item.startswith("JPEG, further image, ") for item in facts.embedded)
    assert read_photograph(data).notes == ("first of 3 frames used",)


def test_previews_in_the_index_are_not_frames():
    data = with_index(encoded("JPEG"), [encoded("JPEG"), encoded("JPEG")], [0x010002, 0x010001])
    facts = read_facts(data)
    names = [item.rsplit(", ", 1)[0] for item in facts.embedded]
    assert names == ["JPEG, preview, Full HD", "JPEG, preview, VGA"]
    assert read_photograph(data).notes == ()


# As exiftool 12.57 rewrites a container with a video when it adds a title.
REWRITTEN = """<x:xmpmeta xmlns:x='adobe:ns:meta/' x:xmptk='Image::ExifTool 12.57'>
<rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'>
 <rdf:Description rdf:about=''
  xmlns:Container='http://ns.google.com/photos/1.0/container/'
  xmlns:Item='http://ns.google.com/photos/1.0/container/item/'>
  <Container:Directory>
   <rdf:Seq>
    <rdf:li rdf:parseType='Resource'>
     <Container:Item rdf:parseType='Resource'>
      <Item:Length>0</Item:Length>
      <Item:Mime>image/jpeg</Item:Mime>
      <Item:Padding>0</Item:Padding>
      <Item:Semantic>Primary</Item:Semantic>
     </Container:Item>
    </rdf:li>
    <rdf:li rdf:parseType='Resource'>
     <Container:Item rdf:parseType='Resource'>
      <Item:Length>512</Item:Length>
      <Item:Mime>video/mp4</Item:Mime>
      <Item:Padding>0</Item:Padding>
      <Item:Semantic>MotionPhoto</Item:Semantic>
     </Container:Item>
    </rdf:li>
   </rdf:Seq>
  </Container:Directory>
 </rdf:Description>
</rdf:RDF>
</x:xmpmeta>"""
DECLARATIONS = {
    "attributes": CONTAINER.format(ITEM.format("MotionPhoto", "video/mp4", 512)),
    "elements": REWRITTEN,
    "with an end tag": CONTAINER.format(
        ITEM.format("MotionPhoto", "video/mp4", 512).replace("/>", "></Container:Item>")
    ),
    "old": '<x:xmpmeta><rdf:Description GCamera:MicroVideoOffset="512"/></x:xmpmeta>',
}


@pytest.mark.parametrize("name", DECLARATIONS)
def test_video_of_a_motion_photo_is_named(name):
    video, xmp = b"\0\0\0\x18ftypmp42" + b"\0" * 500, DECLARATIONS[name]
    data = with_segments(encoded("JPEG"), (0xE1, XMP_START + xmp.encode())) + video
    facts = read_facts(data)
    assert facts.embedded == ["MP4, video of a motion photo, 512 bytes"]
    assert facts.trailing == 0


def test_search_for_further_images_takes_linear_time():
    for text in ("<Item ", "<Item >", "<Item>Length>", "<a:Item x=", "Length=", "</Item", "Item:"):
        xmp = XMP_START + (text * (65_000 // len(text))).encode()
        with cpu_at_most(3):
            assert read_facts(with_segments(encoded("JPEG"), (0xE1, xmp))).embedded == []


def test_claims_about_further_images_are_checked():
    """The index claims an image where there is only text, and one beyond the end of the file."""
    primary = encoded("JPEG")
    data = with_index(primary, [b"no image at all"], [0])
    assert read_facts(data).trailing == len(b"no image at all")
    assert read_facts(data).embedded == []
    size = len(GAIN_MAP)
    facts = read_facts(with_index(primary, [GAIN_MAP], [0])[:-1])
    assert facts.embedded == [f"JPEG, gain map, {size - 1:,} bytes of {size:,} declared"]
    assert facts.trailing == 0


def test_photo_with_a_damaged_index_is_read():
    entries = struct.pack("<HHII", 0xB001, LONG, 1, 2**32 - 1)
    entries += struct.pack("<HHII", 0xB002, UNDEFINED, 2**31, 26)
    index = b"II*\0\x08\0\0\0\x02\0" + entries
    data = with_segments(encoded("JPEG"), (0xE2, b"MPF\0" + index))
    assert read_photograph(data).notes == ()
    assert read_facts(data).trailing == 0


# --- JPEGs that are not supported ---------------------------------------------------------


def gray_jpeg(frame_marker, precision=8, height=8, before=b"", after=b""):
    """Return a gray JPEG of 8x8 pixels, coded by hand; all coefficients are zero."""
    table = b"\1" + bytes(15) + b"\0"  # A Huffman table with one code, for the value 0.
    segments = (
        (0xDB, b"\0" + b"\1" * 64),
        (frame_marker, struct.pack(">BHHB", precision, height, 8, 1) + b"\1\x11\0"),
        (0xC4, b"\0" + table),
        (0xC4, b"\x10" + table),
        (0xDA, b"\1\1\0\0\x3f\0"),
    )
    return with_segments(b"\xff\xd8" + before, *segments) + b"\x3f" + after + b"\xff\xd9"


def test_hand_coded_jpeg_is_read():
    assert (read_photograph(gray_jpeg(0xC0)).pixels == 128).all()


@pytest.mark.parametrize(
    ("data", "reason", "coding"),
    [
        (gray_jpeg(0xC1, precision=12), "with 12 bits per channel", "Extended sequential DCT"),
        (
            gray_jpeg(0xC0, height=0, after=b"\xff\xdc\0\4\0\x08"),
            "whose height follows its pixels (DNL)",
            "Baseline DCT",
        ),
        (gray_jpeg(0xC3), "with lossless compression", "Lossless, Huffman coding"),
        (gray_jpeg(0xC5), "with hierarchical coding", "Sequential DCT, differential"),
    ],
)
def test_jpeg_that_cannot_be_decoded_is_called_unsupported(data, reason, coding, tmp_path):
    with pytest.raises(PhotographError) as error:
        read_photograph(data)
    assert str(error.value).endswith(f"it is a JPEG {reason}, which is not supported")
    facts = read_facts(data)
    assert facts.jpeg.coding.startswith(coding)
    assert (facts.trailing, facts.notes) == (0, [])
    if theirs := exiftool(data, tmp_path, "-EncodingProcess#", "-BitsPerSample"):
        assert theirs["BitsPerSample"] == (12 if "12" in reason else 8)


def test_arithmetic_coding_is_decoded():
    """Pillow's libjpeg-turbo supports it, unlike browsers."""
    assert read_photograph(gray_jpeg(0xC9)).pixels.shape == (8, 8, 3)


# --- Text encodings and color profiles ----------------------------------------------------


def test_png_texts_have_the_encoding_of_the_standard():
    name = "Jürgen, 日本"
    data = with_chunks(
        (b"tEXt", b"Author\0J\xfcrgen"),
        (b"zTXt", b"Artist\0\0" + zlib.compress(b"J\xfcrgen")),
        (b"iTXt", b"Creator\0\0\0de\0Autor\0" + name.encode()),
        (b"iTXt", b"Title\0\1\0\0\0" + zlib.compress(name.encode())),
    )
    facts = read_facts(data)
    expected = {"Author": "Jürgen", "Artist": "Jürgen", "Creator": name, "Title": name}
    assert facts.texts == expected
    assert facts.notes == []


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("Jürgen".encode(), "Jürgen"),
        (b"J\xfcrgen", "Jürgen"),
        ("日本".encode("shift_jis"), r"\x93\xfa\x96{"),
        ("中文".encode("gbk"), r"\xd6\xd0\xce\xc4"),
    ],
)
def test_texts_without_a_declared_encoding_are_utf_8_or_latin_1(content, expected):
    """Other encodings cannot be recognized with certainty, so their bytes are shown."""
    artist = tiff([(0x013B, ASCII, len(content) + 1, content + b"\0")])
    data = with_segments(encoded("JPEG"), (0xE1, b"Exif\0\0" + artist), (0xFE, content))
    facts = read_facts(data)
    assert facts.exif == {"IFD0": {"Artist": expected}}
    assert facts.texts == {"comment": expected}
    comment = b"\x21\xfe" + bytes([len(content)]) + content + b"\0"
    assert read_facts(gif_with(comment)).texts == {"comment": expected}


def profile(name, primaries=(), space=b"RGB ", version=2):
    """Return a color profile with a description and primaries, adapted to D50."""
    if version == 2:
        text = b"desc" + bytes(4) + struct.pack(">I", len(name) + 1) + name.encode() + bytes(80)
    else:
        words = name.encode("utf-16-be")
        text = b"mluc" + bytes(4) + struct.pack(">II", 1, 12) + b"enUS"
        text += struct.pack(">II", len(words), 28) + words
    tags = [(b"desc", text)]
    for tag, values in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=False):
        fixed = (round(value * 65536) for value in values)
        tags.append((tag, b"XYZ " + bytes(4) + struct.pack(">3i", *fixed)))
    table, content = struct.pack(">I", len(tags)), b""
    for tag, value in tags:
        start = 132 + 12 * len(tags) + len(content)
        table += tag + struct.pack(">II", start, len(value))
        content += value
    size = 128 + len(table) + len(content)
    head = struct.pack(
        ">I4sI4s4s4s12s4s", size, b"none", version << 24, b"mntr", space, b"XYZ ", b"", b"acsp"
    )
    return head.ljust(128, b"\0") + table + content


DISPLAY_P3 = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
ADOBE_RGB = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))
SRGB = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))


@pytest.mark.parametrize(
    ("content", "shown", "is_noted"),
    [
        (profile("Display P3", DISPLAY_P3, version=4), "Display P3 (RGB)", True),
        (profile("Adobe RGB (1998)", ADOBE_RGB), "Adobe RGB (1998) (RGB)", True),
        (profile("sRGB IEC61966-2.1", SRGB), "sRGB IEC61966-2.1 (RGB)", False),
        (profile("c2", SRGB), "c2 (RGB)", False),
        (profile("sRGB", DISPLAY_P3), "sRGB (RGB)", True),
        (profile("Dot Gain 20%", space=b"GRAY"), "Dot Gain 20% (gray)", False),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_color_profile_is_named_and_noted_if_it_is_not_srgb(
    content, shown, is_noted, kind, tmp_path
):
    image = Image.fromarray(photograph(40, 60))
    if "gray" in shown:
        if kind not in ("JPEG", "PNG", "TIFF"):
            pytest.skip(f"{kind} has no gray images")
        image = image.convert("L")
    file = io.BytesIO()
    image.save(file, kind, icc_profile=content)
    facts = read_facts(file.getvalue())
    assert str(facts.profile) == shown
    note = f"the color profile is {shown}, not sRGB"
    assert [note in text for text in facts.notes] == [True] * is_noted
    assert facts.has_no_metadata == (kind != "TIFF")
    if theirs := exiftool(file.getvalue(), tmp_path, "-ProfileDescription"):
        assert theirs.get("ProfileDescription", shown[: shown.rindex(" (")]) in shown


def test_colors_that_are_stated_without_a_profile_are_noted():
    r03 = tiff(exif=[(0xA005, LONG, 1, struct.pack("<I", 50))])
    r03 = r03.ljust(50, b"\0") + struct.pack("<HHHI4sI", 1, 1, ASCII, 4, b"R03\0", 0)
    assert len(tiff(exif=[(0xA005, LONG, 1, b"    ")])) <= 50
    (note,) = read_facts(with_exif(r03)).notes
    assert note.startswith("according to EXIF (R03) the colors are Adobe RGB, not sRGB")
    (note,) = read_facts(with_chunks((b"cICP", b"\x0c\x0d\0\1"))).notes
    assert note.startswith("the color primaries are those of Display P3, not sRGB")
    assert read_facts(with_chunks((b"cICP", b"\1\x0d\0\1"))).notes == []
    # Pillow writes the property nclx, here changed from sRGB to BT.2020.
    data = encoded("AVIF")
    assert data.count(b"nclx\0\1") == 1
    assert read_facts(data).notes == []
    (note,) = read_facts(data.replace(b"nclx\0\1", b"nclx\0\x09")).notes
    assert note.startswith("the color primaries are those of BT.2020, not sRGB")


def test_profile_of_a_heic_is_that_of_its_primary_image():
    pillow_heif = pytest.importorskip("pillow_heif", reason="the extra heif is not installed")
    pillow_heif.register_heif_opener()
    image, other = (Image.fromarray(photograph(40, 60, seed)) for seed in range(2))
    other.info["icc_profile"] = profile("Adobe RGB (1998)", ADOBE_RGB)
    image.info["icc_profile"] = profile("Display P3", DISPLAY_P3)
    file = io.BytesIO()
    other.save(file, "HEIF", save_all=True, append_images=[image], primary_index=1)
    facts = read_facts(file.getvalue())
    assert file.getvalue().index(b"Adobe RGB") < file.getvalue().index(b"Display P3")
    assert str(facts.profile) == "Display P3 (RGB)"


def test_profiles_of_littlecms_are_recognized():
    content = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    facts = read_facts(encoded("JPEG", icc_profile=content))
    assert (facts.profile.is_srgb, facts.notes) == (True, [])


def test_cmyk_profile_is_noted_and_not_attached_to_rgb_pixels():
    content = profile("Coated FOGRA39", space=b"CMYK")
    file = io.BytesIO()
    Image.fromarray(photograph(40, 60)).convert("CMYK").save(file, "JPEG", icc_profile=content)
    evidence = read_evidence(file.getvalue())
    assert evidence.facts.notes == [
        "the color profile is Coated FOGRA39 (CMYK), not sRGB; the colors were read without it"
    ]
    assert evidence.photograph.notes == ("CMYK converted to RGB",)
    assert evidence.photograph.icc_profile == b""


def test_overlays_keep_the_color_profile(build_tiny, tmp_path):
    from qma_net import QMANetPredictor
    from qma_net.inference.predict import predict_files

    content, photo = profile("Display P3", DISPLAY_P3), tmp_path / "photo.jpg"
    photo.write_bytes(encoded("JPEG", icc_profile=content))
    predictor = QMANetPredictor(build_tiny())
    examination = examine_photo(predictor, photo, out=tmp_path / "report")
    predict_files([photo], tmp_path / "out", predictor)
    for path in (tmp_path / "report/overlay.png", tmp_path / "out/photo_overlay.png"):
        with Image.open(path) as overlay:
            assert overlay.info["icc_profile"] == content
    assert render_page(examination).count("data:image/jpeg") == 2


# --- Bounded work -------------------------------------------------------------------------

BLANK = b"<x:xmpmeta>" + b" \n" * 500_000


@pytest.mark.parametrize("kind", ["PNG", "compressed PNG", "JPEG", "WebP", "GIF", "TIFF"])
def test_white_space_in_xmp_takes_linear_time(kind):
    """A regular expression took 32 s for 28 KB."""
    data = {
        "PNG": lambda: with_chunks((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + BLANK)),
        "compressed PNG": lambda: with_chunks(
            (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(BLANK))
        ),
        "JPEG": lambda: with_segments(encoded("JPEG"), (0xE1, XMP_START + BLANK[:65000])),
        "WebP": lambda: encoded("WEBP", xmp=BLANK),
        "GIF": lambda: gif_with(gif_xmp(BLANK)),
        "TIFF": lambda: encoded("TIFF", tiffinfo={700: BLANK}),
    }[kind]()
    with cpu_at_most(2):
        assert read_facts(data).xmp == "<x:xmpmeta>"


def test_number_and_length_of_png_texts_are_limited():
    many = with_chunks(*[(b"tEXt", b"Comment\0" + b"a" * 9)] * 100_000)
    bombs = with_chunks(*[(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(10**7)))] * 300)
    profiles = with_chunks(*[(b"iCCP", b"name\0\0" + zlib.compress(bytes(16_000_000)))] * 500)
    with cpu_at_most(4):
        assert read_facts(profiles).notes == ["the color profile cannot be read"]
    for data in (many, bombs):
        with cpu_at_most(4):
            facts = read_facts(data)
        assert len(facts.texts) <= MAX_LISTED
        assert sum(map(len, facts.texts.values())) < 2 * 10**6
        assert "the rest of the file" in facts.unread


def chain_of_directories(count):
    """Return a TIFF with many empty directories."""
    starts = range(8, 8 + 6 * count, 6)
    return b"II*\0\x08\0\0\0" + b"".join(struct.pack("<HI", 0, start + 6) for start in starts)


def test_directories_of_a_tiff_are_limited():
    entries = struct.pack("<H", 65535) + struct.pack("<HHII", 0x010F, 2, 2**20, 8) * 65535
    shared = b"II*\0\x08\0\0\0" + struct.pack("<H", 1000)
    shared += b"".join(struct.pack("<HHII", tag, 2, 2**20, 16000) for tag in range(1000))
    shared = shared.ljust(16000, b"\0") + b"a" * 2**20
    circle = b"II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, 0x8769, 4, 1, 8, 8)
    for data in (
        chain_of_directories(1_000_000),
        b"II*\0\x08\0\0\0" + entries,
        circle,
        shared,
        encoded("PNG")[:33] + chunk(b"eXIf", shared) + encoded("PNG")[33:],
    ):
        with cpu_at_most(4):
            facts = read_facts(data)
        assert sum(map(len, facts.exif.values())) <= 3 * MAX_ENTRIES
        assert sum(len(text) for d in facts.exif.values() for text in d.values()) < 10**6


@pytest.mark.parametrize(
    "extension",
    [
        b"\x21\xfe" + b"\1a" * 1_500_000 + b"\0",
        b"\x21\xfe\1a\0" * 600_000,
        gif_xmp(b"") * 10_000,
        b"\x21\xf9\4\0\0\0\0\0" * 600_000,
    ],
)
def test_blocks_of_a_gif_are_limited(extension):
    with cpu_at_most(5):
        facts = read_facts(gif_with(extension))
    assert len(facts.parts) <= MAX_LISTED + 1
    assert "the rest of the file" in facts.unread


FLOODS = {
    "tiny EXIF segments": b"\xff\xe1\0\x0aExif\0\0II" * 500_000,
    "overlapping EXIF segments": b"\xff\xe1\xff\xffExif\0\0" * 500_000,
    "large EXIF segments": (b"\xff\xe1\xff\xffExif\0\0" + b"a" * 65527) * 3000,
    "comments": b"\xff\xfe\0\3a" * 1_000_000,
    "bytes between segments": b"\xff\xfe\0\3aa" * 1_000_000,
}


@pytest.mark.parametrize("name", FLOODS)
def test_floods_of_segments_are_refused_before_pillow_reads_them(name):
    data = encoded("JPEG")
    data = data[:2] + FLOODS[name] + data[2:]
    with cpu_at_most(4):
        with pytest.raises(PhotographError, match="more segments before its pixels than any photo"):
            read_photograph(data)
        facts = read_facts(data)
    assert len(facts.notes) <= 21
    assert not facts.has_no_metadata


def test_iptc_entries_are_limited():
    content = iptc(*[(2, 25, b"word")] * 6000)
    pieces = [
        (0xED, b"Photoshop 3.0\0" + photoshop(content)[14:][i : i + 60000])
        for i in range(0, len(content), 60000)
    ]
    with cpu_at_most(2):
        facts = read_facts(with_segments(encoded("JPEG"), *pieces))
    assert facts.iptc == {"Keywords": "; ".join(["word"] * MAX_LISTED)}
    assert any("IPTC: more than" in note for note in facts.notes)


def test_index_of_further_images_is_not_read_by_pillow():
    """Its entries all claim the same bytes, which Pillow would copy for each."""
    count = 5000
    entries = b"".join(struct.pack("<HHII", tag, 7, 60000, 8) for tag in range(count))
    index = b"MPF\0II*\0\x08\0\0\0" + struct.pack("<H", count) + entries
    data = with_segments(encoded("JPEG"), (0xE2, index))
    with cpu_at_most(2):
        assert read_photograph(data).notes == ()
        assert read_facts(data).embedded == []


def test_items_of_a_heic_are_limited():
    """All items claim the same megabyte of XMP."""
    count = 5000
    infos = b"".join(
        box(b"infe", struct.pack(">IHH4s", 2 << 24, i, 0, b"mime") + b"\0application/rdf+xml\0")
        for i in range(count)
    )
    places = b"".join(struct.pack(">HHHII", i, 0, 1, 200_000, 2**20) for i in range(count))
    meta = bytes(4) + box(b"iinf", struct.pack(">IH", 0, count) + infos)
    meta += box(b"iloc", struct.pack(">IBBH", 0, 0x44, 0, count) + places)
    data = box(b"ftyp", b"heic\0\0\0\0mif1heic") + box(b"meta", meta)
    data = data.ljust(200_000, b"\0") + b" " * 2**20
    with cpu_at_most(3):
        facts = read_facts(data)
    assert facts.format == "HEIC"
    assert "the rest of the file" in facts.unread
    assert "the file has more than 4096 items; the rest was not read" in facts.notes
