"""A model: ``weights``, ``predict``, ``examine``, ``calibrate``, ``convert``, ``export``."""

import argparse
import sys

from ..weights.names import NONE
from .flags import add_checkpoint


def add_commands(commands) -> None:
    """Adds this group's commands to the subparsers of ``qma-net``."""
    weights = commands.add_parser("weights", help="which weights, where published; check a file")
    weights.add_argument("files", nargs="*", help="weights to check")
    weights.set_defaults(run=_weights)

    predict = commands.add_parser("predict", help="masks and overlays of photographs")
    predict.add_argument(
        "files", nargs="+", help="photographs, folders, patterns; - reads the standard input"
    )
    add_checkpoint(predict)
    predict.add_argument("--out", required=True, metavar="DIR")
    predict.add_argument(
        "--threshold", type=float, default=0.5, help="marked above it, 0 to 1 (default 0.5)"
    )
    predict.add_argument(
        "--image-size", type=int, help="resize to this side (default: as the model was trained)"
    )
    predict.add_argument("--native", action="store_true", help="at the photograph's own size")
    predict.add_argument("--tta", action="store_true", help="average over mirror images")
    predict.add_argument("--device", default="", help="cpu or cuda (default: CUDA if any)")
    predict.add_argument(
        "--mixed", action="store_true", help="bfloat16, for processors that have its arithmetic"
    )
    predict.add_argument(
        "--compile", action="store_true", help="for many photographs: half a minute, then faster"
    )
    predict.set_defaults(run=_predict)

    examine = commands.add_parser(
        "examine", help="a report per photograph: mask, what cannot be read, the file, noise views"
    )
    examine.add_argument(
        "files", nargs="+", help="photographs, folders, patterns; - reads the standard input"
    )
    examine.add_argument("--out", required=True, metavar="DIR")
    add_checkpoint(examine, without="all but the mask is made")
    examine.add_argument("--native", action="store_true", help="at the photograph's own size")
    examine.add_argument(
        "--noiseprint_weights", default="", metavar="FILE", help="noiseprint++.th, for its view"
    )
    examine.add_argument(
        "--threshold", type=float, default=0.5, help="marked above it, 0 to 1 (default 0.5)"
    )
    examine.add_argument("--device", default="", help="cpu or cuda (default: CUDA if any)")
    examine.set_defaults(run=_examine)

    calibrate = commands.add_parser(
        "calibrate", help="what untouched photographs score, kept with the model"
    )
    calibrate.add_argument("--checkpoint", required=True, help="as of predict")
    calibrate.add_argument("--photos", required=True, nargs="+", help="photographs, folders")
    calibrate.add_argument(
        "--out",
        default="",
        metavar="DIR",
        help="the model is written here with it (default: into --checkpoint, where that is a "
        "directory of save_pretrained)",
    )
    calibrate.add_argument("--native", action="store_true", help="as examine --native looks")
    calibrate.add_argument("--device", default="", help="cpu or cuda (default: CUDA if any)")
    calibrate.set_defaults(run=_calibrate)

    convert = commands.add_parser("convert", help="a checkpoint as a directory for the hub")
    convert.add_argument("checkpoint", help="of BenCo's trainer")
    convert.add_argument("--out", required=True, metavar="DIR")
    convert.set_defaults(run=_convert)

    export = commands.add_parser("export", help="the model for other runtimes, verified")
    export.add_argument("--checkpoint", required=True)
    export.add_argument("--format", default="onnx", choices=["onnx"])
    export.add_argument("--out", required=True, metavar="FILE")
    export.add_argument("--images", nargs="*", default=[], help="photographs to verify it on")
    export.set_defaults(run=_export)


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
    from ..inference.predict import SCORE, load_predictor, predict_files

    predictor, note = load_predictor(
        args.checkpoint,
        args.device,
        image_size=args.image_size,
        mixed=args.mixed,
        compile=args.compile,
    )
    shown = "at their own size" if args.native else predictor.preprocessing
    print(f"qma-net: photographs {shown}", *predictor.notes, sep="; ", file=sys.stderr)
    errors = predict_files(
        args.files,
        args.out,
        predictor,
        threshold=args.threshold,
        native=args.native,
        tta=args.tta,
        note=note,
    )
    for error in errors:
        print(f"qma-net: {error}", file=sys.stderr)
    print(SCORE, file=sys.stderr)
    print(f"{args.out}/predictions.csv")
    if errors:
        sys.exit(1)


def _examine(args: argparse.Namespace) -> None:
    from ..examine.examine import examine_files
    from ..inference.predict import load_predictor

    predictor, note = None, ""
    if args.checkpoint != NONE:
        predictor, note = load_predictor(args.checkpoint, args.device)
        for said in predictor.notes:
            print(f"qma-net: {said}", file=sys.stderr)
    else:
        print("qma-net: no model, so no mask; all the rest is made", file=sys.stderr)
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
    for error in errors:
        print(f"qma-net: {error}", file=sys.stderr)
    if errors:
        sys.exit(1)


def _calibrate(args: argparse.Namespace) -> None:
    from ..examine.calibrate import calibrate, keep, place_of
    from ..inference.predict import load_predictor
    from ..modeling.calibration import FEW_PHOTOS

    place = place_of(args.checkpoint, args.out)
    predictor, _ = load_predictor(args.checkpoint, args.device)
    calibration, errors = calibrate(predictor, args.photos, native=args.native)
    for error in errors:
        print(f"qma-net: {error}", file=sys.stderr)
    if calibration.count < FEW_PHOTOS:
        print(
            f"qma-net: {calibration.count} photographs say little; {FEW_PHOTOS} or more are better",
            file=sys.stderr,
        )
    file = keep(calibration, predictor, place)
    print(f"{file}: {calibration.count} photographs, {calibration.input_description}")
    if errors:
        sys.exit(1)


def _convert(args: argparse.Namespace) -> None:
    from ..weights.locate import load_model

    load_model(args.checkpoint).save_pretrained(args.out)
    print(f"{args.out}: config.json, model.safetensors, README.md (a model card to complete)")


def _export(args: argparse.Namespace) -> None:
    from ..inference.export import export_onnx
    from ..weights.locate import load_model

    def say(message: str) -> None:
        print(f"qma-net: {message}", file=sys.stderr, flush=True)

    print(export_onnx(load_model(args.checkpoint), args.out, args.images, say=say))
