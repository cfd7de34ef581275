"""Photographs to try the page with: what ``qma-net data synth`` makes, one of each kind."""

from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import cv2

from ..core.files import write_png
from ..core.images import read_rgb
from ..examine.page_parts import reduced
from ..synth.maker import Maker
from ..synth.photographs import find_usable
from ..synth.recipe import KINDS, UNTOUCHED, Recipe, SynthesisError

# Photographs in scikit-image that may be used for anything: NASA's astronaut is in the public
# domain, the others are under CC0.
FREE = ("astronaut.png", "chelsea.png", "coffee.png")

# Strong histories, so that there is something to see.
RECIPE = Recipe(
    image_size=640,
    zoom=(0.8, 1.0),
    area=(0.05, 0.15),
    edge_softness=(0.7, 0.7),
    host_saved_before=1.0,
    host_quality=(40, 70),
    same_photograph=0.0,
    donor_noise=(10.0, 16.0),
    donor_saved_before=0.0,
    resampled=0.0,
    colour_match=(0.0, 0.0),
    inpainting=("telea",),
    blur=0.0,
    noise=0.0,
    final_quality=(95, 97),
)
SEED = 8
THUMBNAIL = 96  # pixels of the longer side

# What is chosen in the page, and the side and number that make it.
TITLES = {
    "splice": "Spliced",
    "copymove": "Copied and moved",
    "removal": "Something removed",
    UNTOUCHED: "Untouched",
}


@dataclass(frozen=True)
class Example:
    """A photograph to try, a small picture of it, and what it is called."""

    title: str
    photograph: Path
    thumbnail: Path


def make_examples(folder: Path, photos: str = "") -> list[Example]:
    """Writes one JPEG of each kind; none without photographs to make them of.

    Args:
        folder: to write to.
        photos: a folder of untouched photographs; default: those of scikit-image, if installed.

    Raises:
        SynthesisError: when the folder's photographs cannot be used.
    """
    if photos:
        place, names = Path(photos), find_usable(Path(photos), None, RECIPE)[0]
        if len(names) < 2:  # a splice is made of two
            raise SynthesisError(
                f"got {photos} with {len(names)} usable photographs, expected two or more, their "
                f"longest side at least {RECIPE.image_size // 2} pixels: give another --examples"
            )
    elif spec := find_spec("skimage"):
        place, names = folder, FREE
        for name in names:  # without the colour profiles that OpenCV warns of
            write_png(folder / name, read_rgb(Path(spec.origin).parent / "data" / name))
    else:
        names = []
    if not names:
        return []
    made = []
    for kind in (*KINDS, UNTOUCHED):
        recipe = asdict(RECIPE) | {"untouched": float(kind == UNTOUCHED)}
        settings = {"photos": {"test": names}, "labels": {}, "seed": SEED, "recipe": recipe}
        number = KINDS.index(kind) if kind in KINDS else len(KINDS)
        image, _, _ = Maker(place, None, settings).make("test", number)
        photograph, thumbnail = folder / f"example_{kind}.jpg", folder / f"{kind}.png"
        photograph.write_bytes(image)
        cv2.imwrite(str(thumbnail), reduced(cv2.imread(str(photograph)), THUMBNAIL))
        made.append(Example(TITLES[kind], photograph, thumbnail))
    return made
