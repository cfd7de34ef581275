"""Training stages of increasing difficulty, and synthetic images that differ in every epoch.

The stages are in ``benco_configs/curriculum.yaml``. An :class:`ImageSource` combines photos with a
recipe and generates the image of any seed, epoch and index.
"""

import os
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core.files import config_path, read_yaml
from .manipulate import generate_image, kind_at
from .photographs import MIN_IMAGE_SIDE, Photographs, find_usable_photos, frame_of, split_by
from .recipe import Recipe, SynthesisError

FIELDS = {field.name for field in fields(Recipe)}
KEYS = {"photos", "labels", "stage", "recipe", "seed", "sizes"}


def stages() -> dict[str, Recipe]:
    """Return the recipes of ``curriculum.yaml`` by name, in order of difficulty."""
    recipe, recipes = Recipe(), {}
    entries: Any = read_yaml(config_path("curriculum.yaml"), "the stages")
    for entry in entries:
        recipe = with_changes(recipe, entry["recipe"], "curriculum.yaml")
        recipes[entry["name"]] = recipe
    return recipes


def stage(name: str | None = None) -> Recipe:
    """Return the recipe of a stage, by default of the first one.

    Raises:
        SynthesisError: If there is no stage of this name.
    """
    recipes = stages()
    if name is None:
        return next(iter(recipes.values()))
    if name not in recipes:
        raise SynthesisError(f"there is no stage {name!r}; choose from {', '.join(recipes)}")
    return recipes[name]


def with_changes(recipe: Recipe, changes: object, source: str) -> Recipe:
    """Replace fields of a recipe with the values in ``changes``.

    ``changes`` is a mapping that was read from the file ``source``.

    Raises:
        SynthesisError: If a field is unknown or a value has the wrong type.
    """
    if not isinstance(changes, dict):
        raise SynthesisError(f"the recipe in {source} must be a mapping of fields and values")
    values: dict[str, Any] = {}
    for name, value in changes.items():
        if name not in FIELDS:
            known = ", ".join(sorted(FIELDS))
            raise SynthesisError(f"unknown recipe field {name!r} in {source}; choose from {known}")
        default = getattr(Recipe(), name)
        if not _has_type_of(value, default):
            expected = "a list of names" if default == () else f"a value like {default!r}"
            raise SynthesisError(f"invalid {name}: {value!r} in {source}; expected {expected}")
        values[name] = tuple(value) if isinstance(default, tuple) else value
    return replace(recipe, **values)


def _has_type_of(value: object, default: object) -> bool:
    if isinstance(default, tuple):
        if not isinstance(value, list):
            return False
        if default and not isinstance(default[0], str):  # A range.
            return len(value) == len(default) and all(
                _has_type_of(item, default[0]) for item in value
            )
        # A list of names, which may be empty only if its default is.
        return bool(value or not default) and all(isinstance(name, str) for name in value)
    if isinstance(default, float):
        return isinstance(value, int | float) and type(value) is not bool and 0 <= value < 1e6
    return type(value) is type(default)


class ImageSource:
    """Photos, and a recipe for generating images from them.

    Args:
        photos: A folder of authentic photos. Those that
            :func:`~qma_net.synth.synthesise.synthesise` would reserve for testing with the same
            seed are never used.
        recipe: The recipe.
        labels: A folder of label maps, or None.
        seed: Random seed.
        sizes: (height, width) of the images, one size per epoch in turn; only for a native recipe.

    Raises:
        SynthesisError: If the photos or label maps cannot be used, if a size is too small, or if
            there are ``sizes`` and the recipe is not native.
    """

    def __init__(
        self,
        photos: str | os.PathLike[str],
        recipe: Recipe,
        *,
        labels: str | os.PathLike[str] | None = None,
        seed: int = 0,
        sizes: Sequence[tuple[int, int]] = (),
    ):
        if sizes and not recipe.native:
            raise SynthesisError(
                "sizes need a recipe with native: true, such as the stage realistic"
            )
        for height, width in [frame_of(recipe), *sizes]:
            if min(height, width) < MIN_IMAGE_SIDE:
                raise SynthesisError(
                    f"invalid size of images: {height}x{width}; expected at least "
                    f"{MIN_IMAGE_SIDE} pixels per side"
                )
        usable, maps = find_usable_photos(Path(photos), labels, recipe)
        self.recipe, self.seed = recipe, seed
        self.sizes = list(sizes)
        train = split_by(Path(photos), list(usable), recipe, seed)["train"]
        self.photographs = Photographs(photos, train, labels, maps)
        if recipe.by_area:
            self.photographs.weigh_by_area(usable)

    @classmethod
    def read(cls, path: str | os.PathLike[str], image_size: int | None = None) -> "ImageSource":
        """Read a YAML file with ``photos`` and optionally the other :data:`KEYS`.

        Folders are relative to the file. ``image_size`` replaces the recipe's.

        Raises:
            ContentError: If the file is not YAML.
            SynthesisError: If a value in it is invalid.
        """
        path = Path(path)
        content = read_yaml(path, "a YAML file")
        if not isinstance(content, dict) or not {"photos"} <= content.keys() <= KEYS:
            raise SynthesisError(
                f"{path} must be a mapping with photos: FOLDER and optionally "
                f"{', '.join(sorted(KEYS - {'photos'}))}"
            )
        for name in ("photos", "labels", "stage"):
            if not isinstance(content.get(name, ""), str):
                raise SynthesisError(
                    f"invalid {name}: {content[name]!r} in {path}; expected a string"
                )
        seed = content.get("seed", 0)
        if type(seed) is not int or seed < 0:
            raise SynthesisError(f"invalid seed: {seed!r} in {path}; expected an integer >= 0")
        sizes = content.get("sizes", [])
        if not isinstance(sizes, list) or not all(_has_type_of(size, (1, 1)) for size in sizes):
            raise SynthesisError(
                f"invalid sizes: {sizes!r} in {path}; expected pairs of height and width"
            )
        recipe = stage(content.get("stage"))
        recipe = with_changes(recipe, content.get("recipe", {}), str(path))
        if image_size is not None:
            recipe = replace(recipe, image_size=image_size)
        labels = content.get("labels")
        return cls(
            path.parent / content["photos"],
            recipe,
            labels=path.parent / labels if labels else None,
            seed=seed,
            sizes=[(height, width) for height, width in sizes],
        )

    def size(self, epoch: int) -> tuple[int, int]:
        """Return (height, width) of the images of an epoch."""
        if self.sizes:
            return self.sizes[epoch % len(self.sizes)]
        return frame_of(self.recipe)

    def generate(self, epoch: int, index: int) -> tuple[bytes, np.ndarray, dict[str, Any]]:
        """Generate an image; see :func:`~qma_net.synth.manipulate.generate_image`."""
        rng = np.random.default_rng([self.seed, 3, epoch, index])
        recipe = replace(self.recipe, frame=self.size(epoch)) if self.sizes else self.recipe
        kind = kind_at("train", index, recipe)
        return generate_image(rng, kind, self.photographs, recipe)
