"""The paper's Figures 1, 3, 4 and 6 from result files and the checkpoints they name.

Figure 4 needs result files alone. The others need the photographs where they were, and the
checkpoints, unchanged; Figure 3 makes do with saved masks. What is missing leaves its figure, or
its part of it, out and is said. Figures 2 and 5 are drawings: ``docs/architecture.svg`` and
``docs/qmfd.svg``.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from textwrap import wrap

import cv2
import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure as Canvas
from PIL import Image
from torch import Tensor, nn

from ..data.check import mask_as_benco
from ..data.listing import ListingError, read_listings
from ..files import written_beside
from ..metrics import THRESHOLD
from ..predictor import normalised
from ..weights import WeightsError, load_checkpoint, sha256
from .curves import Drawn
from .paper import ATTACKS, SETS, paper_levels
from .results import Result, Results, Run, setting_of
from .tables import name_of

DPI = 130
THUMBNAIL = 220  # longest side of a photograph in a figure, in pixels
PANEL = 1.35  # width of a panel in inches
GRID_ROWS, CAM_ROWS, MOST_COLUMNS = 9, 4, 8
HEAT = "inferno"  # even steps look even, also without colour
CURVES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
OUTLINE = (255, 255, 255)
EVALUATE = "qma-net evaluate --checkpoint FILE --test-sets SETS --out DIR --save-masks"
TARGET = (
    "Grad-CAM's target is the mean logit over the predicted mask, the pixels above 0.5 (outlined); "
    "where none is, over the highest 1 %. Every map is stretched from its own smallest value to "
    "its largest, so maps do not compare in strength; one without a positive part stays dark."
)
BY_RANK = (
    "The photographs are not picked: each test set's tampered ones are ranked by the F1 of {}, and "
    "those at even steps of the rank are shown, good and bad."
)


class NotDrawn(ValueError):
    """A figure, or a part of one, without what it is made of; one line says what is missing."""


@dataclass(frozen=True)
class Picture:
    """A figure before it is a file; ``title`` goes without its number."""

    canvas: Canvas
    title: str
    caption: str


@dataclass(frozen=True)
class Panel:
    """One picture of a grid, uint8 ``(h, w, 3)``, and the words under it."""

    pixels: np.ndarray
    below: str = ""


@dataclass(frozen=True)
class Example:
    """A tampered photograph of a test set, and its truth."""

    set: str
    image: Path
    truth: Path

    @property
    def pixels(self) -> np.ndarray:
        """uint8 ``(H, W, 3)``, turned no other way than BenCo reads it."""
        return np.asarray(Image.open(self.image).convert("RGB"))

    @property
    def thumbnail(self) -> np.ndarray:
        """The same, ``THUMBNAIL`` pixels long."""
        pixels = self.pixels
        scale = THUMBNAIL / max(pixels.shape[:2])
        size = [max(1, round(side * scale)) for side in pixels.shape[1::-1]]
        return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)

    @property
    def truth_panel(self) -> Panel:
        """White where it was manipulated."""
        truth = mask_as_benco(self.truth)
        return Panel(black_and_white(truth, self.thumbnail.shape))


def draw_all(results: Results, folder: Path) -> list[Drawn]:
    """Writes ``figure-<number>.png``; for what cannot be drawn, ``results.notes`` says why."""
    drawn = []
    for number, draw in FIGURES.items():
        try:
            picture = draw(results)
        except (NotDrawn, WeightsError) as error:
            results.notes.append(f"Figure {number} is not drawn: {error}")
            continue
        path = Path(folder) / f"figure-{number}.png"
        with written_beside(path) as beside:
            picture.canvas.savefig(beside, format="png", dpi=DPI)
        drawn.append(Drawn(path, f"Figure {number}: {picture.title}", picture.caption))
    return drawn


# Which photographs


def examples(run: Run, total: int, notes: list[str]) -> list[Example]:
    """Photographs of a run's test sets, at even steps of their rank by F1; about ``total``.

    ``notes`` gets a line for every test set that is left out.

    Raises:
        NotDrawn: where no test set has its photographs and truths where they were.
    """
    found, missing = [], []
    names = in_paper_order(run.clean)
    for name in names:
        try:
            if len(found) == total:
                raise NotDrawn(f"{total} photographs of other test sets fill them")
            found += _of_set(run.clean[name], max(1, total // len(names)))
        except (NotDrawn, ListingError) as error:
            missing.append(f"{name} is not in every figure with photographs: {error}")
    if not found:
        raise NotDrawn(missing[0])
    notes += [note for note in missing if note not in notes]
    return found


def _of_set(result: Result, count: int) -> list[Example]:
    ranked = sorted(result.values("f1").items(), key=lambda item: (item[1], item[0]))
    if not ranked:
        raise NotDrawn(f"{result.path.with_suffix('.csv')} has no tampered photograph; {EVALUATE}")
    truths = {
        pair.image: pair.mask
        for listing in read_listings(result.header["path"])
        for pair in listing.pairs
    }
    count = min(count, len(ranked))
    chosen = [Path(ranked[int((i + 0.5) / count * len(ranked))][0]) for i in range(count)]
    found = []
    for image in chosen:
        truth = truths.get(image)
        for path in (image, truth):
            if path is None or not path.is_file():
                raise NotDrawn(f"{path or f'the truth of {image}'} is not there any more")
        found.append(Example(result.set, image, truth))
    return found


def in_paper_order(names: Iterable[str]) -> list[str]:
    """The paper's test sets first, in its order."""
    order = list(dict.fromkeys(SETS.values()))
    return sorted(names, key=lambda name: order.index(name) if name in order else len(order))


