"""The launcher's own flags, and those that a checkpoint knows."""

import argparse
import os
import re
from pathlib import Path

from .process import LaunchError, say


def own_flags(flags: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The launcher's flags, and the rest: BenCo's and the model's."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--device", default="")
    parser.add_argument("--cudnn", action="store_true")
    parser.add_argument("--save_period", type=int, default=0)
    return parser.parse_known_args(flags)


def complete_from_checkpoint(flags: list[str]) -> list[str]:
    """Adds the model flags that a named checkpoint knows and the command line leaves out."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("model", "checkpoint_path", "resume", "init_from"):
        parser.add_argument(f"--{name}", default="")
    given, rest = parser.parse_known_args(flags)
    if given.checkpoint_path:
        rest += ["--checkpoint_path", os.path.abspath(given.checkpoint_path)]
    for name in ("model", "resume", "init_from"):
        if getattr(given, name):
            rest += [f"--{name}", getattr(given, name)]
    source = given.checkpoint_path or given.resume or given.init_from
    if given.model != "QMANet" or not source:
        return rest

    from ..weights.checkpoint import checkpoint_config

    checkpoint = newest_checkpoint(source)
    known = checkpoint_config(checkpoint).as_flags()
    named = {flag.split("=")[0] for flag in rest}
    for flag, value in zip(known[::2], known[1::2], strict=True):
        if flag not in named:
            rest += [flag, value]
    if not given.init_from and not {"--noiseprint_weights", "--backbone_weights"} & named:
        rest += ["--init_from", str(checkpoint)]
    say(f"model flags from {checkpoint}: {' '.join(known)}")
    return rest


def newest_checkpoint(path: str) -> Path:
    """The checkpoint a path names: itself, or the newest ``checkpoint-<epoch>.pth`` in a folder."""
    path = Path(path)
    if not path.is_dir():
        return path
    files = sorted(path.glob("*.pth"))
    strange = [file.name for file in files if not re.fullmatch(r"checkpoint-\d+\.pth", file.name)]
    if strange or not files:
        found = f"{strange[0]} among the .pth files" if strange else "no .pth file"
        raise LaunchError(
            f"got {found} of {path}, expected only checkpoint-<epoch>.pth: BenCo's test.py "
            "reads every .pth file there as one"
        )
    return max(files, key=lambda file: int(file.stem.split("-")[1]))
