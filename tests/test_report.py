"""Tests of ``qma-net report``: tables, page, and the handling of missing results."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from conftest import ROOT, TINY
from forks import HANG_TIMEOUT
from qma_net import cli
from qma_net.data.published import AI_GENERATED, COPY_MOVE, DATASETS, REMOVAL, SPLICE, TYPES
from qma_net.evaluation.metrics import bootstrap_interval, paired_bootstrap
from qma_net.modeling import config
from qma_net.report import build_tables, report
from qma_net.report.benco_logs import read_complexity
from qma_net.report.collect import ReportError, Results, collect
from qma_net.report.figures.draw import draw_figures
from qma_net.report.paper_tables import (
    ATTACKS,
    interpret_columns,
    normalized_name,
    paper_model,
    paper_test_set,
    published_tables,
    read_ablations,
)
from qma_net.report.table import (
    DASH,
    DIFFERENCE,
    MEASURED,
    MINUS,
    PAIRED,
    PAIRED_MODELS,
    PUBLISHED,
    TIMES,
    Cell,
    Row,
    Table,
    escape_latex,
    write_table,
)
from sample_archives import ARCHIVES, write_result, write_training_log

CAT_SETS = ("CASIAv1", "Columbia", "Coverage", "NIST16")


def values(seed, count=12, high=0.9):
    return [round(float(v), 4) for v in np.random.default_rng(seed).uniform(0.3, high, count)]


@pytest.fixture
def work(tmp_path):
    """The default model and an ablation on three of four test sets, and results under attacks."""
    for i, name in enumerate(CAT_SETS[:3]):
        write_result(tmp_path / "ours", ("CAS", "columbia", "Coverage")[i], values(i))
        write_result(tmp_path / "mlp", name, values(10 + i), flags={"decoder": "mlp"})
    write_result(tmp_path / "ours", "splice_set", values(3))
    write_result(tmp_path / "mlp", "splice_set", values(4), flags={"decoder": "mlp"})
    for level in (100, 90, 80, 70, 60, 50):
        folder = tmp_path / "robust/CASIAv1"
        write_result(folder, "CASIAv1", values(level), attack=("jpeg", level), stem=f"jpeg-{level}")
        if level > 50:
            blur = ("gaussian-blur", 150 - level)
            write_result(folder, "CASIAv1", values(level), attack=blur, stem=f"blur-{level}")
    write_result(tmp_path / "robust/CASIAv1", "CASIAv1", [0.0] * 12, stem="clean")
    return tmp_path


def paper_table(results, number):
    return next(table for table in build_tables(results) if table.key == f"table-{number}")


def cells(table, section, start):
    """Return the cells of the only row of a section whose labels start with ``start``."""
    rows = [row for row in table.sections[section] if " | ".join(row.labels).startswith(start)]
    assert len(rows) == 1, (section, start, [row.labels for row in table.rows])
    return rows[0].cells


def texts(table, section, start):
    return [cell.text for cell in cells(table, section, start)]


def number_of(cell):
    return float(cell.text.replace(MINUS, "-"))


# The paper's data


def test_published_averages_equal_the_means_of_their_rows():
    for number in (1, 2, 5, 9):
        published = published_tables()[number]
        for labels, row in published.rows:
            for i, column in enumerate(published.columns):
                if len(column.test_sets) > 1:
                    printed, four = row[i], row[i - 4 : i]
                    assert abs(sum(four) / 4 - printed) <= 0.0005 + 1e-9, (number, labels)


def test_published_totals_are_sums_and_tables_agree():
    tables = published_tables()
    for number in (3, 4):
        *rows, total = [row for _, row in tables[number].rows]
        for i, value in enumerate(total):
            column = [row[i] for row in rows]
            if all(isinstance(count, int) for count in column):
                assert sum(column) == value
    full = tables[1].our_cells[:5]
    assert tables[2].our_cells == tables[9].our_cells == full
    for number in (3, 4):
        for labels, row in tables[number].rows[:-1]:
            name = normalized_name(labels[0])
            dataset = next(d for d in DATASETS.values() if d.name.lower() == name)
            assert (dataset.tampered, dataset.smallest, dataset.largest) == row[-3:]


def test_contradictions_of_the_paper_are_not_corrected():
    tables = published_tables()
    f1 = {labels[0].removesuffix("(Ours)"): row[:4] for labels, row in tables[1].rows}
    for labels, row in tables[5].rows:
        impossible = [a < b for a, b in zip(row[:4], f1[labels[0]], strict=True)]
        assert any(impossible) == (labels[0] == "PSCC-Net")
    assert any("permute-F1 is below" in note for note in tables[5].notes)
    assert any("825,997" in note for note in tables[3].notes)
    assert any("eight cells under seven headings" in note for note in tables[4].notes)
    assert all(len(row) == len(t.columns) for t in tables.values() for _, row in t.rows)
    assert all(published.ours is None or published.our_cells for published in tables.values())


def test_every_published_column_is_interpreted():
    for number in (1, 2, 5, 6, 7, 8, 9):
        for column in published_tables()[number].columns:
            assert len(column.test_sets) == (4 if column.name.lower() == "avg" else 1)
            assert column.attack in (*ATTACKS.values(), None)
            assert (column.attack is not None) == (number in (7, 8))
    assert interpret_columns("COCOGLide", ["IoU"])[0].metric == "iou"
    for group, name in (("Permute-F1", "COI"), ("COI", "Permute-F1")):
        (column,) = interpret_columns(group, [name])
        assert (column.test_sets, column.metric) == (["Columbia"], "permute_f1")
    assert paper_test_set("nist") == paper_test_set("NIST16") == "NIST16"
    assert paper_test_set("splice") is None
    assert (paper_model("PSCC_Net"), paper_model("Trufor")) == ("PSCC-Net", "TruFor")
    assert paper_model("SPAN") == "SPAN"
    labels = {label for n in (2, 9) for names, _ in published_tables()[n].rows for label in names}
    assert {a.row for a in read_ablations() if a.table in (2, 9)} <= labels


# Cells


def test_measured_rows_show_differences_and_intervals(work):
    table = paper_table(collect([work]), 1)
    assert [row.labels[0] for row in table.rows if row.section == PUBLISHED][-2:] == [
        "Mesorch",
        "QMA-Net (paper)",
    ]
    ours, gap = cells(table, MEASURED, "QMA-Net (ours)"), cells(table, DIFFERENCE, "QMA-Net (ours)")
    for i, paper in enumerate((0.873, 0.939, 0.659)):
        column = values(i)
        low, high = bootstrap_interval(column)
        assert ours[i].text == f"{np.mean(column):.3f}"
        assert ours[i].detail == f"[{low:.3f}, {high:.3f}]"
        assert number_of(gap[i]) == pytest.approx(np.mean(column) - paper, abs=6e-4)
        expected = f"[{low - paper:+.3f}, {high - paper:+.3f}]".replace("-", MINUS)
        assert gap[i].detail == expected
        assert number_of(ours[5 + i]) == pytest.approx((1 + np.mean(column)) / 2, abs=6e-4)
    assert (ours[3].text, ours[3].hint) == (DASH, "no result file")
    assert (ours[4].text, ours[4].hint) == (DASH, "only 3 of 4 test sets evaluated")
    assert any("--test-sets ROOT/NIST16 --out" in command for command in table.commands)
    assert "CASIAv1: 12 tampered images here, 920 in the paper." in table.notes


def test_average_requires_all_test_sets(work):
    write_result(work / "ours", "NIST16", values(7))
    cell = cells(paper_table(collect([work]), 1), MEASURED, "QMA-Net (ours)")[4]
    means = [np.mean(values(i)) for i in (0, 1, 2, 7)]
    assert cell.text == f"{np.mean(means):.3f}"
    low, high = map(float, cell.detail.strip("[]").split(", "))
    single = bootstrap_interval(values(0))
    assert low < np.mean(means) < high
    assert high - low == pytest.approx((single[1] - single[0]) / 2, rel=0.3)  # four samples: half


def test_ablation_is_paired_with_default_model_by_path(work):
    path = work / "mlp/CASIAv1.csv"
    head, *rows = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([head, *reversed(rows)]) + "\n")
    table = paper_table(collect([work]), 2)
    mlp = cells(table, MEASURED, "Ours w/ MLP (ours)")
    assert number_of(mlp[0]) == pytest.approx(np.mean(values(10)), abs=6e-4)
    assert cells(table, MEASURED, "QMA-Net (ours)")[0].text == f"{np.mean(values(0)):.3f}"
    paired = cells(table, PAIRED, "Ours w/ MLP (ours)")[0]
    # resampled in the default's order of images
    expected = paired_bootstrap(values(0), values(10))
    assert number_of(paired) == pytest.approx(expected["difference"], abs=6e-4)
    edges = [float(e.replace(MINUS, "-")) for e in paired.detail.strip("[]").split(", ")]
    assert edges == pytest.approx(expected["interval"], abs=6e-4)
    assert {cell.text for cell in cells(table, MEASURED, "Ours w/ CP (ours)")} == {DASH}
    assert table.commands[0] == (
        "bash shell/ablations.sh --only without-dfcm,level-4-only,stage-4-only,conv-decoder"
    )
    (work / "ours/CAS.csv").unlink()
    paired = cells(paper_table(collect([work]), 2), PAIRED, "Ours w/ MLP (ours)")[0]
    assert (paired.text, paired.hint) == (
        DASH,
        "requires the CSV files of both models for the same images",
    )


def test_other_model_is_paired_with_the_default_model_by_path(work):
    """Clean, in a table of the paper, under an attack, and on a test set of one's own."""
    for name in ("CASIAv1", "splice_set"):
        write_result(work / "mantra", name, values(30), model="MantraNet")
    levels = (100, 90, 80, 70, 60, 50)
    for level in levels:
        attack, folder = ("jpeg", level), work / "mantra/robust"
        write_result(
            folder,
            "CASIAv1",
            values(200 + level),
            model="MantraNet",
            attack=attack,
            stem=str(level),
        )
    results = collect([work])
    label = "ManTra-Net (measured here) minus QMA-Net (ours)"
    sweeps = [np.mean([values(start + level) for level in levels], axis=0) for start in (0, 200)]
    for number, pair in ((1, (values(0), values(30))), (7, sweeps)):
        shown = cells(paper_table(results, number), PAIRED_MODELS, label)
        expected = paired_bootstrap(*([float(value) for value in side] for side in pair))
        assert number_of(shown[0]) == pytest.approx(expected["difference"], abs=6e-4)
        edges = [float(e.replace(MINUS, "-")) for e in shown[0].detail.strip("[]").split(", ")]
        assert edges == pytest.approx(expected["interval"], abs=6e-4)
        assert shown[1].hint == "requires the CSV files of both models for the same images"
    other = next(table for table in build_tables(results) if table.key == "other-test-sets")
    (row,) = (row for row in other.rows if row.labels == ("splice_set", "ManTra-Net"))
    expected = paired_bootstrap(values(3), values(30))
    assert number_of(row.cells[-1]) == pytest.approx(expected["difference"], abs=6e-4)


