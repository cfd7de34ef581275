"""Flags that several commands share, and suggestions for mistyped flags."""

import argparse
import sys
from collections.abc import Callable, Sequence
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
    *("backbone_weights", "noiseprint_weights", "alpha", "beta", "dice_smoothing", "bce"),
    *("init_from", "gradient_checkpointing"),
)

# How similar an unknown flag must be to one of ours to be a typing error rather than a flag of
# another model. The closest flag of BenCo's models is --patch_size (0.83, --batch-size).
NEAR_MISS = 0.88


def add_command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], None], **options: Any
) -> argparse.ArgumentParser:
    """Add a command, which is described by the docstring of the function that runs it."""
    text = run.__doc__ or ""
    summary = f"{text[:1].lower()}{text[1:].rstrip('.')}"
    parser = commands.add_parser(name, help=summary, description=text, **options)
    parser.set_defaults(run=run, command=parser)
    return parser


def add_checkpoint(parser: argparse.ArgumentParser, *, without_model: str = "") -> None:
    """Add ``--checkpoint``; ``without_model`` is what the command still does with ``none``."""
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


def print_notes(*notes: str) -> None:
    """Print one-line notes on standard error."""
    for note in notes:
        print(f"qma-net: {note}", file=sys.stderr)


def reject_unknown_flags(args: argparse.Namespace, unknown: Sequence[str]) -> None:
    """End the process if nothing accepts one of the words that the parser did not recognize.

    A command with ``--model`` passes further flags to that model. Those of QMANet are known; of
    other models, which are known only after torch is loaded, near misses of our flags are rejected.
    """
    command: argparse.ArgumentParser = args.command
    model = getattr(args, "model", "")
    known = [
        flag
        for action in command._actions  # argparse has no public access to a parser's flags.
        if action.help != argparse.SUPPRESS
        for flag in action.option_strings
        if flag.startswith("--")
    ]
    rejected = list(unknown)
    if model:
        rejected = [word.split("=")[0] for word in unknown if word.startswith("--")]
    if model == "QMANet":
        model_flags = tuple(f"--{name}" for name in MODEL_FLAGS)
        known += model_flags
        # argparse accepts abbreviations of the model's flags.
        rejected = [f for f in rejected if not any(name.startswith(f) for name in model_flags)]
    elif model:
        rejected = [
            flag
            for flag in rejected
            if flag.replace("_", "-") not in known
            and get_close_matches(flag, known, cutoff=NEAR_MISS)
        ]
    for index, word in enumerate(rejected):
        if matches := get_close_matches(word.split("=")[0], known, n=1):
            rejected[index] = f"{word} (did you mean {matches[0]}?)"
    if rejected:
        command.error(f"unrecognized arguments: {' '.join(rejected)}")