def f1_of(run: Run, example: Example) -> float | None:
    """The pixel F1 of one photograph as evaluated."""
    result = run.clean.get(example.set)
    return result.values("f1").get(str(example.image)) if result else None


# What a checkpoint says


def load(run: Run) -> nn.Module:
    """The model that a run's figures are of, on CUDA where there is one.

    Raises:
        NotDrawn: for other models than QMA-Net, and for a file that is gone or has changed.
    """
    path = Path(run.header["checkpoint"])
    if not run.is_ours:
        raise NotDrawn(f"{run.model} without saved masks ({EVALUATE})")
    if not path.is_file():
        raise NotDrawn(f"checkpoint {path} is not there any more ({EVALUATE})")
    if _sha256(path, path.stat().st_mtime_ns) != run.header["checkpoint_sha256"]:
        raise NotDrawn(f"checkpoint {path} has changed since it was evaluated ({EVALUATE})")
    return load_checkpoint(path).eval().to("cuda" if torch.cuda.is_available() else "cpu")


@cache
def _sha256(path: Path, changed: int) -> str:
    return sha256(path)


def model_input(pixels: np.ndarray, header: dict, device: torch.device) -> Tensor:
    """uint8 ``(H, W, 3)`` as evaluation showed it to the model: float32 ``(1, 3, h, w)``."""
    side = header["image_size"]
    if header["fit"] == "resize":
        pixels = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_LINEAR)
    elif header["fit"] == "pad":
        height, width = pixels.shape[:2]
        padding = ((0, max(0, side - height)), (0, max(0, side - width)), (0, 0))
        pixels = np.pad(pixels, padding)[:side, :side]
    return normalised(pixels, device)


def without_padding(seen: np.ndarray, pixels: np.ndarray, header: dict) -> np.ndarray:
    """A map of what the model saw, ``(h, w)``, without what was added to the photograph."""
    height, width = pixels.shape[:2]
    return seen[:height, :width] if header["fit"] == "pad" else seen