def test_robustness_is_averaged_over_levels_without_clean_images(work):
    table = paper_table(collect([work]), 7)
    ours = cells(table, MEASURED, "QMA-Net (ours)")
    levels = [values(level) for level in (100, 90, 80, 70, 60, 50)]
    assert ours[0].text == f"{np.mean(levels):.3f}"
    low, high = bootstrap_interval([float(v) for v in np.mean(levels, axis=0)])
    assert ours[0].detail == f"[{low:.3f}, {high:.3f}]"
    assert ours[1].text == DASH  # blur: levels of other names
    # evaluate's result of the clean images is not replaced by the sweep's
    assert cells(paper_table(collect([work]), 1), MEASURED, "QMA-Net (ours)")[0].text != "0.000"


def test_incomplete_sweep_is_missing_with_its_progress(work):
    (work / "robust/CASIAv1/jpeg-70.json").unlink()
    cell = cells(paper_table(collect([work]), 7), MEASURED, "QMA-Net (ours)")[0]
    assert (cell.text, cell.hint) == (DASH, "only 5 of 6 levels evaluated")


def test_other_models_and_sizes_have_separate_rows(work):
    write_result(work / "b0", "CASIAv1", values(20), flags={"size": "b0"}, image_size=96)
    write_result(work / "truf", "CASIAv1", values(21), model="Trufor")
    write_result(work / "odd", "CASIAv1", values(22), flags={"decoder": "mlp", "query_count": 4})
    write_result(work / "again", "CASIAv1", values(23), checkpoint="seed1/c.pth")
    smooth = {"dice_smoothing": 0.01}
    write_result(work / "smooth", "CASIAv1", values(24), flags=smooth)
    write_result(work / "entropy", "CASIAv1", values(25), flags={"bce": 1.0})
    results = collect([work])
    table = paper_table(results, 1)
    assert (
        cells(table, MEASURED, "QMA-Net (ours, b0, 96 px)")[0].text == f"{np.mean(values(20)):.3f}"
    )
    assert cells(table, MEASURED, "QMA-Net (ours, seed1/c)")[0].text == f"{np.mean(values(23)):.3f}"
    assert cells(table, MEASURED, "QMA-Net (ours, dice_smoothing 0.01)")
    assert cells(table, MEASURED, "QMA-Net (ours, bce 1.0)")
    assert number_of(cells(table, DIFFERENCE, "TruFor (measured here)")[0]) == pytest.approx(
        np.mean(values(21)) - 0.700, abs=6e-4
    )
    other = next(table for table in build_tables(results) if table.key == "other-test-sets")
    labels = [row.labels for row in other.rows]
    assert ("CASIAv1", "QMA-Net (decoder mlp, query_count 4)") in labels
    splice = next(
        row for row in other.rows if row.labels == ("splice_set", "QMA-Net (mlp-decoder)")
    )
    expected = paired_bootstrap(values(3), values(4))
    assert number_of(splice.cells[-1]) == pytest.approx(expected["difference"], abs=6e-4)
    assert f"p = {expected['p_value']:.3f}" in splice.cells[-1].hint


