"""What several commands' flags share."""

import argparse
from collections.abc import Sequence
from difflib import get_close_matches


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
