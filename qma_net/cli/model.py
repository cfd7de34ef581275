"""The commands for models and photos, such as ``predict``, ``examine`` and ``serve``."""

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

from ..modeling.config import DEFAULT_THRESHOLD, ConfigError
from ..weights.names import NONE, SMALL
from .flags import (
    CHECKPOINT,
    Commands,
    add_checkpoint,
    add_command,
    add_device,
    add_threads,
    print_lines,
    print_notes,
)

NATIVE = f"process photos at original resolution ({SMALL} always does)"


class _DeprecatedSpelling(argparse.Action):
    """Accepts an old spelling of a flag, and prints a note with the new one."""

    def __call__(self, parser: Any, args: Any, values: Any, option_string: Any = None) -> None:
        print_notes(f"{option_string} is deprecated; use --{self.dest.replace('_', '-')}")
        setattr(args, self.dest, values)


def add_commands(commands: Commands) -> None:
    """Add this group's commands to the parser of ``qma-net``."""
    weights = add_command(commands, "weights", _weights)
    weights.add_argument("files", nargs="*", help="weight files or folders to check")

    predict = add_command(commands, "predict", _predict)
    _add_photos(predict, "folder for the results")
    add_checkpoint(predict)
    add = predict.add_argument
    add(
        "--image-size",
        type=int,
        metavar="N",
        help="resize photos to N x N pixels (default: as in training)",
    )
    tta = "test-time augmentation: average over the photo and its flips (four times slower)"
    add("--tta", action="store_true", help=tta)
    add("--mixed", action="store_true", help="use bfloat16 mixed precision")
    compile_help = "compile the model with torch.compile (takes about 30 s for each image size)"
    add("--compile", action="store_true", help=compile_help)

    examine = add_command(commands, "examine", _examine)
    _add_photos(examine, "folder for the reports")
    add_checkpoint(examine, without_model="omits the mask from the reports")
    add = examine.add_argument
    noiseprint = "path to noiseprint++.th, which adds the NoisePrint++ view"
    add("--noiseprint-weights", default="", metavar="FILE", help=noiseprint)
    trust_list = "trusted certificates (PEM) for the signers of Content Credentials (C2PA)"
    add("--trust-list", default="", metavar="FILE", help=trust_list)
    omit_location = "leave GPS data and place names out of the reports"
    add("--omit-location", action="store_true", help=omit_location)
    add("--noiseprint_weights", action=_DeprecatedSpelling, help=argparse.SUPPRESS)

    calibrate = add_command(commands, "calibrate", _calibrate)
    add = calibrate.add_argument
    add("--checkpoint", required=True, help=CHECKPOINT)
    add("--photos", required=True, nargs="+", help="authentic photos, or folders of such photos")
    out = (
        "folder for the calibrated model (default: --checkpoint, if it is a save_pretrained folder)"
    )
    add("--out", default="", metavar="DIR", help=out)
    add("--native", action="store_true", help=NATIVE)
    add_device(calibrate)
    add_threads(calibrate)

    add = add_command(commands, "convert", _convert).add_argument
    add("checkpoint", help="a checkpoint written by BenCo's trainer")
    out = "folder to write to; with --state-dict, file to write"
    add("--out", required=True, metavar="DIR", help=out)
    bare = (
        "write only the weights, to the file given by --out; this also works for BenCo's other "
        "models"
    )
    add("--state-dict", action="store_true", help=bare)

    export = add_command(commands, "export", _export)
    add = export.add_argument
    add("--checkpoint", required=True, help=CHECKPOINT)
    add("--format", default="onnx", choices=["onnx"], help="file format (default: onnx)")
    add("--out", required=True, metavar="FILE", help="file to write")
    add("--images", nargs="*", default=[], help="photos used to verify the exported model")
    add_threads(export)

    serve = add_command(commands, "serve", _serve, allow_abbrev=False)
    serve.epilog = "With --model, all other flags are passed to that model."
    add_checkpoint(serve, without_model="shows everything except the mask")
    add = serve.add_argument
    port = "port to listen on; 0 selects a free one (default: 7860)"
    add("--port", type=int, default=7860, help=port)
    host = "address to listen on (default: 127.0.0.1, which is reachable from this machine only)"
    add("--host", default="127.0.0.1", help=host)
    add("--model", default="", help="model in BenCo's registry to use instead of QMANet")
    add_device(serve)
    add_threads(serve)
    examples = "folder of authentic photos used to create the example images"
    add("--examples", default="", metavar="DIR", help=examples)
    root_path = "path or URL at which a reverse proxy serves the page"
    add("--root-path", default="", metavar="PATH", help=root_path)
    token = (
        "access token of at least 16 characters; required if --host makes the page reachable from "
        "other machines"
    )
    add("--token", default="", help=token)


