"""Tests of the report's figures: selected images, Grad-CAM maps, and missing inputs."""

import json
import shutil
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from conftest import TINY, photograph
from qma_net.data.listing import read_listings
from qma_net.evaluation.evaluate import evaluate
from qma_net.evaluation.images import BenCoImages
from qma_net.evaluation.results import read_result_table
from qma_net.evaluation.settings import Settings
from qma_net.modeling import config
from qma_net.modeling.qma_net import QMANetOutput
from qma_net.report.collect import ModelResults, ResultFile, collect
from qma_net.report.figures import draw as figures
from qma_net.report.figures import examples as report_examples
from qma_net.report.figures.draw import draw_figures
from qma_net.report.figures.examples import (
    Example,
    FigureError,
    load_network,
    model_input,
    predict_mask,
    select_examples,
)
from qma_net.report.figures.failures import draw_failures, worst_images
from qma_net.report.figures.grad_cam import (
    cam_panels,
    grad_cams,
    mean_logit,
    predicted_region,
    tapped_interaction,
)
from qma_net.report.figures.image_grid import Panel, draw_grid
from sample_archives import set_rows, write_result, write_set

SIDE = 64


@pytest.fixture(scope="module")
def tiny_size_for_all():
    """Register the size for module fixtures, and use one thread, which is faster here."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(config.SIZES, "tiny", TINY)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def work(tmp_path_factory, tiny_size_for_all):
    """A default model, with saved masks, and one without DFCM, evaluated on two test sets."""
    from qma_net.benco import QMANet

    folder = tmp_path_factory.mktemp("figures")
    write_set(folder / "CASIAv1", 4)
    write_set(folder / "own", 3, (48, 80))
    rows = set_rows(folder / "own", 3)
    authentic = folder / "authentic.png"
    cv2.imwrite(str(authentic), photograph(64, 64, 9))
    (folder / "own.json").write_text(json.dumps([[str(authentic), "Negative"], *rows]))
    for name, flags in (("ours", {}), ("none", {"dfcm_stages": "none"})):
        torch.manual_seed(0)
        with pytest.warns(UserWarning, match="random encoders"):
            model = QMANet(size="tiny", views="srm,bayar", **flags)
        checkpoint = folder / f"{name}.pth"
        torch.save({"model": model.state_dict()}, checkpoint)
        sets = [folder / "CASIAv1", folder / "own.json"]
        masks = "npy" if name == "ours" else ""
        settings = Settings("resize", SIDE, 2)
        out = folder / "out" / name
        evaluate([checkpoint], sets, out, settings=settings, workers=0, save_masks=masks)
    content = json.loads((folder / "out/ours/CASIAv1.json").read_text(encoding="utf-8"))
    (folder / "out/robust").mkdir()
    for level in (100, 50):
        content["pixel_f1"] = level / 200
        content["header"]["attack"] = {"name": "jpeg", "level": level, "unit": "quality"}
        (folder / f"out/robust/jpeg-{level}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def results(work):
    return collect([work / "out"])


@pytest.fixture(scope="module")
def drawn(results):
    """All figures of the paper by stem."""
    return {figure.stem: figure for _, draw in figures.FIGURES for figure in [draw(results)]}


def test_every_figure_is_drawn_with_an_explanation(results, drawn, monkeypatch):
    ready = [(stem, lambda _, figure=figure: figure) for stem, figure in drawn.items()]
    monkeypatch.setattr(figures, "FIGURES", ready)
    all_figures = draw_figures(results)
    stems = [*(f"figure-{n}" for n in (1, 3, 4, 6)), "failures"]
    assert [figure.stem for figure in all_figures] == stems
    assert not results.notes
    for figure in all_figures:
        figure.canvas.savefig(png := BytesIO(), format="png", dpi=130)
        pixels = np.asarray(Image.open(png).convert("RGB"))
        assert pixels.std() > 20
        assert pixels.shape[1] <= 1600
    for number in (1, 6):
        assert "mean logit over the predicted mask" in drawn[f"figure-{number}"].caption
    for number in (1, 3, 6):
        assert "ranked by the F1 of QMA-Net (tiny" in drawn[f"figure-{number}"].caption


def axes_and_texts(figure):
    """Return all axes with an image, and all titles and labels of a figure."""
    axes = figure.canvas.axes
    texts = [text for a in axes for text in (a.get_title(), a.get_xlabel(), a.get_ylabel())]
    return [a for a in axes if a.images], [text for text in texts if text]


def test_figure_1_compares_both_encoders_with_and_without_dfcm(drawn):
    panels, texts = axes_and_texts(drawn["figure-1"])
    assert len(panels) == 4 * 8  # Two images of each test set.
    for name in ("without DFCM", "QMA-Net"):
        for part in ("prediction", "RGB encoder", "noise encoder"):
            assert f"{name}:\n{part}" in texts
    assert "CASIAv1" in texts
    assert "own" in texts


def test_figure_3_shows_predictions_with_the_evaluated_f1(work, drawn):
    panels, texts = axes_and_texts(drawn["figure-3"])
    assert len(panels) == (4 + 3) * 4
    f1 = {row["path"]: row["f1"] for row in read_result_table(work / "out/none/own.csv")}
    assert sum(bool(axes.get_xlabel()) for axes in panels) == 7 * 2
    assert {f"F1 {f1[str(work / f'own/Tp/{i}.png')]:.2f}" for i in range(3)} <= set(texts)
    assert "Omitted" not in drawn["figure-3"].caption


def test_figure_4_orders_levels_from_weak_to_strong(results, drawn):
    canvas = drawn["figure-4"].canvas
    (axes,) = canvas.axes
    curve, clean = axes.get_lines()
    assert [label.get_text() for label in axes.get_xticklabels()] == ["100", "50"]
    assert list(curve.get_ydata()) == [0.5, 0.25]
    assert clean.get_linestyle() == "--"
    ours = next(model for model in results.models if model.attacked)
    assert clean.get_ydata()[0] == ours.clean["CASIAv1"].summary["pixel_f1"]
    assert axes.get_title() == "CASIAv1"
    assert "jpeg" in axes.get_ylabel()
    assert canvas.legends[0].get_texts()[0].get_text().startswith("QMA-Net (tiny")


def test_figure_6_shows_the_four_fused_levels(drawn):
    panels, texts = axes_and_texts(drawn["figure-6"])
    assert len(panels) == 4 * 7
    assert [word for word in texts if word.startswith("F") and "/" in word] == [
        f"F{'₁₂₃₄'[i]} (1/{4 * 2**i})" for i in range(4)
    ]


def test_worst_images_have_the_lowest_f1_or_the_most_marked_pixels():
    columns = ("path", "label", "f1", "marked")
    table = [
        ("tampered with false alarms", 1, 0.0, 0.3),
        ("tampered without hit", 1, 0.0, 0.0),
        ("tampered, good", 1, 0.9, 0.1),
        ("tampered, bad", 1, 0.2, 0.1),
        ("tampered, undefined", 1, None, 0.9),
        ("authentic, unmarked", 0, None, 0.0),
        ("authentic, marked", 0, None, 0.1),
        ("authentic, most marked", 0, None, 0.6),
    ]
    result = ResultFile(Path("own.json"), {"header": {"set": "own"}})
    result.rows = [dict(zip(columns, row, strict=True)) for row in table]
    assert worst_images(result, 3, authentic=False) == [
        "tampered with false alarms",
        "tampered without hit",
        "tampered, bad",
    ]
    authentic = ["authentic, most marked", "authentic, marked"]
    assert worst_images(result, 3, authentic=True) == authentic
    assert worst_images(result, 1, authentic=True) == authentic[:1]


def test_failure_cases_show_image_ground_truth_mask_and_scores(work, results):
    """The authentic image is shown because its row says that a quarter of it is marked."""
    model = next(model for model in results.models if model.clean)
    own = model.clean["own"]
    rows = own.rows
    own.rows = [row | ({} if row["label"] else {"marked": 0.25}) for row in rows]
    try:
        figure = draw_failures(results)
    finally:
        own.rows = rows
    panels, texts = axes_and_texts(figure)
    assert len(panels) == (4 + 3 + 1) * 4
    headings = [axes.get_title() for axes in panels[:4]]
    assert headings == ["image", "ground truth", "mask", "pixels above 0.5"]
    for name in ("CASIAv1", "own", "own\nauthentic"):
        assert texts.count(name) == 1
    shown = [axes.get_xlabel() for axes in panels]
    f1 = sorted(row["f1"] for row in rows if row["label"])
    assert [text.split(",")[0] for text in shown[19:28:4]] == [f"F1 {value:.2f}" for value in f1]
    score = next(row["score"] for row in rows if not row["label"])
    assert shown[28:] == ["authentic.png", "authentic", f"score {score:.2f}", "25.0% marked"]
    assert not panels[29].images[0].get_array().any()  # The ground truth is empty.


def test_images_are_selected_at_regular_ranks(work, results):
    rows = [row for row in read_result_table(work / "out/ours/own.csv") if row["f1"] is not None]
    ranked = [row["path"] for row in sorted(rows, key=lambda row: (row["f1"], row["path"]))]
    model = results.models[0]
    selected = select_examples(model, 2, [])
    assert [e.test_set for e in selected] == ["CASIAv1", "own"]  # The paper's come first.
    assert str(selected[1].image) == ranked[1]  # The median of three.
    assert selected[1].ground_truth == work / "own/Gt" / selected[1].image.name
    all_examples = select_examples(model, 100, [])
    assert [str(e.image) for e in all_examples if e.test_set == "own"] == ranked
    notes = []
    assert [e.test_set for e in select_examples(model, 1, notes)] == ["CASIAv1"]
    assert notes == [
        "own is missing from the figures with images: the maximum number of images (1) is reached"
    ]
    ground_truth = cv2.imread(str(selected[1].ground_truth), 0) > 127
    thumbnail, mask = (panel.pixels for panel in selected[1].panels)
    assert mask.shape == thumbnail.shape
    assert (mask > 127).mean() == pytest.approx(ground_truth.mean(), abs=0.01)


@pytest.mark.parametrize("fit", ["resize", "pad", "native"])
def test_model_input_is_the_same_as_in_evaluation(work, fit):
    (listing,) = read_listings(work / "own.json")
    images = BenCoImages(listing, Settings(fit, 96, 1))
    pixels = Example("own", str(listing.pairs[2].image), listing.pairs[2].mask).pixels
    header = {"model": "QMANet", "model_flags": {}, "fit": fit, "image_size": 96}
    prepared = model_input(pixels, ModelResults(header))
    torch.testing.assert_close(prepared.tensor()[0], images[2]["image"], atol=1e-5, rtol=0)


def test_saved_mask_is_the_prediction_of_the_checkpoint(results, monkeypatch):
    ours = results.models[0]

    def fail(_):
        raise AssertionError("the mask was saved, so the checkpoint is not needed")

    network = load_network(ours)
    monkeypatch.setattr(report_examples, "load_network", fail)
    for example in select_examples(ours, 4, []):
        saved = predict_mask(ours, example)
        image = model_input(example.pixels, ours).tensor()
        with torch.no_grad():
            computed = network(image).mask_logits.sigmoid()[0, 0].numpy()
        np.testing.assert_allclose(saved, computed, atol=1e-5)


def test_images_are_found_by_their_paths_as_listed(work, tmp_path, monkeypatch):
    """A Path drops the leading "./", so the row of such an image was not found."""
    monkeypatch.chdir(work)
    rows = [[f"./own/{part}/{i}.png" for part in ("Tp", "Gt")] for i in range(2)]
    (tmp_path / "list.json").write_text(json.dumps([["./authentic.png", "Negative"], *rows]))
    settings = Settings("resize", SIDE, 2)
    out, options = tmp_path / "out", {"settings": settings, "workers": 0, "save_masks": "npy"}
    evaluate([work / "ours.pth"], [tmp_path / "list.json"], out, **options)
    results = collect([out])
    model = results.models[0]
    model.clean["list"].rows = [row | {"marked": 0.25} for row in model.clean["list"].rows]
    monkeypatch.setattr(report_examples, "load_network", None)  # The masks were saved.
    panels, _ = axes_and_texts(draw_failures(results))
    assert len(panels) == 3 * 4
    assert [axes.get_xlabel() for axes in panels[8::4]] == ["authentic.png"]
    panels, texts = axes_and_texts(figures.draw_predictions(results))
    assert len(panels) == 2 * 3
    assert sum(text.startswith("F1 ") for text in texts) == 2


# Grad-CAM


class Toy(nn.Module):
    """Two layers with two channels each, summed to the mask with the given weights."""

    def __init__(self, weights=((1.0, -1.0), (1.0, -1.0))):
        super().__init__()
        self.first, self.second = nn.Identity(), nn.Identity()
        self.weights = nn.Parameter(torch.tensor(weights))

    def forward(self, image):
        views = (self.first(image[:, :2] * self.weights.abs()[:1, :, None, None]), image[:, 1:])
        views = (views[0], self.second(views[1] * self.weights.abs()[:1, :, None, None]))
        parts = [
            (view * weight[:, None, None]).sum(dim=1, keepdim=True)
            for view, weight in zip(views, self.weights, strict=True)
        ]
        return QMANetOutput(parts[0] + parts[1], [])


def test_grad_cam_of_a_toy_model_matches_manual_computation():
    """The mask is a - b + b - c, so the maps are relu(a - b) and relu(b - c)."""
    image = torch.randn(1, 3, 6, 5)
    a, b, c = image[0]
    toy = Toy()
    maps, logits = grad_cams(toy, image, [toy.first, toy.second])
    np.testing.assert_allclose(logits, a - c, atol=1e-6)
    # Grad-CAM weights channels by mean gradients, which differ here only by a common factor.
    for cam, positive in zip(maps, ((a - b).relu(), (b - c).relu()), strict=True):
        expected = positive - positive.min()
        np.testing.assert_allclose(cam, expected / expected.max(), atol=1e-5)
    assert all(parameter.grad is None for parameter in toy.parameters())


def test_map_without_positive_values_is_zero_and_labeled(tmp_path):
    negative, mixed = Toy(((-1.0, -1.0), (-1.0, -1.0))), Toy(((2.0, 2.0), (-1.0, -1.0)))
    maps, _ = grad_cams(negative, torch.rand(1, 3, 4, 4), [negative.first, negative.second])
    assert not maps.any()
    bright = np.full((40, 40, 3), 200, np.uint8)  # Positive even after normalization.
    bright[:20] = 250
    cv2.imwrite(str(tmp_path / "bright.png"), bright)
    example = Example("own", str(tmp_path / "bright.png"), tmp_path / "absent.png")
    model = ModelResults({"model": "QMANet", "model_flags": {}, "fit": "native", "image_size": 40})
    for toy, texts in ((negative, ["no positive values"] * 2), (mixed, ["", "no positive values"])):
        prediction, *panels = cam_panels(model, toy, example, [toy.first, toy.second])
        assert [panel.text for panel in panels] == texts
        assert prediction.text == ("no pixel above 0.5" if toy is negative else "")


def test_maps_of_several_layers_equal_the_maps_of_each_layer(build_tiny):
    model = build_tiny().eval()
    image = torch.randn(1, 3, 64, 96)
    backbones = [model.rgb_backbone.stages[-1], model.noise_backbone.stages[-1]]
    for layers in (backbones, list(model.decoder.fuse)):
        maps, logits = grad_cams(model, image, layers)
        assert maps.shape == (len(layers), 64, 96)
        assert logits.shape == (64, 96)
        assert maps.min() >= 0
        assert maps.max() <= 1
        assert any(cam.std() > 0.05 for cam in maps)
        for cam, layer in zip(maps, layers, strict=True):
            np.testing.assert_allclose(cam, grad_cams(model, image, [layer])[0][0], atol=1e-5)


def test_figure_1_observes_the_features_after_the_last_interaction(build_tiny):
    """Grad-CAM of R_4 computed by hand: channels weighted by their mean gradients."""
    torch.manual_seed(0)
    model, image = build_tiny(dfcm_scale=1.0).eval(), torch.randn(1, 3, 64, 96)
    interaction, outputs = model.interactions[-1], {}

    def keep(_, args, out):
        outputs.update(init=args[0], after=out[0])
        out[0].retain_grad()

    handle = interaction.register_forward_hook(keep)
    mean_logit(model(image).mask_logits[0]).backward()
    handle.remove()
    after = outputs["after"]
    assert not torch.equal(after, outputs["init"])
    weights = after.grad.mean(dim=(2, 3), keepdim=True)
    expected = (weights * after).sum(dim=1).relu()[0].detach().numpy()
    model.zero_grad()
    with tapped_interaction(model) as layers:
        maps, _ = grad_cams(model, image, layers)
    assert model.interactions[-1] is interaction
    expected = (expected - expected.min()) / (expected.max() - expected.min())
    np.testing.assert_allclose(maps[0], cv2.resize(expected, (96, 64)), atol=1e-4)


def test_target_is_the_mean_logit_over_the_predicted_mask():
    logits = torch.tensor([[[-1.0, 2.0], [4.0, 0.0]]])
    assert mean_logit(logits) == 3
    nothing = -torch.arange(1.0, 401).view(1, 20, 20)
    assert predicted_region(nothing).sum() == 4  # The highest 1 %.
    assert mean_logit(nothing) == -2.5


# Missing inputs


def test_omitted_figures_are_noted_with_the_command(work, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "GRID_ROWS", 1)
    monkeypatch.setattr(figures, "CAM_ROWS", 1)
    shutil.copytree(work / "out/ours", tmp_path / "out")
    results = collect([tmp_path / "out"])
    assert [figure.stem for figure in draw_figures(results)] == ["figure-3", "figure-6", "failures"]
    first, robust = (note for note in results.notes if "is omitted" in note)
    assert first.startswith("Figure 1 is omitted: no results of the model without DFCM found")
    assert "--only without-dfcm" in first
    assert "qma-net robust" in robust


def test_changed_checkpoint_is_not_used(work, tmp_path):
    for name in ("CASIAv1.json", "CASIAv1.csv"):
        content = (work / "out/ours" / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(content.replace("/ours.pth", "/none.pth"))
    results = collect([tmp_path])
    assert not draw_figures(results)
    assert sum("has changed since" in note for note in results.notes) == 3


def test_figures_are_omitted_if_their_images_are_missing(tmp_path):
    write_result(tmp_path, "CASIAv1", [0.5, 0.6])
    results = collect([tmp_path])
    assert not draw_figures(results)
    assert len(results.notes) == 5
    assert "data/CASIAv1" in results.notes[1]  # Figure 3.
    assert results.notes[4].startswith("The figure of failure cases is omitted: ")
    with pytest.raises(FigureError, match="data/CASIAv1"):
        select_examples(results.models[0], 4, [])


def test_other_model_without_saved_masks_is_omitted_from_figure_3(work, tmp_path):
    shutil.copytree(work / "out/ours", tmp_path / "ours")
    shutil.copytree(work / "out/none", tmp_path / "other")
    for path in (tmp_path / "other").glob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        content["header"] |= {"model": "Trufor", "model_flags": {}}
        path.write_text(json.dumps(content))
    caption = figures.draw_predictions(collect([tmp_path])).caption
    assert "Omitted: TruFor" in caption
    assert "has no saved masks" in caption


def test_dollar_signs_in_names_are_not_parsed_as_formulas(work, tmp_path):
    """Saving such a figure ended in a ValueError of Matplotlib."""
    name = "IMG$_$1.jpg"
    canvas = draw_grid([name], [(name, [Panel(np.zeros((50, 100, 3), np.uint8), name)])])
    canvas.draw_without_rendering()
    for path in (work / "out/robust").iterdir():
        content = json.loads(path.read_text(encoding="utf-8"))
        content["header"] |= {"set": name, "model": name, "model_flags": {}}
        content["header"]["attack"] |= {"name": name, "unit": name}
        (tmp_path / path.name).write_text(json.dumps(content))
    figures.draw_robustness(collect([tmp_path])).canvas.draw_without_rendering()


def test_grid_rows_are_as_high_as_their_images():
    wide, high = np.zeros((50, 100, 3), np.uint8), np.zeros((200, 100, 3), np.uint8)
    rows = [("a", [Panel(wide), Panel(wide, "words")]), ("b", [Panel(high), None])]
    canvas = draw_grid(["one", "two"], rows)
    canvas.draw_without_rendering()
    first, second = (canvas.axes[i].get_window_extent() for i in (0, 2))
    assert second.height > 2 * first.height
    assert canvas.axes[3].texts[0].get_text() == "no result"
