"""What several commands' flags share."""

import argparse
from collections.abc import Sequence
from difflib import get_close_matches

from ..weights.names import NONE, SMALL


def add_checkpoint(parser: argparse.ArgumentParser, without: str = "") -> None:
    """``--checkpoint``, by default the package's own model.

    Args:
        without: what is still done by ``--checkpoint none``, where that is possible.
    """
    parser.add_argument(
        "--checkpoint",
        default=SMALL,
        help="of BenCo's trainer or a folder of them (the newest), a directory of save_pretrained, "
        f"or a hub id (default: {SMALL}, which comes with the package); 'random' shows the "
        "mechanics with a model that knows nothing" + (f"; '{NONE}': {without}" if without else ""),
    )


def listed(names: str) -> list[str]:
    """``a,b`` as ``["a", "b"]``."""
    return [name for name in names.split(",") if name]


def unknown_flags(
    parser: argparse.ArgumentParser, argv: Sequence[str], unknown: Sequence[str]
) -> str:
    """One line on flags that a command does not have, with the nearest that it has."""
    known = _flags_of(parser, argv)
    words = []
    for word in unknown:
        nearest = get_close_matches(word.split("=")[0], known, n=1) if word[:2] == "--" else []
        words.append(f"{word} (did you mean {nearest[0]}?)" if nearest else word)
    return f"got {' '.join(words)}, expected only the flags in --help"


def _flags_of(parser: argparse.ArgumentParser, argv: Sequence[str]) -> list[str]:
    """The long flags of the command that the words name."""
    actions = parser._actions  # argparse has no public way to a parser's commands
    for action in actions:
        if isinstance(action, argparse._SubParsersAction):
            for word in argv:
                if word in action.choices:
                    return _flags_of(action.choices[word], argv)
    return [flag for action in actions for flag in action.option_strings if flag[:2] == "--"]
