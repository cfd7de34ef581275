"""Flags that several commands share, and suggestions for mistyped flags."""

import argparse
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, TypeAlias

from ..modeling.config import QMANetConfig
from ..weights.names import NONE, RANDOM, SMALL

# What ``add_subparsers`` returns.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

# The flags of `--model QMANet`. They are listed here because reading the model's signature would
# import torch; a test compares the two.
MODEL_FLAGS = (
    *QMANetConfig.field_names(),
    "backbone_weights",
    "noiseprint_weights",
    "alpha",
    "beta",
    "dice_smoothing",
    "bce",
    "init_from",
    "gradient_checkpointing",
)

# How similar an unknown flag must be to one of ours to be a typing error rather than a flag of
# another model. The closest flag of BenCo's models is --patch_size (0.83, --batch-size).
NEAR_MISS = 0.88


def add_command(
    commands: Commands, name: str, help: str, **options: Any
) -> argparse.ArgumentParser:
    """Add a command whose help text is also its description.

    Args:
        commands: The group to add it to.
        name: The word that selects the command.
        help: One line in the imperative, without a capital letter or a period.
        options: Further options of its parser.
    """
    description = f"{help[0].upper()}{help[1:]}."
    return commands.add_parser(name, help=help, description=description, **options)


def add_checkpoint(parser: argparse.ArgumentParser, *, without_model: str = "") -> None:
    """Add ``--checkpoint``, which defaults to the model included in the package.

    Args:
        parser: The command's parser.
        without_model: What the command still does with ``--checkpoint none``, if that is possible.
    """
    text = (
        "checkpoint of BenCo's trainer, folder of such checkpoints (the newest is used), directory "
        f"written by save_pretrained, or Hugging Face Hub id (default: {SMALL}, which is included "
        f"in the package); '{RANDOM}': random weights, for a test run"
    )
    if without_model:
        text += f"; '{NONE}': {without_model}"
    parser.add_argument("--checkpoint", default=SMALL, help=text)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``."""
    parser.add_argument(
        "--device", default="", help="cpu, cuda or cuda:N (default: CUDA if available)"
    )


def split_names(names: str) -> list[str]:
    """Split ``"a,b"`` into ``["a", "b"]``."""
    return [name for name in names.split(",") if name]


def reject_unknown_flags(
    parser: argparse.ArgumentParser, argv: Sequence[str], unknown: Sequence[str], *, model: str = ""
) -> None:
    """End the process if the command line contains flags that nothing accepts.

    Args:
        parser: The parser of ``qma-net``.
        argv: The command line.
        unknown: The words of it that the parser did not recognize.
        model: The model that accepts further flags. Those of QMANet are known; of other models,
            which are known only after torch is loaded, near misses of our flags are rejected.
    """
    command = _command_parser(parser, argv)
    known = _long_flags(command)
    flags = [word.split("=")[0] for word in unknown if word.startswith("--")]
    if not model:
        rejected = list(unknown)
    elif model == "QMANet":
        model_flags = [f"--{name}" for name in MODEL_FLAGS]
        known += model_flags
        # argparse accepts abbreviations of the model's flags.
        rejected = [
            flag for flag in flags if not any(name.startswith(flag) for name in model_flags)
        ]
    else:
        rejected = [
            flag
            for flag in flags
            if flag.replace("_", "-") not in known
            and get_close_matches(flag, known, cutoff=NEAR_MISS)
        ]
    if rejected:
        command.error(
            f"unrecognized arguments: {' '.join(_suggest(word, known) for word in rejected)}"
        )


def _suggest(word: str, known: Sequence[str]) -> str:
    matches = get_close_matches(word.split("=")[0], known, n=1)
    return f"{word} (did you mean {matches[0]}?)" if matches else word


def _command_parser(
    parser: argparse.ArgumentParser, argv: Sequence[str]
) -> argparse.ArgumentParser:
    """Find the parser of the command that the command line names."""
    for action in parser._actions:  # argparse has no public access to a parser's commands.
        if isinstance(action, argparse._SubParsersAction):
            for word in argv:
                if word in action.choices:
                    return _command_parser(action.choices[word], argv)
    return parser


def _long_flags(parser: argparse.ArgumentParser) -> list[str]:
    """List the documented long flags of a command."""
    return [
        flag
        for action in parser._actions
        if action.help != argparse.SUPPRESS
        for flag in action.option_strings
        if flag[:2] == "--"
    ]
