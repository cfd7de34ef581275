"""Recipes for BenCo's models (``benco_configs/peers.yaml``), used by the scripts in ``shell/``.

The scripts run ``python -m qma_net.launch.recipes MODEL`` and read the lines that it prints; see
:func:`recipe_lines` for their format.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..core.files import config_path, read_yaml
from .torchrun import LaunchError

RECIPES = "peers.yaml"
KINDS = ("model", "train", "benco", "test")  # Kinds of flags.
VARIABLES = {"image_size": "IMAGE_SIZE", "fit": "FIT", "total_batch": "TOTAL_BATCH"}
VARIABLES |= {"epochs": "EPOCHS", "gpus": "recipe_gpus", "batch": "recipe_batch"}


def read_recipes() -> dict[str, dict[str, Any]]:
    """Read all recipes by the name of the model in BenCo's registry."""
    recipes = read_yaml(config_path(RECIPES), "recipes by the name of the model")
    assert isinstance(recipes, dict)
    return recipes


def require_image_size(model: str, image_size: str) -> None:
    """Reject an image size, or ``"native"``, that a BenCo model does not support.

    Raises:
        LaunchError: If the model has a fixed size and this is a different one.
    """
    recipe = read_recipes().get(model, {})
    if recipe.get("fixed_size") and image_size != str(recipe["image_size"]):
        only = recipe["image_size"]
        raise LaunchError(f"{model} works only at an image size of {only}, not {image_size}")


def recipe_lines(
    model: str, *, image_size: int = 0, weights: str = "weights", given: Iterable[str] = ()
) -> Iterator[str]:
    """Yield the lines of a recipe.

    ``set NAME VALUE`` is a default for a variable of the scripts. ``KIND WORD`` is one word of the
    flags of a kind in :data:`KINDS`, which the recipe file describes.

    Args:
        model: Name of the model in BenCo's registry.
        image_size: The image size; 0 for that of the recipe.
        weights: Folder of the weight files.
        given: The user's flags, which override those of the recipe.

    Raises:
        LaunchError: If there is no recipe for the model.
    """
    recipes = read_recipes()
    if model not in recipes:
        raise LaunchError(
            f"RECIPE=own: {RECIPES} has no recipe for MODEL={model}; choose from "
            f"{', '.join(sorted(recipes))}, or use RECIPE=paper"
        )
    recipe = recipes[model]
    for key, variable in VARIABLES.items():
        yield f"set {variable} {recipe[key]}"
    places = {
        "image_size": image_size or recipe["image_size"],
        "weights": weights,
        "configs": _benco_folder() / "statics/model_zoo/configs",
    }
    names = {word.split("=")[0] for word in given}
    for kind in KINDS:
        for name, value in recipe.get(kind, {}).items():
            if f"--{name}" not in names:
                yield f"{kind} --{name}"
                if value is not True:
                    yield f"{kind} {str(value).format_map(places)}"


def _benco_folder() -> Path:
    spec = find_spec("IMDLBenCo")  # Does not import it.
    if spec is None or spec.origin is None:
        raise LaunchError("IMDL-BenCo is not installed; run `pip install 'qma-net[benco]'`")
    return Path(spec.origin).parent


def main(argv: Sequence[str] | None = None) -> None:
    """Write the lines of a recipe to stdout, or exit with an error message."""
    words = list(sys.argv[1:] if argv is None else argv)
    end = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(
        prog="python -m qma_net.launch.recipes", epilog="The user's flags follow after --."
    )
    parser.add_argument("model")
    parser.add_argument("--recipe", choices=("own", "paper"), default="own")
    parser.add_argument("--image-size", type=int, default=0)
    parser.add_argument("--weights", default="weights")
    args = parser.parse_args(words[:end])
    try:
        if args.image_size:
            require_image_size(args.model, str(args.image_size))
        if args.recipe == "own":
            options: dict[str, Any] = {"image_size": args.image_size, "weights": args.weights}
            for line in recipe_lines(args.model, given=words[end:], **options):
                sys.stdout.write(f"{line}\n")
    except LaunchError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
