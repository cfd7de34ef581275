"""Flags that several commands share, and suggestions for mistyped flags."""

import argparse
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any, TypeAlias

from ..core.untrusted import one_line, printable_lines
from ..launch.flags import THREADS
from ..modeling.config import LOSS_FLAGS, QMANetConfig
from ..weights.names import NONE, RANDOM, SMALL

# What ``add_subparsers`` returns.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

# The flags of `--model QMANet`. They are listed here because reading the model's signature would
# import torch; a test compares the two.
MODEL_FLAGS = (
    *QMANetConfig.field_names(),
    *("backbone_weights", "noiseprint_weights", *LOSS_FLAGS),
    *("init_from", "gradient_checkpointing", "compile"),
)

# What ``--checkpoint`` accepts.
LOCAL_CHECKPOINT = (
    "a checkpoint written by BenCo's trainer, a folder of such checkpoints (the newest is used), a "
    "save_pretrained folder"
)
CHECKPOINT = f"{LOCAL_CHECKPOINT}, or a Hugging Face Hub ID"

ALLOWED_EXAMPLE = "such as mask-inverted,duplicate"
ALLOWED_PROBLEMS = (
    "comma-separated names of problems to ignore, as reported by `qma-net data check`, "
    + ALLOWED_EXAMPLE
)

# An unknown flag that is at least this similar to one of ours counts as a typo, not as a flag of a
# different model. The most similar flag of BenCo's models is --patch_size (0.83, --batch-size).
NEAR_MISS = 0.88

# A flag must be at least this similar to be suggested.
SUGGESTION = 0.75


def add_command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], None], **options: Any
) -> argparse.ArgumentParser:
    """Add a command and describe it by the docstring of the function that runs it."""
    text = run.__doc__ or ""
    summary = f"{text[:1].lower()}{text[1:].rstrip('.')}"
    parser = commands.add_parser(name, help=summary, description=text, **options)
    parser.set_defaults(run=run, command=parser)
    return parser


def add_checkpoint(parser: argparse.ArgumentParser, *, without_model: str = "") -> None:
    """Add ``--checkpoint``; ``without_model`` is the effect of ``none``, if that is allowed."""
    text = (
        f"{CHECKPOINT} (default: {SMALL}, which is included in the package); "
        f"'{RANDOM}' uses random weights, for testing"
    )
    if without_model:
        text += f"; '{NONE}' {without_model}"
    parser.add_argument("--checkpoint", default=SMALL, help=text)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``."""
    parser.add_argument(
        "--device", default="", help="cpu, cuda or cuda:N (default: CUDA if available)"
    )


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Add ``--threads``, which :func:`qma_net.cli.main` applies before it runs the command."""
    parser.add_argument("--threads", type=int, metavar="N", help=THREADS)


def split_names(names: str) -> list[str]:
    """Split ``"a,b"`` into ``["a", "b"]``."""
    return [name for name in names.split(",") if name]


def print_notes(*notes: str) -> None:
    """Print each note as a line on standard error."""
    for note in notes:
        print(f"qma-net: {one_line(note)}", file=sys.stderr)


def print_lines(text: object) -> None:
    """Print lines that may contain control characters, for example in file names."""
    print(printable_lines(text))


def reject_mistyped_flags(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Exit with an error if a flag is unknown, even if required arguments are missing.

    argparse would report only the missing arguments, although their flags may just be mistyped.
    """
    command, rest = parser, list(words)
    while command._subparsers:
        choices: Any = command._subparsers._group_actions[0].choices
        if not rest or rest[0] not in choices:
            return  # The parser reports it.
        command = choices[rest.pop(0)]
    if "--" in rest:
        rest = rest[: rest.index("--")]
    known = command._option_string_actions
    unknown = []
    for word in rest:
        flag = word.split("=")[0]
        is_abbreviation = command.allow_abbrev and any(name.startswith(flag) for name in known)
        if word.startswith("--") and " " not in flag and flag not in known and not is_abbreviation:
            unknown.append(word)
    args = argparse.Namespace(command=command)
    if "--model" in known:
        model = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        model.add_argument("--model", nargs="?", default=command.get_default("model"))
        model.parse_known_args(rest, args)
    reject_unknown_flags(args, unknown)


def reject_unknown_flags(args: argparse.Namespace, unknown: Sequence[str]) -> None:
    """Exit with an error if an argument is not recognized by the parser or the model.

    A command with ``--model`` passes further flags to that model. The flags of QMANet are known.
    Those of other models are known only after torch has been imported, so only near misses of our
    own flags are rejected.
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
        if matches := get_close_matches(word.split("=")[0], known, n=1, cutoff=SUGGESTION):
            rejected[index] = f"{word} (did you mean {matches[0]}?)"
    if rejected:
        command.error(f"unrecognized arguments: {' '.join(rejected)}")
