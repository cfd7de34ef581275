"""Real encoded files of every kind, and everything that is no photograph."""

import io
import random

import cv2
import numpy as np
import pytest
from PIL import Image

from conftest import photograph
from miniatures import bomb, broken_photographs
from qma_net.inference.photograph import Photograph, PhotographError, read_photograph


def encoded(image, suffix, **options):
    data = io.BytesIO()
    image.save(data, format=suffix, **options)
    return data.getvalue()


@pytest.fixture
def pixels():
    return photograph(40, 60)


def test_sources(pixels, tmp_path):
    """A path, its name, bytes, an open file, PIL, an array: the same pixels, each with a name."""
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
def test_exif_orientation_is_followed(pixels, orientation):
    """What is displayed is upright whatever way the camera was held."""
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
    assert read.notes == (f"turned by its EXIF orientation ({orientation})",)


def test_alpha_palette_grey_cmyk(pixels):
    image = Image.fromarray(pixels)
    alpha = image.copy()
    alpha.putalpha(90)
    grey = np.asarray(image.convert("L"))
    for data, expected, note in (
        (encoded(alpha, "png"), pixels, "alpha left away"),
        (encoded(image.convert("L"), "jpeg", quality=100), None, "grey repeated in all channels"),
        (encoded(image.convert("L"), "png"), grey[..., None].repeat(3, 2), "grey repeated"),
        (encoded(image.convert("LA"), "png"), grey[..., None].repeat(3, 2), "alpha left away"),
        (encoded(image.quantize(256), "png"), None, "palette to RGB"),
        (encoded(image.convert("CMYK"), "tiff"), None, "CMYK to RGB"),
        (encoded(image.convert("CMYK"), "jpeg", quality=100), None, "CMYK to RGB"),
        (encoded(image.convert("1"), "png"), None, "black and white as grey"),
    ):
        read = read_photograph(data)
        assert read.pixels.shape == (40, 60, 3)
        assert read.notes[0].startswith(note)
        if expected is not None:
            assert (read.pixels == expected).all()
        elif "black" not in note:  # that one is dithered
            reference = grey[..., None] if "grey" in note else pixels
            assert np.abs(read.pixels.astype(int) - reference).mean() < 12


def test_sixteen_bits_are_cut_to_eight_and_noted(pixels):
    deep = pixels.astype(np.uint16) * 256 + 77
    note = "16 bits per channel cut to 8"
    for suffix in (".png", ".tiff"):
        data = cv2.imencode(suffix, deep[..., ::-1])[1].tobytes()
        read = read_photograph(data)
        assert (read.pixels == pixels).all(), suffix
        assert read.notes == (note,)
        data = cv2.imencode(suffix, deep[..., 0])[1].tobytes()
        read = read_photograph(data)
        assert (read.pixels == pixels[..., :1]).all()
        assert read.notes == (note, "grey repeated in all channels")
    assert (read_photograph(deep).pixels == pixels).all()


def test_the_first_frame_of_an_animation(pixels):
    frames = [Image.fromarray(photograph(40, 60, seed)) for seed in range(3)]
    for suffix in ("webp", "png", "tiff"):
        options = {"lossless": True} if suffix == "webp" else {}
        data = encoded(frames[0], suffix, save_all=True, append_images=frames[1:], **options)
        read = read_photograph(data)
        assert (read.pixels == pixels).all(), suffix
        assert read.notes[0] == "first of 3 frames taken"
    data = encoded(frames[0], "gif", save_all=True, append_images=frames[1:])
    assert read_photograph(data).notes[0] == "first of 3 frames taken"


def test_what_is_no_photograph_is_one_line_that_names_it(tmp_path):
    for name, reason in broken_photographs(tmp_path).items():
        with pytest.raises(PhotographError) as raised:
            read_photograph(tmp_path / name)
        message = str(raised.value)
        assert message.startswith(f"got {tmp_path / name}"), message
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
def test_what_cannot_be_read_says_what_could(source):
    with pytest.raises(PhotographError, match="expected"):
        read_photograph(source)


def test_pillow_keeps_its_own_limit(tmp_path):
    before = Image.MAX_IMAGE_PIXELS
    (tmp_path / "bomb.png").write_bytes(bomb())
    with pytest.raises(PhotographError):
        read_photograph(tmp_path / "bomb.png")
    assert before == Image.MAX_IMAGE_PIXELS
    assert Photograph(np.zeros((1, 1, 3), np.uint8), "x").notes == ()


def test_mutated_photographs_are_one_line_or_pixels():
    """Real encoded files with bytes changed, cut out and doubled, by a seed that is said."""
    seed, pixels = 20261124, Image.fromarray(photograph(48, 64))
    draw = random.Random(seed)
    wholes = [encoded(pixels, kind) for kind in ("jpeg", "png", "tiff", "webp", "bmp", "gif")]
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
        except PhotographError as refusal:
            lines = str(refusal).splitlines()
        except BaseException as error:
            raise AssertionError(f"seed {seed}, trial {trial}") from error
        assert len(lines) == 1, f"seed {seed}, trial {trial}"


def exif() -> bytes:
    """An orientation, a camera and a text, as Pillow writes them."""
    tags = Image.Exif()
    tags[0x0112], tags[0x010F], tags[0x9286] = 6, "camera", "x" * 200
    return tags.tobytes()
