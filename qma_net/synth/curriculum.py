"""Stages of a training from nothing, each harder than the one before; and images made fresh.

The stages are facts, in ``benco_configs/curriculum.yaml``. A :class:`Source` names photographs and
a stage; it makes any image of any epoch from (seed, epoch, number) alone.
"""

import os
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from ..core.files import ContentError, config_path, read_yaml
from .maker import kind_of, make_image
from .photographs import Photographs, find_usable, split_photos
from .recipe import Recipe, SynthesisError

FIELDS = {field.name for field in fields(Recipe)}
KEYS = {"photos", "labels", "stage", "recipe", "seed"}


def stages() -> dict[str, Recipe]:
    """The recipes of ``curriculum.yaml`` by name, in their order."""
    recipe, found = Recipe(), {}
    for entry in read_yaml(config_path("curriculum.yaml"), "the stages"):
        recipe = changed(recipe, entry["recipe"], "curriculum.yaml")
        found[entry["name"]] = recipe
    return found


def stage(name: str | None = None) -> Recipe:
    """The recipe of a stage; of the first without a name.

    Raises:
        SynthesisError: for a name that is none.
    """
    known = stages()
    if name is None:
        return next(iter(known.values()))
    if name not in known:
        raise SynthesisError(f"got stage {name!r}, expected one of {', '.join(known)}")
    return known[name]


def changed(recipe: Recipe, changes: object, what: str) -> Recipe:
    """A recipe with some fields of other values, of the same kinds.

    Raises:
        SynthesisError: for a field that a recipe does not have, or a value of another kind.
    """
    if not isinstance(changes, dict):
        raise SynthesisError(f"got a recipe in {what} that is no mapping, expected name: value")
    for name, value in changes.items():
        if name not in FIELDS:
            raise SynthesisError(
                f"got {name!r} in {what}, expected fields of a recipe: {', '.join(sorted(FIELDS))}"
            )
        default = getattr(Recipe(), name)
        if not _is_like(value, default):
            raise SynthesisError(f"got {name}: {value!r} in {what}, expected such as {default!r}")
        value = tuple(value) if isinstance(default, tuple) else value
        recipe = replace(recipe, **{name: value})
    return recipe


def _is_like(value: object, default: object) -> bool:
    if isinstance(default, tuple):
        as_long = not isinstance(default[0], str)  # names may be more or fewer
        return (
            isinstance(value, list)
            and (len(value) == len(default) if as_long else bool(value))
            and all(_is_like(one, default[0]) for one in value)
        )
    if isinstance(default, float):
        return type(value) in (int, float) and 0 <= value < 1e6
    return type(value) is type(default)


class Source:
    """Photographs, and how images are made of them.

    Args:
        photos: a folder of photographs, of which the recipe's test share is never used.
        recipe: how.
        labels: a folder of label maps, or ``None``.
        seed: of everything random; the same photographs are kept for testing as by
            :func:`~qma_net.synth.synthesise.synthesise` with this seed.

    Raises:
        SynthesisError: where the photographs or label maps cannot be used.
    """

    def __init__(
        self,
        photos: str | os.PathLike,
        recipe: Recipe,
        *,
        labels: str | os.PathLike | None = None,
        seed: int = 0,
    ):
        names, maps = find_usable(Path(photos), labels, recipe)
        self.recipe, self.seed = recipe, seed
        kept = split_photos(names, recipe.test_share, seed)["train"]
        self.photographs = Photographs(photos, kept, labels, maps)

    @classmethod
    def read(cls, path: str | os.PathLike, image_size: int | None = None) -> "Source":
        """Reads a YAML file with ``photos``, and ``stage``, ``recipe``, ``labels`` and ``seed``.

        Args:
            path: the file; folders in it are relative to it.
            image_size: in place of the recipe's.

        Raises:
            SynthesisError: for what is no such file.
        """
        path = Path(path)
        try:
            content = read_yaml(path, "a YAML file")
        except ContentError as error:
            raise SynthesisError(str(error)) from None
        if not isinstance(content, dict) or not {"photos"} <= content.keys() <= KEYS:
            raise SynthesisError(
                f"got {path}, expected a mapping with photos: FOLDER, and perhaps "
                f"{', '.join(sorted(KEYS - {'photos'}))}"
            )
        for name in ("photos", "labels", "stage"):
            if not isinstance(content.get(name, ""), str):
                raise SynthesisError(f"got {name} {content[name]!r} in {path}, expected a name")
        seed = content.get("seed", 0)
        if type(seed) is not int or seed < 0:
            raise SynthesisError(f"got seed {seed!r} in {path}, expected a whole number from 0")
        recipe = stage(content.get("stage"))
        recipe = changed(recipe, content.get("recipe", {}), str(path))
        if image_size is not None:
            recipe = replace(recipe, image_size=image_size)
        labels = content.get("labels")
        return cls(
            path.parent / content["photos"],
            recipe,
            labels=path.parent / labels if labels else None,
            seed=seed,
        )

    def make(self, epoch: int, number: int) -> tuple[bytes, np.ndarray, dict]:
        """An image's file, its mask uint8 ``(H, W)`` of 0 and 255, and its history."""
        rng = np.random.default_rng([self.seed, 3, epoch, number])
        return make_image(rng, kind_of("train", number, self.recipe), self.photographs, self.recipe)
