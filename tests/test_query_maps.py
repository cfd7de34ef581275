"""The figure of the queries' maps: contributions that add up to the logits, labels and errors."""

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import photograph
from qma_net import cli
from qma_net.inference.photograph import PhotographError
from qma_net.inference.predictor import QMANetPredictor
from qma_net.modeling.config import Preprocessing
from qma_net.report.figures import FigureError
from qma_net.report.figures.query_maps import (
    draw_query_maps,
    query_contributions,
    write_query_maps,
)

PHOTO = photograph(70, 100)


@pytest.fixture
def predictor(build_tiny):
    torch.manual_seed(0)
    model = build_tiny(query_count=4).eval()
    model.preprocessing = Preprocessing(64, "native")
    torch.nn.init.constant_(model.decoder.predict.bias, 0.25)
    return QMANetPredictor(model)


def test_contributions_and_bias_add_up_to_the_logits(predictor):
    parts, logits = query_contributions(predictor.model, torch.randn(1, 3, 70, 100))
    assert parts.shape == (4, 4, 70, 100)  # Levels, queries, height, width.
    assert parts.std() > 1e-4
    np.testing.assert_allclose(parts.sum(axis=(0, 1)) + 0.25, logits, atol=1e-4)


def test_contribution_belongs_to_its_query_and_level(predictor):
    """Only query 2 of level 3 has a weight, so the logits are its map plus the bias."""
    decoder = predictor.model.decoder
    weight = torch.zeros_like(decoder.predict.weight).view(4, 4)
    weight[2, 1] = 2.0
    decoder.predict.weight.data = weight.view(1, 16, 1, 1)
    maps = []
    decoder.select[2].register_forward_hook(lambda *args: maps.append(args[2]))
    parts, logits = query_contributions(predictor.model, torch.randn(1, 3, 64, 64))
    assert np.flatnonzero(np.abs(parts).max(axis=(2, 3))).tolist() == [2 * 4 + 1]
    np.testing.assert_allclose(parts[2, 1] + 0.25, logits, atol=1e-5)
    assert maps[0].shape == (1, 4, 4, 4)  # 1/16 of 64.
    # Half-pixel bilinear upsampling keeps the outermost values in the corners.
    assert parts[2, 1, 0, 0] == pytest.approx(2 * maps[0][0, 1, 0, 0].item(), abs=1e-5)


def test_every_query_and_level_is_labeled(predictor):
    figure = draw_query_maps(predictor, PHOTO)
    axes = [axes for axes in figure.canvas.axes if axes.images]
    assert len(axes) == 2 + 4 + 4 * 4
    titles = [a.get_title() for a in axes]
    assert titles[:2] == ["photo", "predicted mask"]
    assert [title.split("\n")[0] for title in titles[2:6]] == [
        f"sum of $M_{level}$ (1/{scale})" for level, scale in ((1, 4), (2, 8), (3, 16), (4, 32))
    ]
    assert titles[6:14] == 2 * ["$M_1$ (1/4)", "$M_2$ (1/8)", "$M_3$ (1/16)", "$M_4$ (1/32)"]
    labels = [a.get_ylabel() for a in axes if a.get_ylabel()]
    assert labels == ["query 1", "query 3", "query 2", "query 4"]  # Two columns of queries.


def test_positive_contributions_are_red_and_negative_ones_blue(predictor):
    decoder = predictor.model.decoder
    decoder.predict.weight.data.zero_()
    level = decoder.select[0]
    level.register_forward_hook(lambda _m, _i, maps: torch.ones_like(maps))
    decoder.predict.weight.data[0, :2, 0, 0] = torch.tensor([1.0, -1.0])
    figure = draw_query_maps(predictor, np.full((64, 64, 3), 128, np.uint8))
    axes = {a.get_ylabel(): a for a in figure.canvas.axes}  # The color bar has a label, too.
    red, blue = (
        axes[f"query {n}"].images[0].get_array().reshape(-1, 3).mean(axis=0) for n in (1, 2)
    )
    assert red[0] > 2 * red[2]
    assert blue[2] > 2 * blue[0]


def test_model_without_queries_and_unsuitable_files_give_one_line(build_tiny, predictor, tmp_path):
    conv = QMANetPredictor(build_tiny(decoder="conv"))
    with pytest.raises(FigureError, match="the model has no queries"):
        draw_query_maps(conv, PHOTO)
    with pytest.raises(FigureError, match="of 1100x40 pixels, expected sides of 32 to 1024"):
        draw_query_maps(predictor, np.zeros((40, 1100, 3), np.uint8))
    with pytest.raises(FigureError, match=r"maps\.jpg is not the name of a PNG file"):
        write_query_maps(predictor, PHOTO, tmp_path / "maps.jpg")
    assert list(tmp_path.iterdir()) == []


def test_photo_without_reliable_rows_is_rejected(predictor, tmp_path):
    Image.fromarray(PHOTO).save(whole := tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:60])
    with pytest.raises(PhotographError, match=r"cannot judge .*cut\.png: the file is truncated"):
        draw_query_maps(predictor, tmp_path / "cut.png")


def test_command_writes_the_figure_of_a_photo(tmp_path, capsys):
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    out = tmp_path / "out/maps.png"
    words = ["query-maps", str(tmp_path / "photo.png"), "--checkpoint", "random", "--native"]
    cli.main([*words, "--out", str(out)])
    shown = capsys.readouterr().out
    assert f"{out}: Contribution of every query at every level" in shown
    assert "RANDOM WEIGHTS" in shown
    with Image.open(out) as image:
        assert image.format == "PNG"
        assert image.width > 800
    assert [path.name for path in out.parent.iterdir()] == ["maps.png"]
