"""Example photos for the page: one of each kind that ``qma-net data synth`` creates."""

from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import cv2

from ..core.files import write_png
from ..core.images import read_rgb
from ..examine.page import shrink
from ..synth.photographs import find_usable_photos
from ..synth.recipe import AUTHENTIC, KINDS, Recipe, SynthesisError
from ..synth.synthesise import ImageGenerator

# Photos from scikit-image that may be used for any purpose: the astronaut (NASA) is in the public
# domain, and the others are under CC0.
FREE_PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png")

# Strong traces, so that the small model detects the manipulations.
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
THUMBNAIL_SIZE = 96  # pixels of the longer side

# The names that the page shows.
TITLES = {
    "splice": "Spliced",
    "copymove": "Copy-move",
    "removal": "Object removed",
    AUTHENTIC: "Authentic",
}


@dataclass(frozen=True)
class Example:
    """An example photo with its title and thumbnail."""

    title: str
    photograph: Path
    thumbnail: Path


def make_examples(folder: Path, photos: str = "") -> list[Example]:
    """Write one example photo of each kind, with its thumbnail.

    Args:
        folder: The folder to write to.
        photos: A folder of authentic photos; by default those of scikit-image, if installed.

    Returns:
        The examples; empty if there are no photos to create them from.

    Raises:
        SynthesisError: If the folder contains fewer than two usable photos.
    """
    if photos:
        source, names = Path(photos), list(find_usable_photos(Path(photos), None, RECIPE)[0])
        if len(names) < 2:  # A splice needs two.
            raise SynthesisError(
                f"{photos} has {len(names)} usable photos, expected at least two whose longest "
                f"side has {RECIPE.image_size // 2} pixels or more; choose a different --examples"
            )
    elif spec := find_spec("skimage"):
        source, names = folder, list(FREE_PHOTOS)
        for name in names:  # Rewritten, without the color profiles that OpenCV warns about.
            write_png(folder / name, read_rgb(Path(str(spec.origin)).parent / "data" / name))
    else:
        return []
    examples = []
    for kind in (*KINDS, AUTHENTIC):
        recipe = asdict(RECIPE) | {"untouched": float(kind == AUTHENTIC)}
        settings = {"photos": {"test": names}, "labels": {}, "seed": SEED, "recipe": recipe}
        number = KINDS.index(kind) if kind in KINDS else len(KINDS)
        image, _, _ = ImageGenerator(source, None, settings).generate("test", number)
        photograph, thumbnail = folder / f"example_{kind}.jpg", folder / f"{kind}.png"
        photograph.write_bytes(image)
        cv2.imwrite(str(thumbnail), shrink(cv2.imread(str(photograph)), THUMBNAIL_SIZE))
        examples.append(Example(TITLES[kind], photograph, thumbnail))
    return examples
