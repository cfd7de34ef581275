"""The launcher's own flags, model flags taken from a checkpoint, and the help for both."""

import argparse
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .checkpoints import (
    CHECKPOINT_NAME,
    newest_intact_checkpoint,
    output_folder,
    require_resumable,
)
from .contracts import install, replaces
from .torchrun import LaunchError

logger = logging.getLogger(__name__)

THREADS = "number of CPU threads to use (default: one per core)"
AUTO = "auto"  # --resume auto: the newest intact checkpoint in --output_dir.


@contextmanager
def report_invalid_flags(script: str) -> Iterator[None]:
    """Make parsers of flags raise a :class:`LaunchError`, instead of exiting with their usage.

    torchrun would restart a run that exits in this way.
    """
    before = argparse.ArgumentParser.error

    @replaces("argparse:ArgumentParser.error")
    def error(original: Callable, parser: argparse.ArgumentParser, message: str) -> None:
        raise LaunchError(f"{message}; qma-net {script} --help lists all flags")

    try:
        yield
    finally:
        install("argparse:ArgumentParser.error", before)


def parse_own_flags(
    flags: list[str], script: str = "train"
) -> tuple[argparse.Namespace, list[str]]:
    """Return the launcher's flags for a script, and the remaining ones for BenCo and the model."""
    return _own_parser(script).parse_known_args(flags)


def _own_parser(script: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qma-net train", add_help=False, allow_abbrev=False, usage=argparse.SUPPRESS
    )
    add = parser.add_argument_group("qma-net's own flags").add_argument
    add("--device", default="", help="cpu or cuda (default: CUDA if available)")
    add("--threads", type=int, metavar="N", help=THREADS)
    add("--cudnn", action="store_true", help="re-enable cuDNN, which BenCo disables")
    if script != "train":
        return parser
    group = parser.add_argument_group(
        "qma-net's own flags for train",
        "With --resume auto, training resumes from the newest intact checkpoint in --output_dir.",
    )
    add = group.add_argument
    period = (
        "save a checkpoint every N epochs; keep the two most recent, every 25th and the final "
        "one; 0 keeps BenCo's own schedule (every 25th epoch and the final one) (default: 1)"
    )
    add("--save_period", type=int, default=1, metavar="N", help=period)
    clip = "clip gradients to this norm; 0 disables clipping (default: 0)"
    add("--clip_grad", type=float, default=0.0, metavar="NORM", help=clip)
    skipped = (
        "stop after more than N optimizer steps in a row with a non-finite loss or gradient, "
        "or if an epoch has more than N such steps and they exceed 1%% of the epoch (default: 50)"
    )
    add("--max_skipped", type=int, default=50, metavar="N", help=skipped)
    skip = "skip the data check at startup"
    add("--no_data_check", "--no-check", action="store_true", help=skip)
    bad = (
        "skip image-mask pairs that fail the data check; filtered lists and the names of the "
        "excluded files are written to --output_dir/cleaned"
    )
    add("--skip_bad", action="store_true", help=bad)
    fit = (
        "train on crops at original resolution; requires a protocol that uses NativeDataset "
        "or SynthDataset; stored in the checkpoint, so prediction also runs at original resolution"
    )
    add("--fit", choices=("native",), default="", help=fit)
    allow = "comma-separated names of problems to ignore, as reported by `qma-net data check`"
    add("--allow", default="", metavar="A,B", help=allow)
    return parser


