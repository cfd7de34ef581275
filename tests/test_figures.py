"""The report's figures: right photographs, right maps, and what is missing said."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from conftest import TINY, photograph
from miniatures import set_rows, write_result, write_set
from qma_net.data.listing import read_listings
from qma_net.evaluation.evaluate import evaluate
from qma_net.evaluation.images import BenCoImages
from qma_net.evaluation.results import read_result_table
from qma_net.evaluation.settings import Settings
from qma_net.modeling import config
from qma_net.modeling.qma_net import QMANetOutput
from qma_net.report.collect import ModelResults, collect
from qma_net.report.figures import draw as figures
from qma_net.report.figures.draw import draw_figures
from qma_net.report.figures.example_images import Example, FigureError, select_examples
from qma_net.report.figures.grad_cam import cam_panels, grad_cams, mean_logit, predicted_region
from qma_net.report.figures.image_grid import Panel, draw_grid
from qma_net.report.figures.predictions import load_network, model_input, predict_probabilities

SIDE = 64


@pytest.fixture(scope="module")
def tiny_size_for_all():
    """And one thread: several that wait for each other are slow where others compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(config.SIZES, "tiny", TINY)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def work(tmp_path_factory, tiny_size_for_all):
    """A default model and one without DFCM, evaluated on a folder and a list; masks of the first
    kept."""
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
        with pytest.warns(UserWarning, match="random backbones"):
            model = QMANet(size="tiny", views="srm,bayar", **flags)
        checkpoint = folder / f"{name}.pth"
        torch.save({"model": model.state_dict()}, checkpoint)
        sets = [folder / "CASIAv1", folder / "own.json"]
        masks = "npy" if name == "ours" else ""
        settings = Settings("resize", SIDE, 2)
        out = folder / "out" / name
        evaluate([checkpoint], sets, out, settings=settings, workers=0, save_masks=masks)
    content = json.loads((folder / "out/ours/CASIAv1.json").read_text())
    (folder / "out/robust").mkdir()
    for level in (100, 50):
        content["pixel_f1"] = level / 200
        content["header"]["attack"] = {"name": "jpeg", "level": level, "unit": "quality"}
        (folder / f"out/robust/jpeg-{level}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def found(work):
    return collect([work / "out"])


@pytest.fixture(scope="module")
def pictures(found):
    """Every figure, drawn once."""
    return {number: draw(found) for number, draw in figures.FIGURES.items()}


def test_every_figure_is_drawn_and_says_what_it_shows(found, pictures, tmp_path, monkeypatch):
    ready = {number: lambda _, one=one: one for number, one in pictures.items()}
    monkeypatch.setattr(figures, "FIGURES", ready)
    drawn = draw_all(found, tmp_path)
    assert [one.path.name for one in drawn] == [f"figure-{n}.png" for n in (1, 3, 4, 6)]
    assert not found.notes
    for one in drawn:
        pixels = np.asarray(Image.open(one.path).convert("RGB"))
        assert pixels.std() > 20
        assert pixels.shape[1] <= 1600
    words = {one.path.name[7]: one.caption for one in drawn}
    for number in "16":
        assert "mean logit over the predicted mask" in words[number]
    for number in "136":
        assert "ranked by the F1 of QMA-Net (tiny" in words[number]


def axes_of(picture):
    """All axes with a picture in them, and all words of a figure."""
    axes = picture.canvas.axes
    words = [text for one in axes for text in (one.get_title(), one.get_xlabel(), one.get_ylabel())]
    return [one for one in axes if one.images], [word for word in words if word]


def test_figure_1_compares_both_backbones_with_the_model_without_dfcm(pictures):
    panels, words = axes_of(pictures[1])
    assert len(panels) == 4 * 8  # two photographs of either set
    for name in ("without DFCM:", "QMA-Net:"):
        for what in ("prediction", "RGB backbone", "noise backbone"):
            assert f"{name}\n{what}" in words
    assert "CASIAv1" in words
    assert "own" in words


def test_figure_3_shows_each_checkpoint_with_the_evaluated_f1(work, pictures):
    panels, words = axes_of(pictures[3])
    assert len(panels) == (4 + 3) * 4
    f1 = {row["path"]: row["f1"] for row in read_result_table(work / "out/none/own.csv")}
    shown = [one for one in panels if one.get_xlabel()]
    assert len(shown) == 7 * 2
    assert {f"F1 {f1[str(work / f'own/Tp/{i}.png')]:.2f}" for i in range(3)} <= set(words)
    assert "Not shown" not in pictures[3].caption


def test_figure_4_draws_levels_from_weak_to_strong(found, pictures):
    canvas = pictures[4].canvas
    (axes,) = canvas.axes
    curve, clean = axes.get_lines()
    assert [label.get_text() for label in axes.get_xticklabels()] == ["100", "50"]
    assert list(curve.get_ydata()) == [0.5, 0.25]
    assert clean.get_linestyle() == "--"
    ours = next(run for run in found.runs if run.attacked)
    assert clean.get_ydata()[0] == ours.clean["CASIAv1"].summary["pixel_f1"]
    assert axes.get_title() == "CASIAv1"
    assert "jpeg" in axes.get_ylabel()
    assert canvas.legends[0].get_texts()[0].get_text().startswith("QMA-Net (tiny")


def test_figure_6_shows_the_four_fused_levels(pictures):
    panels, words = axes_of(pictures[6])
    assert len(panels) == 4 * 7
    assert [word for word in words if word.startswith("$F_")] == [
        f"$F_{i + 1}$ (1/{4 * 2**i})" for i in range(4)
    ]


def test_photographs_are_taken_at_even_steps_of_their_rank(work, found):
    rows = [row for row in read_result_table(work / "out/ours/own.csv") if row["f1"] is not None]
    ranked = [row["path"] for row in sorted(rows, key=lambda row: (row["f1"], row["path"]))]
    chosen = examples(found.runs[0], 2, [])
    assert [one.set for one in chosen] == ["CASIAv1", "own"]  # the paper's first
    assert str(chosen[1].image) == ranked[1]  # one of three: the median
    assert chosen[1].truth == work / "own/Gt" / chosen[1].image.name
    assert [
        str(one.image) for one in examples(found.runs[0], 100, []) if one.set == "own"
    ] == ranked
    notes = []
    assert [one.set for one in examples(found.runs[0], 1, notes)] == ["CASIAv1"]
    assert notes == [
        "own is not in every figure with photographs: 1 photographs of other test sets fill them"
    ]
    truth = cv2.imread(str(chosen[1].truth), 0) > 127
    shown = chosen[1].truth_panel.pixels[..., 0] > 127
    assert shown.shape == chosen[1].thumbnail.shape[:2]
    assert shown.mean() == pytest.approx(truth.mean(), abs=0.01)


@pytest.mark.parametrize("fit", ["resize", "pad", "native"])
def test_the_model_sees_what_evaluation_showed_it(work, fit):
    (listing,) = read_listings(work / "own.json")
    images = BenCoImages(listing, Settings(fit, 96, 1))
    pixels = Example("own", listing.pairs[2].image, listing.pairs[2].mask).pixels
    seen = model_input(pixels, {"fit": fit, "image_size": 96}, torch.device("cpu"))
    torch.testing.assert_close(seen[0], images[2]["image"], atol=1e-5, rtol=0)


def test_a_saved_mask_is_what_the_checkpoint_says(work, found):
    ours = found.runs[0]

    def never():
        raise AssertionError("the mask was saved")

    model = load(ours)
    for example in examples(ours, 4, []):
        saved = prediction(ours, example, never)
        seen = model_input(example.pixels, ours.header, torch.device("cpu"))
        with torch.no_grad():
            answer = model(seen).mask_logits.sigmoid()[0, 0].numpy()
        np.testing.assert_allclose(saved, answer, atol=1e-5)


# Grad-CAM


class Toy(nn.Module):
    """Two layers, doubling and adding, whose channels count 1 and -1 (or as given) in the mask."""

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


def test_grad_cam_of_a_toy_is_what_the_hand_computes():
    """Mask: a - b + b - c, so the first layer's map is relu(a - b), the second's relu(b - c)."""
    image = torch.randn(1, 3, 6, 5)
    a, b, c = image[0]
    toy = Toy()
    maps, logits = grad_cams(toy, image, [toy.first, toy.second])
    np.testing.assert_allclose(logits, a - c, atol=1e-6)
    # the weights of Grad-CAM are means of gradients, equal here up to a factor: 1 over the pixels
    for shown, positive in zip(maps, ((a - b).relu(), (b - c).relu()), strict=True):
        wanted = positive - positive.min()
        np.testing.assert_allclose(shown, wanted / wanted.max(), atol=1e-5)
    assert all(parameter.grad is None for parameter in toy.parameters())


def test_a_map_without_a_positive_part_is_zero_and_said(tmp_path):
    negative, mixed = Toy(((-1.0, -1.0), (-1.0, -1.0))), Toy(((2.0, 2.0), (-1.0, -1.0)))
    maps, _ = grad_cams(negative, torch.rand(1, 3, 4, 4), [negative.first, negative.second])
    assert not maps.any()
    bright = np.full((40, 40, 3), 200, np.uint8)  # positive also to the model
    bright[:20] = 250
    cv2.imwrite(str(tmp_path / "bright.png"), bright)
    example = Example("own", tmp_path / "bright.png", tmp_path / "absent.png")
    run = Run({"model": "QMANet", "model_flags": {}, "fit": "native", "image_size": 40})
    for toy, words in ((negative, ["nothing positive"] * 2), (mixed, ["", "nothing positive"])):
        panels, predicted = cam_panels(run, toy, example, [toy.first, toy.second])
        assert [panel.below for panel in panels] == words
        assert predicted.below == ("none above 0.5" if toy is negative else "")


def test_several_layers_in_one_pass_are_what_each_is_alone(build_tiny):
    model = build_tiny().eval()
    image = torch.randn(1, 3, 64, 96)
    backbones = [model.rgb_backbone.stages[-1], model.noise_backbone.stages[-1]]
    for layers in (backbones, list(model.decoder.fuse)):
        maps, logits = grad_cams(model, image, layers)
        assert maps.shape == (len(layers), 64, 96)
        assert logits.shape == (64, 96)
        assert maps.min() >= 0
        assert maps.max() <= 1
        assert any(one.std() > 0.05 for one in maps)
        for one, layer in zip(maps, layers, strict=True):
            np.testing.assert_allclose(one, grad_cams(model, image, [layer])[0][0], atol=1e-5)


def test_the_target_is_the_mean_logit_over_the_predicted_mask():
    logits = torch.tensor([[[-1.0, 2.0], [4.0, 0.0]]])
    assert mean_logit(logits) == 3
    nothing = -torch.arange(1.0, 401).view(1, 20, 20)
    assert predicted_region(nothing).sum() == 4  # the highest 1 %
    assert mean_logit(nothing) == -2.5


# What is missing


def test_what_cannot_be_drawn_is_said_with_the_command(work, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "GRID_ROWS", 1)
    monkeypatch.setattr(figures, "CAM_ROWS", 1)
    shutil.copytree(work / "out/ours", tmp_path / "out")
    found = collect([tmp_path / "out"])
    drawn = draw_all(found, tmp_path)
    assert [one.path.name for one in drawn] == ["figure-3.png", "figure-6.png"]
    first, robust = (note for note in found.notes if "not drawn" in note)
    assert first.startswith("Figure 1 is not drawn: no results of the model without DFCM")
    assert "--only without-dfcm" in first
    assert "qma-net robust" in robust


def test_another_checkpoint_under_the_same_name_is_not_taken(work, tmp_path):
    for name in ("CASIAv1.json", "CASIAv1.csv"):
        content = (work / "out/ours" / name).read_text()
        (tmp_path / name).write_text(content.replace("/ours.pth", "/none.pth"))
    found = collect([tmp_path])
    assert not draw_all(found, tmp_path)
    assert sum("has changed since" in note for note in found.notes) == 2


def test_photographs_that_are_gone_leave_the_figures_out(tmp_path):
    write_result(tmp_path, "CASIAv1", [0.5, 0.6])
    found = collect([tmp_path])
    assert not draw_all(found, tmp_path)
    assert len(found.notes) == 4
    assert "data/CASIAv1" in found.notes[1]  # Figure 3's
    with pytest.raises(NotDrawn, match="data/CASIAv1"):
        examples(found.runs[0], 4, [])


def test_other_models_need_their_masks(work, tmp_path):
    """A model of BenCo's without saved masks is left out of Figure 3, and named."""
    shutil.copytree(work / "out/ours", tmp_path / "ours")
    shutil.copytree(work / "out/none", tmp_path / "other")
    for path in (tmp_path / "other").glob("*.json"):
        content = json.loads(path.read_text())
        content["header"] |= {"model": "Trufor", "model_flags": {}}
        path.write_text(json.dumps(content))
    caption = figures.qualitative(collect([tmp_path])).caption
    assert "Not shown: TruFor" in caption
    assert "without saved masks" in caption


def test_rows_of_a_grid_are_as_high_as_their_photographs():
    wide, high = np.zeros((50, 100, 3), np.uint8), np.zeros((200, 100, 3), np.uint8)
    rows = [("a", [Panel(wide), Panel(wide, "words")]), ("b", [Panel(high), None])]
    canvas = grid(["one", "two"], rows)
    canvas.draw_without_rendering()
    first, second = (canvas.axes[i].get_window_extent() for i in (0, 2))
    assert second.height > 2 * first.height
    assert canvas.axes[3].texts[0].get_text() == "no result"