def test_smaller_model_does_not_fill_the_row_of_the_paper_model(tmp_path):
    write_result(tmp_path, "CASIAv1", values(20), flags={"size": "b0"}, image_size=96)
    table = paper_table(collect([tmp_path]), 1)
    rows = [row.labels[0] for row in table.rows if row.section == MEASURED]
    assert rows == ["QMA-Net (ours)", "QMA-Net (ours, b0, 96 px)"]
    assert {cell.text for cell in cells(table, MEASURED, "QMA-Net (ours)")} == {DASH}
    assert table.commands == [
        "qma-net evaluate --checkpoint CHECKPOINT --test-sets ROOT/CASIAv1 ROOT/Columbia "
        "ROOT/Coverage ROOT/NIST16 --out DIR"
    ]


def test_noise_column_uses_the_variance(work):
    """The other interpretation, the standard deviation, is listed with the other attacks."""
    folder = work / "robust/CASIAv1"
    for name, low in (("gaussian-noise", 0.1), ("gaussian-noise-variance", 0.5)):
        for level in (3, 7, 11, 15, 19, 23):
            column = [low + level / 100] * 12
            write_result(folder, "CASIAv1", column, attack=(name, level), stem=f"{name}-{level}")
    results = collect([work])
    table = paper_table(results, 7)
    assert cells(table, MEASURED, "QMA-Net (ours)")[2].text == "0.630"
    assert number_of(cells(table, DIFFERENCE, "QMA-Net (ours)")[2]) == pytest.approx(0.630 - 0.805)
    assert [row.labels[0] for row in table.rows if row.section == MEASURED] == ["QMA-Net (ours)"]
    assert any("BenCo draws it from {q - 1, q}" in note for note in table.notes)
    other = next(table for table in build_tables(results) if table.key == "other-attacks")
    (row,) = other.rows
    assert row.labels == ("CASIAv1", "QMA-Net", "gaussian-noise")
    assert [cell.text for cell in row.cells][:2] == ["3, 7, 11, 15, 19, 23", "0.230"]


def test_checkpoint_selected_on_test_sets_has_a_separate_row(tmp_path):
    """This also holds if it is the last epoch, so that the files are identical."""
    same = {"checkpoint_sha256": "5a"}
    picked = same | {"picked_on": "training's test sets", "checkpoint": "o/best/checkpoint-1.pth"}
    write_result(tmp_path / "best", "CASIAv1", values(1), **picked)
    write_result(tmp_path / "best-mlp", "CASIAv1", values(3), **picked, flags={"decoder": "mlp"})
    write_result(tmp_path / "pscc", "CASIAv1", values(4), model="PSCC_Net", **picked)
    name = "QMA-Net (ours, selected on the test sets)"
    alone = paper_table(collect([tmp_path]), 1)
    assert {cell.text for cell in cells(alone, MEASURED, "QMA-Net (ours)")} == {DASH}
    assert cells(alone, MEASURED, name)[0].text == f"{np.mean(values(1)):.3f}"
    assert "--checkpoint CHECKPOINT --test-sets ROOT/CASIAv1" in alone.commands[0]
    write_result(tmp_path / "last", "CASIAv1", values(2), checkpoint="o/checkpoint-1.pth", **same)
    results = collect([tmp_path])
    both = paper_table(results, 1)
    assert cells(both, MEASURED, "QMA-Net (ours)")[0].text == f"{np.mean(values(2)):.3f}"
    assert cells(both, MEASURED, name)[0].text == f"{np.mean(values(1)):.3f}"
    assert cells(both, MEASURED, "PSCC-Net (measured here, selected on the test sets)")
    paired = cells(
        paper_table(results, 2), PAIRED, "Ours w/ MLP (ours, selected on the test sets)"
    )[0]
    assert number_of(paired) == pytest.approx(np.mean(values(3)) - np.mean(values(1)), abs=6e-4)