def _add_photos(parser: argparse.ArgumentParser, out: str) -> None:
    """Add the arguments that ``predict`` and ``examine`` have in common."""
    add = parser.add_argument
    add(
        "files",
        nargs="+",
        help="photos, folders or glob patterns; - reads one photo from stdin",
    )
    add("--out", required=True, metavar="DIR", help=out)
    add(
        "--threshold",
        type=float,
        default=DEFAULT_THRESHOLD,
        help="mark pixels with a mask value above this threshold (between 0 and 1; "
        f"default: {DEFAULT_THRESHOLD})",
    )
    add("--native", action="store_true", help=NATIVE)
    add_device(parser)
    add_threads(parser)


def _weights(args: argparse.Namespace) -> None:
    """List published weights and their licenses, or check weight files and folders."""
    from ..weights.describe import describe
    from ..weights.sources import PUBLISHED

    for file in args.files:
        print_lines(describe(file))
    for item in [] if args.files else PUBLISHED:
        print(f"{item.name}: {item.purpose}\n  published: {item.source}\n  terms: {item.terms}")
        if item.sha256:
            print(f"  SHA-256: {item.sha256}")


def _predict(args: argparse.Namespace) -> None:
    """Write masks and overlays for photos, and a table of their scores."""
    from ..inference.predict import SCORE, has_scores, predict_files
    from ..inference.predictor import load_predictor

    if args.native and args.image_size is not None:
        raise ConfigError("--image-size has no effect with --native; omit one of them")
    options = {"image_size": args.image_size, "mixed": args.mixed, "compile": args.compile}
    predictor, note = load_predictor(args.checkpoint, args.device, **options)
    preprocessing = predictor.preprocessing.describe(native=args.native)
    print_notes(f"processing photos {preprocessing}", *predictor.notes)
    errors = predict_files(
        args.files,
        args.out,
        predictor,
        threshold=args.threshold,
        native=args.native,
        tta=args.tta,
        note=note,
    )
    print_notes(*errors)
    if has_scores(args.out):
        print(SCORE, file=sys.stderr)
    print_lines(f"{args.out}/predictions.csv")
    if errors:
        sys.exit(1)


def _examine(args: argparse.Namespace) -> None:
    """Write a report for each photo: mask, origin, metadata and leads."""
    from ..examine.index import INDEX, foreign_files, has_index
    from ..examine.pipeline import examine_files
    from ..inference.predictor import load_predictor

    predictor, note = None, ""
    if args.checkpoint != NONE:
        predictor, note = load_predictor(args.checkpoint, args.device)
        print_notes(*predictor.notes)
    else:
        print_notes("no model, so the reports have no mask")
    folders, errors = examine_files(
        args.files,
        args.out,
        predictor,
        threshold=args.threshold,
        native=args.native,
        noiseprint_weights=args.noiseprint_weights,
        trust_list=args.trust_list,
        omit_location=args.omit_location,
        note=note,
    )
    for folder in folders:
        print_lines(folder / "report.html")
    out = Path(args.out)
    if has_index(out) and not foreign_files(out):
        print_lines(out / INDEX)
    print_notes(*errors)
    if errors:
        sys.exit(1)


def _calibrate(args: argparse.Namespace) -> None:
    """Measure the scores of authentic photos and store them with the model."""
    from ..examine.calibrate import calibrate, calibration_folder, save_calibration
    from ..inference.predictor import load_predictor
    from ..modeling.calibration import FEW_PHOTOS

    folder = calibration_folder(args.checkpoint, args.out)
    predictor, _ = load_predictor(args.checkpoint, args.device)
    calibration, errors = calibrate(predictor, args.photos, native=args.native)
    print_notes(*errors)
    if calibration.count < FEW_PHOTOS:
        print_notes(
            f"{calibration.count} photos are too few for a reliable calibration; "
            f"use {FEW_PHOTOS} or more"
        )
    file = save_calibration(calibration, predictor, folder)
    print(f"{file}: {calibration.count} photos, {calibration.input_description}")
    if errors:
        sys.exit(1)


def _convert(args: argparse.Namespace) -> None:
    """Convert a checkpoint to a save_pretrained folder for the Hugging Face Hub."""
    from ..weights.convert import convert, write_state_dict

    if args.state_dict:
        write_state_dict(args.checkpoint, args.out)
        print(args.out)
        return
    convert(args.checkpoint, args.out)
    print(f"{args.out}: config.json, model.safetensors, README.md (a model card to complete)")


def _export(args: argparse.Namespace) -> None:
    """Export the model to ONNX and verify the result."""
    from ..inference.export import export_onnx
    from ..weights.locate import load_model

    warnings.simplefilter("ignore")  # The tracer of torch emits many.
    print(export_onnx(load_model(args.checkpoint), args.out, args.images))


def _serve(args: argparse.Namespace) -> None:
    """Start a local web page for examining photos."""
    from ..web.serve import serve

    # The packaged model is the default only for QMA-Net itself.
    without_checkpoint = (NONE, SMALL) if args.model else (NONE,)
    serve(
        "" if args.checkpoint in without_checkpoint else args.checkpoint,
        host=args.host,
        port=args.port,
        model=args.model,
        model_flags=args.model_flags,
        device=args.device,
        examples=args.examples,
        root_path=args.root_path,
        token=args.token,
    )