def check_model(flags: list[str]) -> None:
    """Reject an unknown model, and an image size that the model does not support.

    Raises:
        ConfigError: If no model of this name is registered.
        LaunchError: If the model works only at a different size.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--model", default="")
    parser.add_argument("--image_size", default="512")  # BenCo's default.
    given, _ = parser.parse_known_args(flags)
    from ..benco.registry import registered_model

    # Not imported above: python -m qma_net.launch.recipes warns if the module is already loaded.
    from .recipes import require_image_size

    if given.model:  # Otherwise BenCo's parser reports it.
        registered_model(given.model)
    require_image_size(given.model, given.image_size)


def complete_from_checkpoint(flags: list[str], *, fit: str = "") -> list[str]:
    """Fill in missing model flags from the checkpoint.

    ``--resume auto`` becomes the newest intact checkpoint in ``--output_dir``, or is removed if
    there is none. A checkpoint of QMA-Net that is resumed or tested is used instead of all other
    weight files. ``fit`` is the launcher's ``--fit``; a warning is logged if fine-tuning resizes
    images although the model was trained at their original resolution.

    Raises:
        LaunchError: If a folder given as a checkpoint contains no checkpoint, or .pth files with
            other names, or if ``--resume`` names a bare state dict.
        WeightsError: If the checkpoint cannot be read.
    """
    from ..benco.scripts import with_absolute_checkpoint_path

    flags = with_absolute_checkpoint_path(flags)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    weights = ("init_from", "backbone_weights", "noiseprint_weights")
    for name in ("model", "checkpoint_path", "resume", *weights):
        parser.add_argument(f"--{name}", default="")
    given, rest = parser.parse_known_args(flags)
    if given.resume == AUTO:
        parser.add_argument("--output_dir", default="./output_dir")  # BenCo's default.
        folder = output_folder(parser.parse_known_args(flags)[0])
        given.resume = str((folder and newest_intact_checkpoint(folder)) or "")
    elif given.resume and not given.resume.startswith("https"):  # BenCo downloads URLs.
        require_resumable(Path(given.resume))
    source: str | Path = given.init_from
    is_trained = given.model == "QMANet" and bool(given.checkpoint_path or given.resume)
    if is_trained:
        source = _resolve_checkpoint(Path(given.checkpoint_path or given.resume))
        # It contains all weights, so the files that the run started from may be missing.
        vars(given).update(dict.fromkeys(weights, ""), init_from=str(source))
    for name, value in vars(given).items():
        if value:
            rest += [f"--{name}", value]
    if given.model != "QMANet" or not source:
        return rest

    from ..weights.locate import read_config, read_preprocessing, read_source

    if is_trained:
        checkpoint = read_source(source, mapped=True)
        config, trained = checkpoint.config, checkpoint.preprocessing
    else:
        config, trained = read_config(source), read_preprocessing(source)
    known = config.as_flags()
    named = {flag.split("=")[0] for flag in rest}
    resizes = "--if_resizing" in named and not fit
    if resizes and not is_trained and trained and trained.fit == "native":
        logger.warning(
            "%s was trained at original resolution, but --if_resizing resizes the images; replace "
            "--if_resizing with --fit native (docs/training.md, Fine-tuning)",
            source,
        )
    if given.checkpoint_path and trained:  # Test images get the preprocessing used in training.
        if "--image_size" not in named:
            known += ["--image_size", str(trained.image_size)]
        if not {"--if_resizing", "--if_padding"} & named:
            rest.append("--if_padding" if trained.fit == "pad" else "--if_resizing")
            if trained.fit == "native":
                logger.warning(
                    "this model was trained on crops at original resolution, but BenCo's scripts "
                    "resize images; qma-net evaluate uses them at original resolution"
                )
    for flag, value in zip(known[::2], known[1::2], strict=True):
        if flag not in named:
            rest += [flag, value]
    logger.info("model flags from %s: %s", source, " ".join(known))
    return rest


def _resolve_checkpoint(path: Path) -> Path:
    """Return a checkpoint file, or the newest checkpoint in a folder."""
    from ..weights.locate import newest_checkpoint

    if not path.is_dir():
        return path
    for file in sorted(path.glob("*.pth")):
        if not CHECKPOINT_NAME.fullmatch(file.name):
            raise LaunchError(
                f"{path} contains {file.name}, and BenCo's test.py would read every .pth file "
                "there as a checkpoint; move all but checkpoint-<epoch>.pth elsewhere"
            )
    newest = newest_checkpoint(path)
    if newest is None:
        raise LaunchError(
            f"{path} contains no checkpoint-<epoch>.pth; pass the --output_dir of a training run"
        )
    return newest


def help_text(script: str = "train") -> str:
    """Return the help for QMA-Net's and the launcher's flags, with choices and defaults."""
    from inspect import cleandoc, signature

    from ..benco import QMANet
    from ..build import build_qma_net
    from ..modeling.config import DECODE_LEVELS, DECODERS, DFCM_STAGES, INTERACTIONS, SIZES

    choices = {"size": SIZES, "dfcm_stages": DFCM_STAGES, "decode_levels": DECODE_LEVELS}
    choices |= {"decoder": DECODERS, "interaction": INTERACTIONS}
    descriptions: dict[str, str] = {}
    for documented in (build_qma_net, QMANet):
        descriptions |= _documented_arguments(cleandoc(documented.__doc__ or ""))
    parser = _own_parser(script)
    group = parser.add_argument_group("flags of --model QMANet")
    for name, parameter in signature(QMANet).parameters.items():
        text = descriptions[name]
        if name in choices:
            text += f"; one of {', '.join(choices[name])}"
        default = parameter.default if parameter.default != "" else "not set"
        text = f"{text} (default: {default})".replace("%", "%%")
        group.add_argument(f"--{name}", metavar=name.upper(), help=text)
    return parser.format_help()


def _documented_arguments(docstring: str) -> dict[str, str]:
    """Return the descriptions in a docstring's ``Args:`` section in the style of help texts."""
    section = docstring.partition("Args:\n")[2]
    section = re.sub(r":\w+:`~?([\w. ]+)`", r"\1", section).replace("``", "")  # Markup.
    descriptions = {}
    for name, text in re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE):
        text = " ".join(text.split()).rstrip(".")
        # Names keep their capital letter.
        descriptions[name] = re.sub(r"^(A|[A-Z][a-z]+)\b", lambda word: word[0].lower(), text)
    return descriptions
