"""The paper's Figures 1, 3, 4 and 6, the failure cases, and the training curves.

Figure 4 needs only result files. Figures 1 and 6 need the unchanged images and checkpoints of the
evaluation; Figure 3 and the failure cases need the images, and either saved masks or checkpoints.
If something is missing, the figure or the affected part of it is omitted with a note. Figures 2
and 5 are drawings: ``docs/architecture.svg`` and ``docs/qmfd.svg``.
"""

from collections.abc import Callable

from ...core.errors import QMANetError
from ...modeling.config import DEFAULT_THRESHOLD
from ...modeling.decoder import QMFD
from ..collect import ModelResults, Results, setting_of
from ..model_tables import full_name
from . import Figure, FigureError
from .curves import draw_robustness, draw_training_curves
from .examples import EVALUATE, Example, load_network, predict_mask, select_examples
from .failures import draw_failures
from .grad_cam import cam_panels, tapped_interaction
from .image_grid import Panel, draw_grid, mask_image

GRID_ROWS, CAM_ROWS = 9, 4  # Images in Figure 3, and in Figures 1 and 6.
MAX_MODELS = 8  # In Figure 3.

TARGET = (
    "The target of Grad-CAM is the mean logit over the predicted mask, which is outlined: the "
    "pixels above 0.5 or, if there are none, the top 1%. Every map is scaled to its own range, so "
    "their magnitudes cannot be compared. A map without positive values is dark throughout."
)
SELECTION = (
    "The images were not cherry-picked: the tampered images of each test set are ranked by the F1 "
    "of {}, and images at regular intervals of this ranking are shown."
)


def draw_figures(results: Results) -> list[Figure]:
    """Draw all figures; notes in ``results`` explain why a figure is omitted."""
    figures = []
    for name, draw in FIGURES:
        try:
            figures.append(draw(results))
        except QMANetError as error:
            results.notes.append(f"{name} is omitted: {error}")
    return [*figures, *draw_training_curves(results.curves)]


def draw_encoder_cams(results: Results) -> Figure:
    """Draw Figure 1: contributions of both encoders, with and without interaction (DFCM)."""
    ours = _default_model(results)
    wanted = (setting_of({"dfcm_stages": "none"}), ours.variant)
    ablated = next((m for m in results.models if (m.setting, m.variant) == wanted), None)
    if ablated is None:
        raise FigureError(
            "no results of the model without DFCM found; run bash shell/ablations.sh "
            f"--only without-dfcm, then {EVALUATE}"
        )
    examples = select_examples(ours, CAM_ROWS, results.notes)
    rows = [(example.test_set, example.panels) for example in examples]
    columns = ["image", "ground truth"]
    for name, model in (("without DFCM", ablated), ("QMA-Net", ours)):
        columns += [f"{name}:\n{part}" for part in ("prediction", "RGB encoder", "noise encoder")]
        network = load_network(model)
        with tapped_interaction(network) as layers:
            for example, (_, panels) in zip(examples, rows, strict=True):
                panels += cam_panels(model, network, example, layers)
    caption = (
        "Grad-CAM of R_4 and N_4, the outputs of the last interaction (DFCM_4). "
        f"Without DFCM, the encoders do not interact: {full_name(ablated)}. {TARGET} "
        + SELECTION.format(full_name(ours))
    )
    canvas = draw_grid(columns, rows, with_heat_scale=True)
    title = "Figure 1: Contributions of both encoders (Grad-CAM)"
    return Figure("figure-1", title, caption, canvas)


def draw_predictions(results: Results) -> Figure:
    """Draw Figure 3: predictions of every model for images of every test set."""
    models = [model for model in results.models if model.clean]
    if not models:
        raise FigureError(f"no results on a test set found; run {EVALUATE}")
    examples = select_examples(models[0], GRID_ROWS, results.notes)
    caption = (
        f"White: pixels above {DEFAULT_THRESHOLD}. Below each mask: its pixel F1 as evaluated. "
        + SELECTION.format(full_name(models[0]))
    )
    # Order: ours, other models, ablations.
    models.sort(key=lambda model: (not model.is_default, model.is_ours))
    columns = ["image", "ground truth"]
    rows: list[tuple[str, list[Panel | None]]] = [(e.test_set, [*e.panels]) for e in examples]
    omitted = []
    for model in models:
        try:
            if len(columns) == MAX_MODELS + 2:
                raise FigureError(f"the figure is limited to {MAX_MODELS} models")
            predictions = [_prediction_panel(model, example) for example in examples]
            if not any(predictions):
                raise FigureError("no result for these images")
        except QMANetError as error:
            omitted.append(f"{full_name(model)} ({error})")
            continue
        columns.append(full_name(model))
        for panel, (_, panels) in zip(predictions, rows, strict=True):
            panels.append(panel)
    if len(columns) == 2:
        raise FigureError(f"neither masks nor checkpoints found: {'; '.join(omitted)}")
    if omitted:
        caption += f" Omitted: {'; '.join(omitted)}."
    return Figure("figure-3", "Figure 3: Predictions", caption, draw_grid(columns, rows))


def _prediction_panel(model: ModelResults, example: Example) -> Panel | None:
    """Draw a prediction; None if the model was not evaluated on the image."""
    f1 = example.f1_of(model)
    if f1 is None:
        return None
    mask = predict_mask(model, example) > DEFAULT_THRESHOLD
    return Panel(mask_image(mask, example.thumbnail.shape), f"F1 {f1:.2f}")


def draw_level_cams(results: Results) -> Figure:
    """Draw Figure 6: contributions of the decoder's fused levels F_i, the outputs of its DCMs."""
    model = _default_model(results)
    examples = select_examples(model, CAM_ROWS, results.notes)
    network = load_network(model)
    decoder = network.decoder
    assert isinstance(decoder, QMFD)  # Other decoders are ablations.
    layers = list(decoder.fuse)
    rows = [(e.test_set, [*e.panels, *cam_panels(model, network, e, layers)]) for e in examples]
    levels = [f"F{'₁₂₃₄'[level]} (1/{4 << level})" for level in decoder.levels]
    caption = (
        "Grad-CAM of the decoder's fused features F_i, the outputs of its DCMs, with their scale "
        f"relative to the input. {TARGET} " + SELECTION.format(full_name(model))
    )
    columns = ["image", "ground truth", "prediction", *levels]
    canvas = draw_grid(columns, rows, with_heat_scale=True)
    title = "Figure 6: Contributions of the fused levels (Grad-CAM)"
    return Figure("figure-6", title, caption, canvas)


def _default_model(results: Results) -> ModelResults:
    """Return the paper's model or, if it is missing, its first variant."""
    model = next((model for model in results.models if model.is_default and model.clean), None)
    if model is None:
        raise FigureError(f"no results of the default model on a test set found; run {EVALUATE}")
    return model


# Each figure's name, as used in a sentence, and the function that draws it.
FIGURES: list[tuple[str, Callable[[Results], Figure]]] = [
    ("Figure 1", draw_encoder_cams),
    ("Figure 3", draw_predictions),
    ("Figure 4", draw_robustness),
    ("Figure 6", draw_level_cams),
    ("The figure of failure cases", draw_failures),
]