def prediction(run: Run, example: Example, model: Callable[[], nn.Module]) -> np.ndarray:
    """The probabilities of one photograph, ``(h, w)``: as they were saved, or else from the model.

    Raises:
        NotDrawn: where neither is to be had.
    """
    saved = _saved_mask(run.clean[example.set], example.image)
    if saved is not None:
        return saved
    model, pixels = model(), example.pixels
    image = model_input(pixels, run.header, next(model.parameters()).device)
    with torch.inference_mode():
        seen = model(image).mask_logits[0, 0].float().sigmoid().cpu().numpy()
    return without_padding(seen, pixels, run.header)


def _saved_mask(result: Result, image: Path) -> np.ndarray | None:
    """What ``evaluate --save-masks`` kept of a photograph, named by its place in the list."""
    paths = [row["path"] for row in result.rows]
    folder = result.path.with_name(f"{result.path.stem}_masks")
    stem = folder / f"{paths.index(str(image)):06d}_{image.stem}"
    if stem.with_name(f"{stem.name}.npy").is_file():
        return np.load(stem.with_name(f"{stem.name}.npy"))
    if stem.with_name(f"{stem.name}.png").is_file():
        return np.asarray(Image.open(stem.with_name(f"{stem.name}.png"))) / np.float32(255)
    return None


# Grad-CAM


class MaskLogits(nn.Module):
    """A model that answers with its mask's logits alone, ``(B, 1, H, W)``: what Grad-CAM takes."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return self.model(image).mask_logits


def predicted_region(logits: Tensor) -> Tensor:
    """Bool, of the same shape: above a probability of 0.5; where none is, the highest 1 %."""
    region = logits > 0
    if region.any():
        return region
    count = max(1, logits.numel() // 100)
    return logits >= logits.flatten().topk(count).values[-1]


def mean_logit(logits: Tensor) -> Tensor:
    """The scalar that Grad-CAM explains: the mean logit over the predicted region."""
    return logits[predicted_region(logits)].mean()


def grad_cams(
    model: nn.Module, image: Tensor, layers: Sequence[nn.Module]
) -> tuple[np.ndarray, np.ndarray]:
    """Grad-CAM (Selvaraju 2017) of several layers, in one pass forward and back.

    Args:
        model: from ``image`` to an output with ``mask_logits``; in eval mode.
        image: ``(1, 3, H, W)``.
        layers: modules with output ``(1, C, h, w)``, in the order in which they run; all matter
            to the mask.

    Returns:
        The maps ``(layers, H, W)``, each from 0 to 1, and the mask's logits ``(H, W)``.

    Raises:
        NotDrawn: without the grad-cam package.
    """
    try:
        from pytorch_grad_cam import GradCAM
    except ModuleNotFoundError as error:
        raise NotDrawn(f"{error.name} is not installed: pip install 'qma-net[report]'") from None
    targets = [mean_logit]
    with GradCAM(MaskLogits(model), list(layers)) as cam:
        cam(image, targets)
        maps = cam.compute_cam_per_layer(image, targets, eigen_smooth=False)
        model.zero_grad()
        return np.concatenate(maps)[:, 0], cam.outputs[0, 0].detach().cpu().numpy()


def cam_panels(
    run: Run, model: nn.Module, example: Example, layers: Sequence[nn.Module]
) -> tuple[list[Panel], Panel]:
    """A panel with every layer's Grad-CAM over the photograph, and one with the prediction."""
    pixels, thumbnail = example.pixels, example.thumbnail
    image = model_input(pixels, run.header, next(model.parameters()).device)
    maps, logits = grad_cams(model, image, layers)
    region = predicted_region(torch.from_numpy(logits)).numpy()
    maps = [without_padding(one, pixels, run.header) for one in maps]
    region = without_padding(region, pixels, run.header)
    predicted = black_and_white(region, thumbnail.shape)
    f1 = f1_of(run, example)
    words = [] if f1 is None else [f"F1 {f1:.2f}"]
    words += [] if (logits > 0).any() else ["none above 0.5"]
    outlined = predicted[..., 0] > 0
    cams = [
        Panel(heat_over(thumbnail, one, outlined), "" if one.any() else "nothing positive")
        for one in maps
    ]
    return cams, Panel(predicted, ", ".join(words))


