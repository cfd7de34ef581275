"""Reading and writing files: bounded reads of regular files, atomic writes, safe names."""

import os
import re
from pathlib import Path

import pytest

from conftest import ROOT
from qma_net.core import files
from qma_net.core.files import (
    ContentError,
    PathError,
    atomic_write,
    read_json_object,
    safe_path,
    write_json,
)


def test_pipe_is_rejected_without_blocking(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(ContentError, match="is not a regular file"):
        read_json_object(tmp_path / "config.json", "a result")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="there is no /dev/zero")
def test_device_is_rejected_without_reading_it():
    with pytest.raises(ContentError, match="is not a regular file"):
        read_json_object("/dev/zero", "a result")


def test_file_above_the_limit_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_JSON_BYTES", 10)
    (tmp_path / "a.json").write_text('{"a": 1}')
    assert read_json_object(tmp_path / "a.json", "a result") == {"a": 1}
    (tmp_path / "a.json").write_text('{"a": 1000000}')
    with pytest.raises(ContentError, match="14 bytes, expected at most 10"):
        read_json_object(tmp_path / "a.json", "a result")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_with_nan_or_infinity_is_not_written(tmp_path, value):
    """``NaN`` is not JSON: browsers and most other programs reject the whole file."""
    with pytest.raises(ContentError, match="NaN or infinite"):
        write_json(tmp_path / "a.json", {"rows": [{"score": value}]})
    assert list(tmp_path.iterdir()) == []


def test_all_json_is_written_by_the_function_that_rejects_nan():
    modules = (ROOT / "qma_net").rglob("*.py")
    names = {path.name for path in modules if re.search(r"json\.dumps?\b", path.read_text())}
    assert names - {"c2pa_process.py"} == {"files.py"}  # That one writes to a pipe.


def test_failed_write_keeps_the_old_file_and_leaves_nothing_behind(tmp_path):
    (tmp_path / "a.txt").write_text("old")

    def write():
        with atomic_write(tmp_path / "a.txt") as temporary:
            temporary.write_text("new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "old")]


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "/etc/passwd", "a\0", "a\n", "x" * 256])
def test_unsafe_names_are_rejected(tmp_path, name):
    with pytest.raises(PathError):
        safe_path(tmp_path, name)
