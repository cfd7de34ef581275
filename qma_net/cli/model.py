"""``weights``, ``predict``, ``examine``, ``calibrate``, ``convert``, ``export``: models."""

import argparse
import sys
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from ..modeling.config import DEFAULT_THRESHOLD
from ..weights.names import NONE
from .flags import Commands, add_checkpoint, add_command, add_device


class DeprecatedSpelling(argparse.Action):
    """Accepts an old spelling of a flag, with a note that names the new one."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Store the value."""
        new = f"--{self.dest.replace('_', '-')}"
        print(f"qma-net: {option_string} is deprecated; use {new}", file=sys.stderr)
        setattr(namespace, self.dest, values)


def add_commands(commands: Commands) -> None:
    """Add this group's commands to the parser of ``qma-net``."""
    weights = add_command(
        commands, "weights", "list published weights and their terms, or check weight files"
    )
    weights.add_argument("files", nargs="*", help="weight files to check")
    weights.set_defaults(run=_weights)

    predict = add_command(commands, "predict", "write masks and overlays of photos")
    _add_photos(predict)
    add_checkpoint(predict)
    add = predict.add_argument
    add("--out", required=True, metavar="DIR", help="folder for the results")
    _add_threshold(predict)
    add("--image-size", type=int, help="resize to this side in pixels (default: as in training)")
    _add_native(predict)
    add("--tta", action="store_true", help="average over mirrored images")
    add_device(predict)
    add("--mixed", action="store_true", help="use bfloat16 where the processor supports it")
    add(
        "--compile",
        action="store_true",
        help="compile the model: takes half a minute, then each photo is faster",
    )
    predict.set_defaults(run=_predict)

    examine = add_command(
        commands,
        "examine",
        "write a report per photo: mask, unreadable regions, metadata, noise views",
    )
    _add_photos(examine)
    add = examine.add_argument
    add("--out", required=True, metavar="DIR", help="folder for the reports")
    add_checkpoint(examine, without_model="report everything except the mask")
    _add_native(examine)
    add(
        "--noiseprint-weights",
        default="",
        metavar="FILE",
        help="noiseprint++.th, to include the NoisePrint++ view",
    )
    add(
        "--noiseprint_weights",
        dest="noiseprint_weights",
        action=DeprecatedSpelling,
        help=argparse.SUPPRESS,
    )
    _add_threshold(examine)
    add_device(examine)
    examine.set_defaults(run=_examine)

    calibrate = add_command(
        commands,
        "calibrate",
        "measure the scores of authentic photos and store them with the model",
    )
    add = calibrate.add_argument
    add("--checkpoint", required=True, help="as in predict")
    add("--photos", required=True, nargs="+", help="authentic photos, or folders of them")
    add(
        "--out",
        default="",
        metavar="DIR",
        help="folder for the calibrated model (default: --checkpoint, if that is a directory "
        "written by save_pretrained)",
    )
    add("--native", action="store_true", help="as in examine --native")
    add_device(calibrate)
    calibrate.set_defaults(run=_calibrate)

    convert = add_command(
        commands, "convert", "convert a checkpoint to a directory for the Hugging Face Hub"
    )
    add = convert.add_argument
    add("checkpoint", help="checkpoint of BenCo's trainer")
    add("--out", required=True, metavar="DIR", help="directory to write")
    convert.set_defaults(run=_convert)

    export = add_command(commands, "export", "export the model to ONNX and verify the result")
    add = export.add_argument
    add("--checkpoint", required=True, help="as in predict")
    add("--format", default="onnx", choices=["onnx"], help="file format (default: onnx)")
    add("--out", required=True, metavar="FILE", help="file to write")
    add("--images", nargs="*", default=[], help="photos to verify the exported model on")
    export.set_defaults(run=_export)


def _add_photos(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files", nargs="+", help="photos, folders or glob patterns; - reads a photo from stdin"
    )


def _add_threshold(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threshold",
        type=float,
        default=DEFAULT_THRESHOLD,
        help=f"mark pixels whose probability is higher, from 0 to 1 (default: {DEFAULT_THRESHOLD})",
    )


def _add_native(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--native", action="store_true", help="process photos at their original size"
    )


def _print_notes(notes: Iterable[str]) -> None:
    for note in notes:
        print(f"qma-net: {note}", file=sys.stderr)


def _weights(args: argparse.Namespace) -> None:
    from ..weights.describe import describe
    from ..weights.sources import PUBLISHED

    for file in args.files:
        print(describe(file))
    if args.files:
        return
    for item in PUBLISHED:
        print(f"{item.name}: {item.purpose}\n  published: {item.source}\n  terms: {item.terms}")
        if item.sha256:
            print(f"  SHA-256: {item.sha256}")


def _predict(args: argparse.Namespace) -> None:
    from ..inference.predict import SCORE, predict_files
    from ..inference.predictor import load_predictor

    predictor, note = load_predictor(
        args.checkpoint,
        args.device,
        image_size=args.image_size,
        mixed=args.mixed,
        compile=args.compile,
    )
    size = "at their own size" if args.native else predictor.preprocessing
    print(f"qma-net: photos {size}", *predictor.notes, sep="; ", file=sys.stderr)
    errors = predict_files(
        args.files,
        args.out,
        predictor,
        threshold=args.threshold,
        native=args.native,
        tta=args.tta,
        note=note,
    )
    _print_notes(errors)
    print(SCORE, file=sys.stderr)
    print(f"{args.out}/predictions.csv")
    if errors:
        sys.exit(1)


def _examine(args: argparse.Namespace) -> None:
    from ..examine.pipeline import examine_files
    from ..inference.predictor import load_predictor

    predictor, note = None, ""
    if args.checkpoint != NONE:
        predictor, note = load_predictor(args.checkpoint, args.device)
        _print_notes(predictor.notes)
    else:
        print("qma-net: no model, so the reports have no mask", file=sys.stderr)
    folders, errors = examine_files(
        args.files,
        args.out,
        predictor,
        threshold=args.threshold,
        native=args.native,
        noiseprint_weights=args.noiseprint_weights,
        note=note,
    )
    for folder in folders:
        print(folder / "report.html")
    _print_notes(errors)
    if errors:
        sys.exit(1)


def _calibrate(args: argparse.Namespace) -> None:
    from ..examine.calibrate import calibrate, calibration_folder, save_calibration
    from ..inference.predictor import load_predictor
    from ..modeling.calibration import FEW_PHOTOS

    folder = calibration_folder(args.checkpoint, args.out)
    predictor, _ = load_predictor(args.checkpoint, args.device)
    calibration, errors = calibrate(predictor, args.photos, native=args.native)
    _print_notes(errors)
    if calibration.count < FEW_PHOTOS:
        print(
            f"qma-net: {calibration.count} photos are too few for a reliable calibration; "
            f"use {FEW_PHOTOS} or more",
            file=sys.stderr,
        )
    file = save_calibration(calibration, predictor, folder)
    print(f"{file}: {calibration.count} photos, {calibration.input_description}")
    if errors:
        sys.exit(1)


def _convert(args: argparse.Namespace) -> None:
    from ..weights.locate import load_model

    load_model(args.checkpoint).save_pretrained(args.out)
    print(f"{args.out}: config.json, model.safetensors, README.md (a model card to complete)")


def _export(args: argparse.Namespace) -> None:
    from ..inference.export import export_onnx
    from ..weights.locate import load_model

    warnings.simplefilter("ignore")  # The tracer of torch has many.
    print(export_onnx(load_model(args.checkpoint), args.out, args.images))