def check_row(name, tampered, types=None, smallest="64x48", largest="640x480", **more):
    row = {"name": name, "path": f"data/{name}", **more, "tampered": tampered, "authentic": 0}
    row |= {"smallest": smallest, "largest": largest}
    return row | ({"types": dict(zip(TYPES, types, strict=True))} if types else {})


def write_check(path, *rows):
    path.write_text(json.dumps({"errors": [], "warnings": [], "sets": rows}))


def test_manipulation_types_fill_tables_3_and_4(tmp_path):
    assert TYPES == (COPY_MOVE, SPLICE, REMOVAL, AI_GENERATED)
    lists = [
        check_row("sp_COCO_list", 5, (0, 5, 0, 0), "72x51", dataset="TampCOCO", part="sp"),
        check_row("cm_COCO_list", 3, (3, 0, 0, 0), dataset="TampCOCO", part="cm"),
        check_row("bcm_COCO_list", 2, (2, 0, 0, 0), "9x9", dataset="TampCOCO", part="bcm"),
    ]
    write_check(tmp_path / "lists.json", *lists)
    table = paper_table(collect([tmp_path]), 3)
    row = cells(table, MEASURED, "TampCOCO")
    assert {(cell.text, cell.hint) for cell in row} == {(DASH, "only 3 of 4 lists checked")}
    assert any("TampCOCO/sp_COCO_list.json ROOT" in command for command in table.commands)

    bcmc = check_row("bcmc_COCO_list", 1, (1, 0, 0, 0), dataset="TampCOCO", part="bcmc")
    write_check(
        tmp_path / "more.json",
        bcmc,
        check_row("IMD2020", 4, dataset="IMD2020", largest="2958x4437"),
        check_row("FantasticReality", 2, dataset="FantasticReality"),
        check_row("casiav1", 9, (5, 4, 0, 0), dataset="CASIAv1"),
        check_row("NIST16", 7, dataset="NIST16"),
    )
    (tmp_path / "CASIAv2").mkdir()
    prepared = {"dataset": "CASIAv2", "tampered": 6, "paper": 5123, "authentic": 0}
    prepared["types"] = dict(zip(TYPES, (4, 2, 0, 0), strict=True))
    (tmp_path / "CASIAv2/prepare.json").write_text(json.dumps(prepared))
    results = collect([tmp_path])
    table = paper_table(results, 3)
    shown = {name: texts(table, MEASURED, name) for name in measured_names(table)}
    assert shown == {
        "CASIAv2": ["4", "2", "0", "6", DASH, DASH],
        "IMD2020": ["N/K", "N/K", "N/K", "4", f"64{TIMES}48", f"2958{TIMES}4437"],
        "TampCOCO": ["6", "5", "0", "11", f"9{TIMES}9", f"640{TIMES}480"],
        "Fantastic Reality": ["N/K", "N/K", "N/K", "2", f"64{TIMES}48", f"640{TIMES}480"],
        "Total": ["N/K", "N/K", "N/K", "23", DASH, DASH],
    }
    gaps = texts(table, DIFFERENCE, "TampCOCO")
    assert gaps == [f"{MINUS}599994", f"{MINUS}199995", "+0", f"{MINUS}799989", "", ""]
    assert texts(table, DIFFERENCE, "IMD2020")[:4] == [
        "",
        "",
        "",
        f"{MINUS}2006",
    ]
    table = paper_table(results, 4)
    assert texts(table, MEASURED, "CASIAv1")[:5] == ["5", "4", "0", "0", "9"]
    nist = cells(table, MEASURED, "NIST16")
    assert [cell.text for cell in nist][:5] == [DASH] * 4 + ["7"]
    assert "type of every image" in nist[0].hint
    assert {cell.text for cell in cells(table, MEASURED, "Total")} == {DASH}


def measured_names(table):
    return [row.labels[0] for row in table.rows if row.section == MEASURED]


