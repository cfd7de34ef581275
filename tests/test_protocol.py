"""``data protocol``: JSON files for BenCo, and the consequences of missing datasets."""

import json

import pytest

from conftest import ROOT
from qma_net import cli
from qma_net.core.files import config_path
from qma_net.data.protocol import ProtocolError, write_protocol
from sample_archives import write_dataset, write_protocols_datasets


def test_benco_trains_on_the_seven_lists_of_protocol_cat(tmp_path, capsys):
    from IMDLBenCo.datasets import BalancedDataset

    write_protocols_datasets(tmp_path)
    cli.main(["data", "protocol", "cat", "--root", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "seven lists" in printed
    assert "compRAISE" in printed
    assert f"training: {tmp_path}/CASIAv2, 2 of the paper's 5123 images" in printed
    written = tmp_path / "protocol_cat.json"
    assert len(json.loads(written.read_text())) == 7
    data = BalancedDataset(str(written), sample_number=3, is_resizing=True, output_size=(32, 32))
    assert len(data) == 21
    assert all(data[i]["label"] == 1 for i in range(21))
    tests = json.loads((tmp_path / "test_sets.json").read_text())
    assert len(tests) == 6
    assert tests["Coverage"] == str(tmp_path / "Coverage")
    while_training = json.loads((tmp_path / "test_sets_train.json").read_text())
    assert while_training == {
        name: str(tmp_path / name) for name in ("CASIAv1", "Columbia", "Coverage", "NIST16")
    }
    assert printed.splitlines()[-3:] == [
        f"training: --data_path {written}",
        f"tests during training: --test_data_path {tmp_path}/test_sets_train.json",
        f"evaluation: --test_data_json, qma-net evaluate --test-sets {tmp_path}/test_sets.json",
    ]


def test_missing_datasets_are_omitted_and_named(tmp_path, capsys):
    write_protocols_datasets(tmp_path)
    (tmp_path / "TampCOCO/bcmc_COCO_list.json").unlink()
    (tmp_path / "NIST16").rename(tmp_path / "elsewhere")
    with pytest.raises(SystemExit) as exit_info:
        cli.main(["data", "protocol", "cat", "--root", str(tmp_path), "--out", str(tmp_path / "o")])
    assert exit_info.value.code == 1
    printed = capsys.readouterr().out
    missing = f"MISSING {tmp_path}/TampCOCO/bcmc_COCO_list.json: training, 1840 of the 12880 images"
    assert missing in printed
    assert f"MISSING {tmp_path}/NIST16: test, no results for NIST16" in printed
    assert len(json.loads((tmp_path / "o/protocol_cat.json").read_text())) == 6
    assert printed.count("NIST16") == 2  # In one line: its path and its name.
    for name in ("test_sets", "test_sets_train"):
        sets = json.loads((tmp_path / f"o/{name}.json").read_text())
        assert "Columbia" in sets
        assert "NIST16" not in sets


def test_test_sets_during_training_may_all_be_missing(tmp_path):
    write_dataset(tmp_path / "AutoSplice")
    written = write_protocol("cat", tmp_path)
    assert [path.name for path in tmp_path.glob("*.json")] == ["test_sets.json"]
    assert written.while_training is None
    assert "--test_data_path: not written, no dataset exists" in written.text()


def test_mvss_trains_on_all_of_casia2(tmp_path):
    from IMDLBenCo.datasets import JsonDataset

    write_protocols_datasets(tmp_path)
    written = write_protocol("mvss", tmp_path)
    data = JsonDataset(str(written.train), is_resizing=True, output_size=(32, 32))
    assert len(data) == 2
    assert data[1]["label"] == 1
    assert list(json.loads(written.test.read_text())) == [
        "CASIAv1",
        "Columbia",
        "Coverage",
        "NIST16",
        "IMD2020",
    ]
    assert written.missing == []
    assert written.while_training == written.test == tmp_path / "test_sets_mvss.json"


def test_empty_and_unfinished_datasets_are_named(tmp_path):
    write_protocols_datasets(tmp_path)
    (tmp_path / "Columbia/prepare.jsonl").write_text("{}")
    write_dataset(tmp_path / "more/CASIAv2", 0)
    assert "did not finish" in write_protocol("mvss", tmp_path).text()
    (tmp_path / "CASIAv2").rename(tmp_path / "old")
    (tmp_path / "more/CASIAv2").rename(tmp_path / "CASIAv2")
    written = write_protocol("mvss", tmp_path)
    assert "(exists but is empty)" in written.text()
    assert written.train is None


def test_folder_without_datasets_is_rejected(tmp_path):
    with pytest.raises(ProtocolError, match="contains no prepared datasets"):
        write_protocol("cat", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_config_path_finds_templates_in_repository():
    for name in ("protocol_cat", "protocol_mvss", "test_sets", "test_sets_train", "test_sets_mvss"):
        file = ROOT / f"benco_configs/{name}.json"
        assert config_path(file.name) == file
    with pytest.raises(FileNotFoundError, match="not found; looked for"):
        config_path("nothing.json")