# Panels and grids


def black_and_white(region: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Bool of any size as uint8 ``(h, w, 3)`` of ``shape``, white where it is True."""
    size = (shape[1], shape[0])
    fitted = cv2.resize(region.astype(np.float32), size, interpolation=cv2.INTER_LINEAR) > 0.5
    return np.repeat(fitted[..., None], 3, axis=2).astype(np.uint8) * 255


def heat_over(pixels: np.ndarray, heat: np.ndarray, region: np.ndarray) -> np.ndarray:
    """A map in 0..1 over the grey photograph, both uint8 ``(h, w, 3)``, the region outlined."""
    height, width = pixels.shape[:2]
    heat = cv2.resize(heat, (width, height), interpolation=cv2.INTER_LINEAR)
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None] / 255
    share = 0.3 + 0.5 * heat[..., None]  # the photograph shows where the map says little
    mixed = np.uint8(255 * ((1 - share) * grey + share * colormaps[HEAT](heat)[..., :3]))
    outlines, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.ascontiguousarray(mixed), outlines, -1, OUTLINE, 1)


def grid(
    columns: Sequence[str],
    rows: Sequence[tuple[str, Sequence[Panel | None]]],
    heat: bool = False,
) -> Canvas:
    """Panels in rows with a name each, under headings; rows are as high as their photographs.

    Args:
        columns: headings.
        rows: pairs of the name (shown where it changes) and the panels; None is left blank.
        heat: whether to add the scale of Grad-CAM.
    """
    heights = [
        min(1.5, max(one.pixels.shape[0] / one.pixels.shape[1] for one in panels if one))
        for _, panels in rows
    ]
    below = 0.17 if any(one and one.below for _, panels in rows for one in panels) else 0
    inches = [PANEL * height + below for height in heights]
    headings = [
        [line for part in heading.split("\n") for line in wrap(part, 19)] for heading in columns
    ]
    top = 0.16 * max(map(len, headings)) + 0.09
    width = (PANEL + 0.04) * len(columns) + 0.25 + (0.6 if heat else 0)
    canvas = Canvas(figsize=(width, sum(inches) + top), layout="constrained")
    canvas.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    places = canvas.subplots(
        len(rows), len(columns), squeeze=False, gridspec_kw={"height_ratios": inches}
    )
    for axes, heading in zip(places[0], headings, strict=True):
        axes.set_title("\n".join(heading), fontsize=8)
    last = None
    for line, (name, panels) in zip(places, rows, strict=True):
        for axes, panel in zip(line, panels, strict=True):
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if panel is None:
                axes.text(0.5, 0.5, "no result", ha="center", va="center", fontsize=7, color="grey")
                continue
            axes.imshow(panel.pixels)
            axes.set_xlabel(panel.below, fontsize=7, labelpad=2)
        line[0].set_ylabel(name if name != last else "", fontsize=8)
        last = name
    if heat:
        scale = canvas.colorbar(
            ScalarMappable(cmap=HEAT), ax=places, fraction=0.1 / width, pad=0.1 / width, aspect=40
        )
        scale.ax.tick_params(labelsize=7)
        scale.set_label("Grad-CAM", fontsize=8)
    return canvas


# The figures


def backbone_cams(results: Results) -> Picture:
    """Figure 1: what both backbones' outputs contribute, with and without interaction (DFCM)."""
    ours = _default(results)
    wanted = setting_of({"dfcm_stages": "none"})
    classical = next(
        (one for one in results.runs if one.setting == wanted and one.variant == ours.variant), None
    )
    if classical is None:
        raise NotDrawn(
            "no results of the model without DFCM: bash shell/ablations.sh --only without-dfcm, "
            f"then {EVALUATE}"
        )
    chosen = examples(ours, CAM_ROWS, results.notes)
    panels = {example.image: [Panel(example.thumbnail), example.truth_panel] for example in chosen}
    for run in (classical, ours):
        model = load(run)
        layers = (model.rgb_backbone.stages[-1], model.noise_backbone.stages[-1])
        for example in chosen:
            cams, predicted = cam_panels(run, model, example, layers)
            panels[example.image] += [predicted, *cams]
    columns = ["image", "truth"]
    for name in ("without DFCM:", "QMA-Net:"):
        columns += [f"{name}\n{what}" for what in ("prediction", "RGB backbone", "noise backbone")]
    caption = (
        "Grad-CAM of the last stage of both backbones, before that level's interaction. Without "
        f"DFCM the backbones never meet: {name_of(classical)}. {TARGET} "
        + BY_RANK.format(name_of(ours))
    )
    canvas = grid(columns, [(one.set, panels[one.image]) for one in chosen], heat=True)
    return Picture(canvas, "what both backbones' outputs contribute (Grad-CAM)", caption)


def qualitative(results: Results) -> Picture:
    """Figure 3: predictions of every checkpoint on photographs of every test set."""
    runs = [run for run in results.runs if run.clean]
    if not runs:
        raise NotDrawn(f"no results on a test set: {EVALUATE}")
    chosen, ranking = examples(runs[0], GRID_ROWS, results.notes), name_of(runs[0])
    # ours, then other models, then ablations
    runs.sort(key=lambda run: (not run.is_default, run.is_ours))
    columns, cells, without = [], [], []
    for run in runs:
        if len(columns) == MOST_COLUMNS:
            without.append(f"{name_of(run)} ({MOST_COLUMNS} models fit)")
            continue
        try:
            cells.append(_predictions(run, chosen))
            columns.append(name_of(run))
        except (NotDrawn, WeightsError) as error:
            without.append(f"{name_of(run)} ({error})")
    if not columns:
        raise NotDrawn(f"neither masks nor checkpoints: {'; '.join(without)}")
    rows = [
        (example.set, [Panel(example.thumbnail), example.truth_panel, *predicted])
        for example, predicted in zip(chosen, zip(*cells, strict=True), strict=True)
    ]
    caption = (
        f"White: pixels above {THRESHOLD}; under them the photograph's pixel F1 as evaluated. "
        + BY_RANK.format(ranking)
        + (f" Not shown: {'; '.join(without)}." if without else "")
    )
    return Picture(grid(["image", "truth", *columns], rows), "predictions", caption)


def _predictions(run: Run, chosen: list[Example]) -> list[Panel | None]:
    """A panel for every photograph; None on test sets that a run has no result on."""

    @cache
    def model() -> nn.Module:
        return load(run)

    panels = []
    for example in chosen:
        f1 = f1_of(run, example)
        if f1 is None:
            panels.append(None)
            continue
        marked = prediction(run, example, model) > THRESHOLD
        panels.append(Panel(black_and_white(marked, example.thumbnail.shape), f"F1 {f1:.2f}"))
    if not any(panels):
        raise NotDrawn("no result on these photographs")
    return panels


def robustness(results: Results) -> Picture:
    """Figure 4: pixel F1 against the strength of every attack, on every test set."""
    runs = [run for run in results.runs if run.attacked]
    if not runs:
        raise NotDrawn(
            "no results under attack: qma-net robust --checkpoint FILE --test-sets SETS --out DIR"
        )
    paper_s = set(list(dict.fromkeys(SETS.values()))[:4])
    names = in_paper_order({name for run in runs for name in run.attacked})
    names = [name for name in names if name in paper_s] or names
    there = {attack for run in runs for name in names for attack, _ in run.attacked.get(name, {})}
    attacks = [one for one in ATTACKS.values() if one in there] or sorted(there)
    size = (max(5, 2.3 * len(names) + 0.6), 2.1 * len(attacks) + 0.7)
    canvas = Canvas(figsize=size, layout="constrained")
    places = canvas.subplots(len(attacks), len(names), squeeze=False, sharey=True)
    for line, attack in zip(places, attacks, strict=True):
        at = {level for run in runs for name in names for level in _levels(run, name, attack)}
        levels = [level for level in paper_levels().get(attack, []) if level in at]
        levels += sorted(at - set(levels))
        for axes, name in zip(line, names, strict=True):
            _draw_attack(axes, runs, name, attack, levels)
        line[0].set_ylabel(f"{attack.replace('-', ' ')}: pixel F1", fontsize=8)
    for axes, name in zip(places[0], names, strict=True):
        axes.set_title(name, fontsize=9)
    places[0, 0].set_ylim(bottom=0)
    lines = {line.get_label(): line for axes in places.flat for line in axes.get_lines()}
    shown = {label: line for label, line in lines.items() if not label.startswith("_")}
    canvas.legend(
        shown.values(),
        shown,
        loc="outside lower center",
        ncols=2 if places.shape[1] > 1 else 1,  # one column of panels is as wide as one label
        frameon=False,
        fontsize=8,
    )
    caption = (
        "Mean pixel F1 of the tampered photographs at every strength of an attack, weak to strong "
        "from left to right; dashed: the photographs as they are, which are no point of a curve. "
        "Attacks come before resizing."
    )
    return Picture(canvas, "robustness", caption)


def _levels(run: Run, name: str, attack: str) -> dict[int, Result]:
    """A run's results under one attack on one test set, by level."""
    place = run.attacked.get(name, {})
    return {level: result for (one, level), result in place.items() if one == attack}


def _draw_attack(axes, runs: list[Run], name: str, attack: str, levels: list[int]) -> None:
    """One panel: a curve for each run that has this attack on this test set."""
    for i, run in enumerate(runs):
        found = _levels(run, name, attack)
        points = [
            (at, found[level].figures["pixel_f1"])
            for at, level in enumerate(levels)
            if level in found
        ]
        if not points:
            continue
        unit = next(iter(found.values())).header["attack"].get("unit", "").split(" (")[0]
        axes.set_xlabel(unit, fontsize=7)
        style = {"color": CURVES[i % len(CURVES)], "lw": 2 if run.is_default else 1.2}
        marker = MARKERS[i // len(CURVES) % len(MARKERS)]
        axes.plot(*zip(*points, strict=True), label=name_of(run), marker=marker, ms=3.5, **style)
        if name in run.clean:
            clean = run.clean[name].figures["pixel_f1"]
            axes.axhline(clean, label="_clean", ls="--", color=style["color"], lw=0.9, alpha=0.7)
    axes.set_xticks(range(len(levels)), levels)
    axes.set_xlim(-0.3, len(levels) - 0.7)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def level_cams(results: Results) -> Picture:
    """Figure 6: what each fused level F_i of the decoder (after its DCM) contributes."""
    run = _default(results)
    chosen = examples(run, CAM_ROWS, results.notes)
    model = load(run)
    rows = []
    for example in chosen:
        cams, predicted = cam_panels(run, model, example, model.decoder.fuse)
        row = [Panel(example.thumbnail), example.truth_panel, predicted, *cams]
        rows.append((example.set, row))
    levels = [f"$F_{level + 1}$ (1/{4 << level})" for level in model.decoder.levels]
    caption = (
        "Grad-CAM of the decoder's fused features F_i, the outputs of its DCMs, in brackets their "
        f"side as a share of the input's. {TARGET} " + BY_RANK.format(name_of(run))
    )
    canvas = grid(["image", "truth", "prediction", *levels], rows, heat=True)
    return Picture(canvas, "what the fused levels contribute (Grad-CAM)", caption)


def _default(results: Results) -> Run:
    """The paper's model, or the one of another size that stands first."""
    run = next((run for run in results.runs if run.is_default and run.clean), None)
    if run is None:
        raise NotDrawn(f"no results of the default model on a test set: {EVALUATE}")
    return run


FIGURES = {1: backbone_cams, 3: qualitative, 4: robustness, 6: level_cams}
