"""The paper's Figures 1, 3, 4 and 6 from result files and the checkpoints they name.

Figure 4 needs result files alone. The others need the photographs where they were, and the
checkpoints, unchanged; Figure 3 makes do with saved masks. What is missing leaves its figure, or
its part of it, out and is said. Figures 2 and 5 are drawings: ``docs/architecture.svg`` and
``docs/qmfd.svg``.
"""

from functools import cache
from pathlib import Path

from torch import nn

from ...core.files import written_beside
from ...evaluation.metrics import THRESHOLD
from ...modeling.state import WeightsError
from ..layout import Figure
from ..measured import name_of
from ..results import Results, Run, setting_of
from .answers import load, prediction
from .cams import cam_panels
from .examples import EVALUATE, Example, NotDrawn, evaluated_f1, examples
from .panels import Panel, Picture, black_and_white, grid
from .robustness import robustness

DPI = 130
GRID_ROWS, CAM_ROWS = 9, 4  # photographs of Figure 3, and of Figures 1 and 6
MOST_COLUMNS = 8  # checkpoints of Figure 3

TARGET = (
    "Grad-CAM's target is the mean logit over the predicted mask, the pixels above 0.5 (outlined); "
    "where none is, over the highest 1 %. Every map is stretched from its own smallest value to "
    "its largest, so maps do not compare in strength; one without a positive part stays dark."
)

BY_RANK = (
    "The photographs are not picked: each test set's tampered ones are ranked by the F1 of {}, and "
    "those at even steps of the rank are shown, good and bad."
)


def draw_all(results: Results, folder: Path) -> list[Figure]:
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
        drawn.append(Figure(path, f"Figure {number}: {picture.title}", picture.caption))
    return drawn


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
        f1 = evaluated_f1(run, example)
        if f1 is None:
            panels.append(None)
            continue
        marked = prediction(run, example, model) > THRESHOLD
        panels.append(Panel(black_and_white(marked, example.thumbnail.shape), f"F1 {f1:.2f}"))
    if not any(panels):
        raise NotDrawn("no result on these photographs")
    return panels


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
