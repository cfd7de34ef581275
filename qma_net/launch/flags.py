"""The launcher's own flags, those that a checkpoint knows, and what ``--help`` says of both."""

import argparse
import os
import re
from pathlib import Path

from .process import LaunchError, say
from .saving import NAME, newest_whole, output_folder

AUTO = "auto"  # --resume auto: the newest whole checkpoint of --output_dir


def own_flags(flags: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The launcher's flags, and the rest: BenCo's and the model's."""
    return own_parser().parse_known_args(flags)


def own_parser() -> argparse.ArgumentParser:
    """The launcher's flags; ``--resume auto`` is BenCo's flag with a value of ours."""
    parser = argparse.ArgumentParser(
        prog="qma-net train", add_help=False, allow_abbrev=False, usage=argparse.SUPPRESS
    )
    group = parser.add_argument_group("the launcher's flags")
    add = group.add_argument
    add("--device", default="", help="cpu or cuda (default: CUDA if any)")
    add("--cudnn", action="store_true", help="turn cuDNN back on, which BenCo turns off")
    group = parser.add_argument_group(
        "the launcher's flags for train, besides --resume auto (the newest whole checkpoint of "
        "--output_dir; without one it starts at 0)"
    )
    add = group.add_argument
    add(
        "--save_period",
        type=int,
        default=1,
        metavar="N",
        help="a checkpoint every N epochs; the last two, every 25th and the run's last are kept; "
        "0: BenCo's own alone (every 25th) (default 1)",
    )
    add(
        "--clip_grad",
        type=float,
        default=0.0,
        metavar="NORM",
        help="largest norm of a step's gradient; 0: no limit (default 0)",
    )
    add(
        "--max_skipped",
        type=int,
        default=50,
        metavar="N",
        help="end after more than N optimiser steps in a row with a non-finite loss or gradient, "
        "or more than N and 1%% of the steps in an epoch (default 50)",
    )
    add("--no_data_check", action="store_true", help="start without qma-net data check --fast")
    add(
        "--skip_bad",
        action="store_true",
        help="train and test without the pairs that the check finds faulty, on lists in "
        "--output_dir",
    )
    add(
        "--fit",
        choices=("native",),
        default="",
        help="trained on crops at their own resolution (a protocol of NativeDataset and "
        "SynthDataset): the checkpoint says so, and photographs are looked at so",
    )
    add("--allow", default="", metavar="A,B", help="problems of data check that are right here")
    return parser


def complete_from_checkpoint(flags: list[str]) -> list[str]:
    """Adds the model flags that a named checkpoint knows and the command line leaves out.

    ``--resume auto`` becomes the newest whole checkpoint of ``--output_dir``, or nothing.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("model", "checkpoint_path", "resume", "init_from"):
        parser.add_argument(f"--{name}", default="")
    given, rest = parser.parse_known_args(flags)
    if given.resume == AUTO:
        folder = _output_dir(rest)
        given.resume = str((folder and newest_whole(folder)) or "")
    if given.checkpoint_path:
        rest += ["--checkpoint_path", os.path.abspath(given.checkpoint_path)]
    for name in ("model", "resume", "init_from"):
        if getattr(given, name):
            rest += [f"--{name}", getattr(given, name)]
    source = given.checkpoint_path or given.resume or given.init_from
    if given.model != "QMANet" or not source:
        return rest

    from ..weights.checkpoint import mapped_checkpoint

    checkpoint = newest_checkpoint(source)
    content = mapped_checkpoint(checkpoint)
    known = content.config.as_flags()
    named = {flag.split("=")[0] for flag in rest}
    trained = content.preprocessing
    if given.checkpoint_path and trained:  # images reach a test as they reached the training
        if "--image_size" not in named:
            known += ["--image_size", str(trained.image_size)]
        if not {"--if_resizing", "--if_padding"} & named:
            rest.append("--if_padding" if trained.fit == "pad" else "--if_resizing")
            if trained.fit == "native":
                say(
                    "trained on crops at their own resolution, and BenCo's scripts resize: "
                    "qma-net evaluate shows it images at their own size"
                )
    for flag, value in zip(known[::2], known[1::2], strict=True):
        if flag not in named:
            rest += [flag, value]
    if not given.init_from and not {"--noiseprint_weights", "--backbone_weights"} & named:
        rest += ["--init_from", str(checkpoint)]
    say(f"model flags from {checkpoint}: {' '.join(known)}")
    return rest


def _output_dir(flags: list[str]) -> Path | None:
    """BenCo's ``--output_dir``, with its default; None where it is empty."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--output_dir", default="./output_dir")
    return output_folder(parser.parse_known_args(flags)[0])


def newest_checkpoint(path: str) -> Path:
    """The checkpoint a path names: itself, or the newest ``checkpoint-<epoch>.pth`` in a folder."""
    path = Path(path)
    if not path.is_dir():
        return path
    files = sorted(path.glob("*.pth"))
    strange = [file.name for file in files if not NAME.fullmatch(file.name)]
    if strange or not files:
        found = f"{strange[0]} among the .pth files" if strange else "no .pth file"
        raise LaunchError(
            f"got {found} of {path}, expected only checkpoint-<epoch>.pth: BenCo's test.py "
            "reads every .pth file there as one"
        )
    return max(files, key=lambda file: int(NAME.fullmatch(file.name)[1]))


def help_text() -> str:
    """QMA-Net's flags and the launcher's, with choices and defaults; BenCo's own come after."""
    from inspect import cleandoc, signature

    from ..benco import QMANet
    from ..build import build_qma_net
    from ..modeling.config import DECODE_LEVELS, DECODERS, DFCM_STAGES, SIZES, VIEWS

    choices = {"size": SIZES, "dfcm_stages": DFCM_STAGES, "decode_levels": DECODE_LEVELS}
    choices |= {"decoder": DECODERS, "views": VIEWS}
    meanings = {}
    for documented in (build_qma_net, QMANet):
        meanings |= _documented_arguments(cleandoc(documented.__doc__))
    parser = own_parser()
    group = parser.add_argument_group("QMA-Net's flags (--model QMANet)")
    for name, parameter in signature(QMANet).parameters.items():
        words = [meanings[name].rstrip(".")]
        if name in choices:
            words.append(f"one of {', '.join(choices[name])}" if name != "views" else "")
        default = parameter.default if parameter.default != "" else "none"
        described = "; ".join(filter(None, words)) + f" (default {default})"
        group.add_argument(f"--{name}", metavar=name.upper(), help=described.replace("%", "%%"))
    return parser.format_help()


def _documented_arguments(docstring: str) -> dict[str, str]:
    """What a docstring's ``Args:`` say of each, in one line of plain text."""
    section = docstring.partition("Args:\n")[2]
    entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
    plain = {name: " ".join(text.split()) for name, text in entries}
    return {
        name: re.sub(r":\w+:`~?([\w. ]+)`", r"\1", text).replace("``", "")
        for name, text in plain.items()
    }