def test_every_command_of_an_empty_report_runs_as_printed(tmp_path, monkeypatch):
    """Run all commands on tiny datasets and a tiny model after filling in placeholders."""
    from qma_net.benco import QMANet

    monkeypatch.setitem(config.SIZES, "tiny", TINY)
    monkeypatch.setattr("qma_net.launch.cuda_to_cpu.redirect_cuda_to_cpu", lambda: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shell").symlink_to(ROOT / "shell")
    for name, make in ARCHIVES.items():
        make(tmp_path / "archives" / name)
    with pytest.warns(UserWarning, match="random encoders"):
        torch.save({"model": QMANet(size="tiny", views="srm").state_dict()}, "c.pth")
    (tmp_path / "out").mkdir()

    nothing = Results()
    draw_figures(nothing)
    commands = [command for table in build_tables(nothing) for command in table.commands]
    assert len(commands) == 28
    for note in nothing.notes:
        commands += re.findall(r"(?:qma-net|bash) [\w-]+ --[^,]+", note)
    assert len(commands) == 33
    filled = {"ROOT": "root", "DIR": "out", "CHECKPOINT": "c.pth", "FILE": "c.pth"}
    filled["SETS"] = "root/CASIAv1"
    for command in sorted(commands, key=lambda command: " data " not in command):  # data first
        dataset = re.search(r"data prepare (\w+)", command)
        filled["UNPACKED_ARCHIVE"] = f"archives/{dataset[1]}" if dataset else ""
        line = command
        for placeholder, name in filled.items():
            line = re.sub(rf"\b{placeholder}\b", name, line)
        run_line(line, monkeypatch)

    results = collect(["root", "out"])
    for number in (3, 4):
        table = paper_table(results, number)
        assert not table.commands
        assert DASH not in {cell.text for row in table.rows for cell in row.cells}
        for name in measured_names(table)[:-1]:
            shown = texts(table, MEASURED, name)
            at = len(shown) - 3
            assert "N/K" in shown[:at] or sum(map(int, shown[:at])) == int(shown[at]) > 0
    (run,) = results.models
    assert set(run.clean) == {name for name, d in DATASETS.items() if d.role == "test"}
    for attacks in run.attacked.values():
        assert [len(levels) for levels in attacks.values()] == [6] * 3
    assert len(run.attacked) == 4


def run_line(line, monkeypatch):
    """Run a command in this process at 64 px; scripts of ``shell/`` only with ``--dry-run``.

    For BenCo's complexity script, only the flags are parsed; test_launch.py runs it.
    """
    command, _, file = line.partition(" > ")
    words = shlex.split(command)
    if words[0] == "bash":
        done = subprocess.run(
            [*words, "--dry-run"], capture_output=True, text=True, timeout=HANG_TIMEOUT
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return
    assert words.pop(0) == "qma-net"
    if words[0] == "test_complexity":
        from IMDLBenCo.training_scripts.test_complexity import get_args_parser

        monkeypatch.setattr(sys, "argv", words[: words.index("|")])
        assert get_args_parser()[0].model == "QMANet"
        assert words[words.index("|") :] == ["|", "tee", "out/complexity.txt"]
        return
    small = ["--image-size", "64", "--workers", "0", "--device", "cpu"]
    words += small if words[0] in ("evaluate", "robust") else []
    words += ["--partial"] if words[:2] == ["data", "prepare"] else []  # The archives are small.
    with open(file or "printed.txt", "w", encoding="utf-8") as printed, redirect_stdout(printed):
        cli.main(words)


def test_dataset_counts_are_read_from_prepare_and_check(work):
    prepared = {"dataset": "CASIAv2", "tampered": 5106, "paper": 5123, "authentic": 0}
    (work / "CASIAv2").mkdir()
    (work / "CASIAv2/prepare.json").write_text(json.dumps(prepared))
    row = {"name": "CocoGlide", "path": "x", "tampered": 512, "authentic": 0}
    row |= {"smallest": "256x256", "largest": "256x256"}
    (work / "check.json").write_text(json.dumps({"errors": [], "warnings": [], "sets": [row]}))
    results = collect([work])
    shown = texts(paper_table(results, 3), MEASURED, "CASIAv2")
    assert shown == [DASH, DASH, DASH, "5106", DASH, DASH]
    assert number_of(cells(paper_table(results, 3), DIFFERENCE, "CASIAv2")[3]) == -17
    shown = texts(paper_table(results, 4), MEASURED, "COCOGLide")
    assert shown[4:] == ["512", f"256{TIMES}256", f"256{TIMES}256"]
    assert cells(paper_table(results, 4), MEASURED, "Total")[4].text == DASH
    assert any(
        "data check ROOT/CASIAv2 --json" in line for line in paper_table(results, 3).commands
    )


COMPLEXITY = """\
=====args:=====
Namespace(model='QMANet',
if_predict_label=False,
image_size=512,
test_batch_size=1)
=====Model args:=====
Namespace(size='b3',
views='srm,bayar,noiseprint',
query_count=16,
dfcm_stages='1234',
decode_levels='1234',
decoder='{decoder}',
alpha=0.2)
[10:11:12.5]  231312474112
| module            | #parameters or shape | #flops  |
|:------------------|:---------------------|:--------|
| network           | 0.114G               | 0.231T  |
| noise_view        | 0.557M               | 0.146T  |
| noise_view.srm    |                      | 58.982M |
| noise_view.bayar  | 0.216K               | 58.982M |
| backbone.stages   | 113.796M             | 37.005G |
| backbone.stages.0 | 3.796M               | 37.005G |
| backbone.stages.1 | 110.0M               | 37.005G |
"""


def test_complexity_logs_fill_table_10(work):
    (work / "complexity.txt").write_text(COMPLEXITY.format(decoder="query"))
    (work / "complexity-mlp.log").write_text(COMPLEXITY.format(decoder="mlp"))
    (work / "complexity-stopped.txt").write_text("=====args:=====\n")
    log = read_complexity(work / "complexity.txt")
    assert log.parameters == pytest.approx(114.353e6)
    table = paper_table(collect([work]), 10)
    assert texts(table, MEASURED, "QMA-Net (ours)") == ["114.4", "231.3"]
    assert texts(table, DIFFERENCE, "QMA-Net (ours)") == ["+0.4", "+1.3"]
    assert cells(table, DIFFERENCE, "QMA-Net (ours)")[1].detail == "(+0.6%)"
    assert cells(table, MEASURED, "QMA-Net (ours, mlp-decoder)")[0].text == "114.4"
    assert not table.commands


# Files


def test_markdown_and_latex_are_well_formed(work):
    for table in build_tables(collect([work])):
        markdown = [line for line in write_table(table, "md").splitlines() if line.startswith("|")]
        columns = len(table.labels) + table.width
        assert {len(re.findall(r"(?<!\\)\|", line)) for line in markdown} == {columns + 1}, (
            table.key
        )
        tex = write_table(table, "tex")
        for name in ("table", "tabular"):
            assert tex.count(rf"\begin{{{name}}}") == tex.count(rf"\end{{{name}}}") == 1
        live = re.sub(r"^ *%.*$", "", tex, flags=re.MULTILINE)
        assert not re.search(r"(?<![\\])[%#]", live), table.key
        assert not re.search(r"(?<!\\)_", live), table.key
        braces = re.sub(r"\\[\\{}]", "", live)
        assert braces.count("{") == braces.count("}")
        body = [
            line for line in live.splitlines() if line.endswith(r" \\") and "\\emph" not in line
        ]
        for line in body:
            spans = [int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", line)]
            bare = re.sub(r"\\&", "", line)
            assert bare.count("&") + 1 + sum(spans) == columns, (table.key, line)
    assert escape_latex("50 % of a_b & c") == r"50 \% of a\_b \& c"
    assert r"QMA-Net (paper) & \textbf{0.873}" in write_table(
        paper_table(collect([work]), 1), "tex"
    )


class Page(HTMLParser):
    """Parse a page and check that its tags are balanced.

    ``titles`` are the tooltips, ``folded`` is the text inside closed details but outside their
    summaries, and ``visible`` is all other text, by the id that precedes it.
    """

    def __init__(self, text):
        super().__init__()
        self.open, self.titles, self.at = [], [], ""
        self.visible, self.folded = {}, {}
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)
        attributes = dict(attributes)
        assert not (tag == "details" and "open" in attributes)
        self.titles += [attributes["title"]] if "title" in attributes else []
        self.at = attributes.get("id", self.at)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.at = "" if tag == "details" else self.at

    def handle_data(self, text):
        hidden = "details" in self.open and "summary" not in self.open
        target = self.folded if hidden else self.visible
        target[self.at] = target.get(self.at, "") + text


def test_page_is_self_contained_and_reproducible(work):
    write_training_log(work / "train", end="{torn")
    comparison = {"splice_set": {"b - a": {}}}
    paired = paired_bootstrap(values(3), values(4))
    comparison["splice_set"]["b - a"] = {"pixel_f1": paired, "iou": paired}
    (work / "ours/comparison.json").write_text(json.dumps(comparison))
    (work / "images.json").write_text('[["a.png", "b.png"]]')
    (work / "torn.json").write_text('{"header": ')
    hidden = work / ".b.unfinished"
    hidden.mkdir()
    (hidden / "b.json").write_text("{}")
    out = work / "paper/report.html"
    written = report([work], out)
    assert written[-1] == out
    names = {path.name for path in (out.parent / "tables").iterdir()}
    assert names >= {f"table-{n}.{suffix}" for n in range(1, 11) for suffix in ("md", "tex")}
    assert {"other-test-sets.md", "comparisons.tex"} <= names
    (curves,) = (out.parent / "figures").glob("curves-*-train.png")
    drawing = curves.with_suffix(".pdf")
    assert {curves, drawing} <= set(written)
    pdf = drawing.read_bytes()
    assert pdf.startswith(b"%PDF-")
    page = out.read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)=["']?(https?:|//|(?!data:|\#)\w)""", page)
    assert "url(" not in page
    assert "@import" not in page
    assert page.count("data:image/png;base64,") >= 1
    titles = Page(page).titles
    assert "no result file" in titles
    assert "torn.json is not shown: cannot read " in page
    assert "splice_set" in page
    assert "qma-net evaluate --checkpoint run/c.pth --test-sets ROOT/NIST16" in page
    first = page
    report([work], out)
    assert out.read_text(encoding="utf-8") == first
    assert drawing.read_bytes() == pdf


def test_measured_tables_come_first_and_empty_tables_are_folded(work):
    comparison = {"CASIAv1": {"b - a": {"pixel_f1": paired_bootstrap(values(3), values(4))}}}
    (work / "comparison.json").write_text(json.dumps(comparison))
    write_result(work / "own", "own", values(5), attack=("fog", 1), stem="fog-1")
    write_training_log(work / "train")
    report([work], work / "page/report.html")
    html = (work / "page/report.html").read_text(encoding="utf-8")
    page = Page(html)
    first = ["runs", "other-test-sets", "further-metrics", "other-attacks", "comparisons"]
    measured = [f"table-{number}" for number in (1, 2, 5, 7, 9)]
    empty = [f"table-{number}" for number in (3, 4, 6, 8, 10)]
    wanted = [*first, *measured, "figure-0", "figure-1", "unmeasured", *empty]
    assert re.findall(r' id="([\w-]+)"', html) == wanted
    lines = {key: page.visible[key].strip() for key in empty}
    for number, key in zip((3, 4, 6, 8, 10), empty, strict=True):
        assert lines[key].startswith(f"Table {number}: ")
        assert "\n" not in lines[key]
    assert lines["table-4"].endswith(
        "produced by qma-net data prepare CASIAv1 --source UNPACKED_ARCHIVE --out ROOT/CASIAv1 "
        "and 11 other commands"
    )
    assert lines["table-6"].endswith(
        "produced by qma-net evaluate --checkpoint CHECKPOINT --test-sets ROOT/CocoGlide "
        "ROOT/AutoSplice --out DIR"
    )
    assert "produced by qma-net robust " in lines["table-8"]
    assert "produced by qma-net test_complexity " in lines["table-10"]
    for key in measured:
        assert key not in page.folded
        assert MEASURED in page.visible[key]
        assert PUBLISHED in page.visible[key]
    for key in empty:  # Folded tables are complete.
        table = next(table for table in build_tables(collect([work])) if table.key == key)
        assert f"missing results:{''.join(table.commands)}" in page.folded[key].replace("\n", "")
        for row in table.rows:
            assert row.section in page.folded[key]
            assert (
                "".join([*row.labels, *(c.text + c.detail for c in row.cells)]) in page.folded[key]
            )


def test_table_with_an_incomplete_sweep_is_not_folded(tmp_path):
    write_result(tmp_path / "CASIAv1", "CASIAv1", values(1), attack=("jpeg", 70), stem="jpeg-70")
    report([tmp_path], tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "table-7" not in page.folded
    assert "only 1 of 6 levels evaluated" in page.titles
    assert set(page.folded) == {f"table-{number}" for number in (1, 2, 3, 4, 5, 6, 8, 9, 10)}


def test_report_without_matplotlib_has_a_note(work):
    write_training_log(work / "train")
    code = "import sys; sys.modules['matplotlib'] = None; from qma_net.report import report; "
    code += f"report([{str(work)!r}], {str(work / 'report.html')!r})"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=HANG_TIMEOUT)
    page = (work / "report.html").read_text(encoding="utf-8")
    assert "matplotlib is not installed, so there are no figures" in page
    assert "<figure>" not in page
    assert not (work / "figures").exists()


def test_curves_are_read_from_tensorboard(tmp_path):
    writer = pytest.importorskip("torch.utils.tensorboard").SummaryWriter(str(tmp_path / "run"))
    for epoch in range(3):
        for step in (0, 500):
            writer.add_scalar("train_loss/seg_loss", 1.0, 1000 * epoch + step)
        writer.add_scalar("Average", 0.5, epoch)
        writer.add_scalars("pixel-level F1_Metric", {"splice": 0.5}, epoch)
    writer.add_scalar("once", 0.5, 0)
    writer.close()
    (curves,) = collect([tmp_path]).curves
    assert curves.source == "TensorBoard"
    assert [epoch for epoch, _ in curves.series["train_loss/seg_loss"]] == [0, 0.5, 1, 1.5, 2, 2.5]
    assert [epoch for epoch, _ in curves.series["pixel-level F1 (splice)"]] == [0, 1, 2]
    assert set(curves.series) == {"train_loss/seg_loss", "Average", "pixel-level F1 (splice)"}


def test_same_test_set_name_with_other_images_is_noted(work):
    write_result(work / "zweitens", "splice_set", values(5, count=5))
    notes = collect([work]).notes
    assert len(notes) == 1
    assert "zweitens/splice_set.json is not shown" in notes[0]


def test_benco_sweep_is_shown_as_logged(tmp_path):
    """BenCo names folders after transforms; each log has a level and a pixel F1."""
    for level, f1 in ((7, 0.25), (3, 0.75)):
        folder = tmp_path / f"GaussianBlur(always_apply=True, p=1.0, blur_limit=({level}, {level}))"
        folder.mkdir()
        (folder / "log.txt").write_text(json.dumps({"test_pixel-level F1": f1, "epoch": level}))
    (table,) = [
        table for table in build_tables(collect([tmp_path])) if table.key == "benco-robustness"
    ]
    (row,) = table.rows
    assert row.labels == (str(tmp_path), "GaussianBlur")
    assert [cell.text for cell in row.cells] == ["3, 7", "0.750, 0.250", "0.500"]


def test_missing_results_give_one_line_errors(tmp_path):
    with pytest.raises(ReportError, match=r"no result files found in .*: expected .* run qma-net"):
        report([tmp_path], tmp_path / "report.html")
    with pytest.raises(ReportError, match="there is no such folder"):
        report([tmp_path / "absent"], tmp_path / "report.html")
    with pytest.raises(ReportError, match="is not the name of an HTML file"):
        report([tmp_path], tmp_path)
    assert not list(tmp_path.iterdir())
    command = [sys.executable, "-m", "qma_net", "report", tmp_path, "--out", tmp_path / "r.html"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG_TIMEOUT)
    assert done.returncode == 1
    assert done.stderr.startswith("qma-net: no result files found in ")
    assert done.stderr.count("\n") == 1


def test_page_opens_in_a_browser_without_network(work):
    """Chromium's document contains every table, and every image was decoded."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if not browser:
        pytest.skip("no chromium on this machine (apt-get install chromium)")
    write_training_log(work / "train")
    out = work / "page/report.html"
    report([work], out)
    probe = (
        "<script>onload = () => { document.title = [document.querySelectorAll('table').length, "
        "document.images.length, [...document.images].every(i => i.complete && i.naturalWidth)] }"
        "</script>"
    )
    probed = out.with_name("probed.html")
    # The page's policy forbids scripts; the probe needs one.
    page = re.sub(
        r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", out.read_text(encoding="utf-8")
    )
    probed.write_text(page.replace("</body>", probe + "</body>"))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"]
    flags += ["--virtual-time-budget=5000", f"--user-data-dir={work / 'profile'}", "--dump-dom"]
    done = subprocess.run(
        [browser, *flags, probed.as_uri()], capture_output=True, text=True, timeout=HANG_TIMEOUT
    )
    tables, images, decoded = re.search(r"<title>(\d+),(\d+),(\w+)</title>", done.stdout).groups()
    assert int(tables) >= 11
    assert int(images) >= 1
    assert decoded == "true"


# Best and second-best values


def test_best_values_are_bold_and_second_best_underlined_in_latex():
    """The values are those of the paper, which has no marks in these cells of its own."""
    tables = {table.key: write_table(table, "tex") for table in build_tables(Results())}
    first = tables["table-1"]
    assert r"usepackage{booktabs}" in first.splitlines()[0]
    assert r"Mesorch & \underline{0.826} & 0.905 & 0.526" in first
    assert r"SAM & 0.627 & 0.817 & 0.401 & \textbf{0.509}" in first  # NIST
    # AUC on COI: SAM 0.973, CAT-Net 0.962, QMA-Net 0.943.
    assert r"\textbf{0.985} & 0.943 & \textbf{0.931}" in first
    assert first.count(r"\textbf") == first.count(r"\underline") == 10  # One per column.
    last = tables["table-10"]  # Fewer parameters and operations are better.
    assert r"PSCC-Net & \textbf{3.7} & 376.8" in last
    assert r"ManTra-Net & \underline{3.9} & 274.0" in last
    assert r"CAT-Net & 116.7 & \textbf{137.2}" in last
    assert r"MVSS-Net & 150.5 & \underline{171.0}" in last
    for number in (3, 4):  # Counts are not better or worse.
        assert r"\textbf" not in tables[f"table-{number}"]


def test_values_are_compared_within_a_test_set_as_they_are_shown():
    shown = {"a": ("0.500", "0.500", "0.400", "0.300", DASH), "b": ("0.900", "0.100")}
    table = Table("key", "Title", ("Set", "Model"), {"": ("F1", "Images")}, higher=["F1"], same=[0])
    for name, column in shown.items():
        for text in column:
            table.rows.append(Row(MEASURED, (name, "m"), [Cell(text), Cell("7")]))
            table.rows.append(Row(DIFFERENCE, (name, "m"), [Cell("1.000"), Cell()]))
    tex = write_table(table, "tex")
    assert tex.count(r"\textbf{0.500}") == 2
    assert re.findall(r"\\(?:textbf|underline)\{[\d.]+\}", tex) == [
        r"\textbf{0.500}",
        r"\textbf{0.500}",
        r"\underline{0.400}",
        r"\textbf{0.900}",
        r"\underline{0.100}",
    ]


def test_every_table_of_the_page_is_written_as_latex(work):
    *written, page = report([work], work / "page/report.html")
    names = {path.stem for path in written if path.suffix == ".tex"}
    on_page = set(re.findall(r' id="([\w-]+)"', page.read_text(encoding="utf-8")))
    assert {name for name in on_page if not name.startswith("figure")} - {"unmeasured"} == names
    assert "runs" in names


def test_further_metrics_and_manipulation_types_are_listed(tmp_path):
    write_result(tmp_path, "own", [0.5, 0.7])
    result = json.loads((tmp_path / "own.json").read_text())
    result["types"] = {"splice": {"n_tampered": 2, "pixel_f1": 0.6, "iou": None, "mcc": 0.25}}
    (tmp_path / "own.json").write_text(json.dumps(result))
    tables = {table.key: table for table in build_tables(collect([tmp_path]))}
    (row,) = tables["further-metrics"].rows
    # The helper sets every metric to the F1; all images are tampered, with scores of 0.5 and 0.7.
    assert [cell.text for cell in row.cells] == ["0.600"] * 5 + ["0.667", DASH, "0.500", DASH]
    (row,) = tables["manipulation-types"].rows
    assert row.labels == ("own", "QMA-Net", "splice")
    assert [cell.text for cell in row.cells] == ["2", "0.600", DASH, DASH, DASH, DASH, "0.250"]
    # A result of an earlier version contains neither.
    del result["types"], result["mcc"]
    (tmp_path / "own.json").write_text(json.dumps(result))
    keys = {table.key for table in build_tables(collect([tmp_path]))}
    assert not {"further-metrics", "manipulation-types"} & keys


def test_results_without_a_border_have_separate_rows(tmp_path):
    write_result(tmp_path / "a", "own", [0.5, 0.7])
    write_result(tmp_path / "b", "own", [0.8, 0.9], ignore_border=4)
    table = next(t for t in build_tables(collect([tmp_path])) if t.key == "other-test-sets")
    assert [(row.labels[1], row.cells[1].text) for row in table.rows] == [
        ("QMA-Net", "0.600"),
        ("QMA-Net (without 4 px next to the boundary)", "0.850"),
    ]


# Files that nobody should have written


def write_log(folder, loss, epoch="{}"):
    folder.mkdir()
    rows = [f'{{"train_total_loss": {loss}, "epoch": {epoch.format(i)}}}\n' for i in range(3)]
    (folder / "log.txt").write_text("".join(rows))


def write_loops(folder):
    for name, target in (("a.json", "a.json"), ("b.json", "c.json"), ("c.json", "b.json")):
        (folder / name).symlink_to(target)
    (folder / "again").symlink_to(".")


def write_pipes(folder):
    for name in ("a.json", "log.txt", "complexity.txt"):
        os.mkfifo(folder / name)


def write_surrogates(folder):
    inner = os.fsdecode(os.fsencode(folder) + b"/bad\xff")
    write_result(folder / "own", "own", [0.5])
    content = json.loads((folder / "own/own.json").read_text())
    content["header"] |= {"set": "s\udc80", "checkpoint": "c\udc80.pth"}
    write_log(type(folder)(inner), 1)
    (folder / "own/own.json").write_text(json.dumps(content))


HUGE_COMPLEXITY = "Namespace(model='QMANet', image_size=512)\n| part | (9{}) |\n[1:2:3.4] {}\n"
HOSTILE = {
    "symlink loops": write_loops,
    "pipes": write_pipes,
    "losses of 1e308": lambda folder: write_log(folder / "run", "1e308"),
    "losses of 4000 digits": lambda folder: write_log(folder / "run", "1" + "0" * 4000),
    "losses of 5000 digits": lambda folder: write_log(folder / "run", "1" + "0" * 5000),
    "epochs of 4000 digits": lambda folder: write_log(folder / "run", "1", "1{}" + "0" * 4000),
    "sweeps of 4000 digits": lambda folder: write_sweep(folder / "GaussianBlur(3)"),
    "complexity of 5000 digits": lambda folder: (folder / "complexity.txt").write_text(
        HUGE_COMPLEXITY.format("0" * 5000, "9" * 5000)
    ),
    "surrogates": write_surrogates,
    "nested objects": lambda folder: (folder / "report.json").write_text('{"a":' * 10**5),
    "a list of files": lambda folder: (folder / "report.json").write_text(
        json.dumps(
            {"header": {"set": [1], "model_flags": []}, "file": [[]], "sets": [], "errors": 1}
        )
    ),
}


def write_sweep(folder):
    folder.mkdir()
    number = "1" + "0" * 4000
    (folder / "log.txt").write_text(f'{{"epoch": {number}, "test_pixel-level F1": {number}}}\n')


@pytest.mark.parametrize("kind", HOSTILE)
def test_report_is_written_despite_hostile_files(tmp_path, kind):
    results = tmp_path / "results"
    write_result(results, "Columbia", [0.5, 0.7])
    HOSTILE[kind](results)
    *_, page = report([results], tmp_path / "page/report.html")
    assert "Columbia" in page.read_text(encoding="utf-8")


def test_image_folders_of_datasets_are_not_searched(tmp_path):
    """They may contain millions of files."""
    write_training_log(tmp_path / "run")
    for name in ("Tp", "Gt", "Au"):
        (tmp_path / "CASIAv2" / name).mkdir(parents=True)
        write_training_log(tmp_path / "CASIAv2" / name / "run")
    assert len(collect([tmp_path]).curves) == 1
