"""Resumable runs: folder locks, journals with checksums, and runs that continue after a stop."""

import json
import multiprocessing
import os
import signal
import time

import pytest

from qma_net.core.files import ContentError, atomic_write
from qma_net.core.runs import BusyError, FolderLock, Journal, Run, RunError, difference

SETTINGS = {"model": "b0", "threshold": 0.5}


def start(folder, settings=SETTINGS, **options):
    options = {"key": ("file",), "journal": "run.jsonl", "contents": "predictions"} | options
    return Run(folder, settings, **options)


def hold_lock(folder):
    with FolderLock(folder):
        (folder / "locked").touch()
        time.sleep(60)


def test_second_lock_of_a_folder_is_rejected(tmp_path):
    with (
        FolderLock(tmp_path / "out"),
        pytest.raises(BusyError, match="another run is writing to it"),
    ):
        FolderLock(tmp_path / "out").acquire()
    with FolderLock(tmp_path / "out"):
        pass
    assert not list((tmp_path / "out").iterdir())  # no lock file stays behind


def test_lock_ends_with_its_process_even_if_killed(tmp_path):
    process = multiprocessing.get_context("forkserver").Process(target=hold_lock, args=(tmp_path,))
    process.start()
    while not (tmp_path / "locked").exists():
        time.sleep(0.01)
    with pytest.raises(BusyError):
        FolderLock(tmp_path).acquire()
    process.kill()
    process.join()
    with FolderLock(tmp_path):
        pass


def test_forked_child_does_not_keep_the_lock(tmp_path):
    lock = FolderLock(tmp_path).acquire()
    child = os.fork()
    if not child:
        time.sleep(60)
        os._exit(0)
    try:
        lock.release()
        with FolderLock(tmp_path):
            pass
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_finished_items_are_not_pending_when_the_run_is_resumed(tmp_path):
    with start(tmp_path) as run:
        assert list(run.pending(["a", "b"])) == ["a", "b"]
        run.finish({"file": "a", "score": 0.25})
    with start(tmp_path) as run:
        assert list(run.pending(["a", "b"])) == ["b"]
        assert run.finished["a"]["score"] == 0.25


def test_several_key_fields_form_a_tuple(tmp_path):
    with start(tmp_path, key=("side", "index")) as run:
        run.finish({"side": "train", "index": 3})
    with start(tmp_path, key=("side", "index")) as run:
        assert set(run.finished) == {("train", 3)}


@pytest.mark.parametrize("damage", ["missing", "empty"])
def test_item_is_pending_again_when_an_output_is_lost(tmp_path, damage):
    mask = tmp_path / "masks/a.png"
    with start(tmp_path) as run:
        mask.parent.mkdir()
        mask.write_bytes(b"mask")
        run.finish({"file": "a"}, outputs=[mask])
    with start(tmp_path) as run:
        assert "a" in run.finished
    mask.write_bytes(b"") if damage == "empty" else mask.unlink()
    with start(tmp_path) as run:
        assert list(run.pending(["a"])) == ["a"]


def test_changed_settings_are_rejected_and_named(tmp_path):
    with start(tmp_path) as run:
        run.finish({"file": "a"})
    with pytest.raises(RunError, match=r"predictions .*\(threshold 0.5, now 0.4\)"):
        start(tmp_path, SETTINGS | {"threshold": 0.4}).__enter__()
    with start(tmp_path) as run:  # The refusal released the lock and changed nothing.
        assert "a" in run.finished


@pytest.mark.parametrize("size", [0, 1, 20, 40])
def test_truncated_settings_row_gives_one_line_error(tmp_path, size):
    """An empty journal is a new run; any other truncated journal is rejected."""
    with start(tmp_path):
        pass
    journal = tmp_path / "run.jsonl"
    journal.write_bytes(journal.read_bytes()[:size])
    if size == 0:
        with start(tmp_path) as run:
            assert not run.finished
            run.finish({"file": "a"})
        with start(tmp_path) as run:
            assert set(run.finished) == {"a"}
        return
    with pytest.raises(RunError, match=r"first line of run\.jsonl is damaged"):
        start(tmp_path).__enter__()


def test_truncated_last_row_is_rewritten_without_damaging_others(tmp_path):
    with start(tmp_path) as run:
        run.finish({"file": "a"})
        run.finish({"file": "b"})
    journal = tmp_path / "run.jsonl"
    journal.write_bytes(journal.read_bytes()[:-9])
    with start(tmp_path) as run:
        assert set(run.finished) == {"a"}
        run.finish({"file": "c"})
    with start(tmp_path) as run:
        assert set(run.finished) == {"a", "c"}


def test_bit_flips_never_change_a_record(tmp_path):
    journal = Journal(tmp_path / "run.jsonl")
    rows = [{"file": "a", "f1": 0.123456789}, {"file": "b", "f1": 0.5}]
    journal.write(rows)
    content = journal.path.read_bytes()
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        journal.path.write_bytes(flipped)
        assert all(row in rows for row in journal.read()), bit


def test_journal_without_checksums_of_an_earlier_version_is_read(tmp_path):
    rows = [{"model": "b0", "threshold": 0.5}, {"file": "a", "score": 1.0}]
    (tmp_path / "run.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with start(tmp_path) as run:
        assert set(run.finished) == {"a"}
        run.finish({"file": "b"})
    with start(tmp_path) as run:
        assert set(run.finished) == {"a", "b"}


def test_retain_drops_records_that_do_not_match(tmp_path):
    with start(tmp_path) as run:
        run.finish({"file": "a", "stamp": 1})
        run.finish({"file": "b", "stamp": 2})
        run.retain(lambda row: row["stamp"] == 2)
        assert set(run.finished) == {"b"}
        run.finish({"file": "c", "stamp": 2})
    with start(tmp_path) as run:
        assert set(run.finished) == {"b", "c"}


def test_shared_run_reads_the_journals_of_all_processes(tmp_path):
    for rank, name in enumerate("ab"):
        with start(tmp_path, journal=f"{rank}.jsonl", shared=True) as run:
            run.finish({"file": name})
    with start(tmp_path, journal="0.jsonl", shared=True) as run:
        assert set(run.finished) == {"a", "b"}


def test_temporary_files_of_interrupted_runs_are_removed(tmp_path):
    (tmp_path / ".qma-net-abcd1234.tmp").touch()
    (tmp_path / "notes.tmp").touch()  # Not ours.
    with start(tmp_path):
        assert not (tmp_path / ".qma-net-abcd1234.tmp").exists()
        assert (tmp_path / "notes.tmp").exists()


def test_temporary_files_of_long_names_are_removed(tmp_path):
    """They were left behind if a name had more than 41 characters."""
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=die_while_writing, args=(tmp_path / ("x" * 240 + ".png"),))
    process.start()
    process.join()
    assert len(list(tmp_path.iterdir())) == 1
    with start(tmp_path):
        assert [path.suffix for path in tmp_path.iterdir() if path.suffix == ".tmp"] == []


def die_while_writing(path):
    with atomic_write(path):
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    "row",
    [
        {"file": ["b"]},
        {"file": {"name": "b"}},
        {"file": "b", "outputs": ["b.png"]},
        {"file": "b", "outputs": 3},
        {"claim": 3},
        {"claim": [["b"]]},
        {"claim": None, "file": None},
    ],
    ids=str,
)
def test_rows_of_other_types_are_skipped(tmp_path, row):
    """Journals of earlier versions have no checksums."""
    rows = [SETTINGS, {"file": "a"}, row]
    (tmp_path / "run.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with start(tmp_path) as run:
        assert list(run.pending(["a", "b"])) == ["b"]
        assert run.owned == set()


def test_record_without_required_fields_is_not_finished(tmp_path):
    with start(tmp_path) as run:
        run.finish({"file": "a"})
        run.finish({"file": "b", "score": 1})
    with start(tmp_path, required=("score",)) as run:
        assert list(run.pending(["a", "b"])) == ["a"]


def test_difference_names_nested_settings():
    assert difference({"a": {"b": 1}}, {"a": {"b": 2}}) == "a.b 1, now 2"
    assert difference({"photos": ["x" * 100]}, {"photos": []}) == "photos differs"


def test_journal_rejects_nan_and_skips_rows_of_earlier_versions_that_have_it(tmp_path):
    with start(tmp_path) as run, pytest.raises(ContentError, match="NaN or infinite"):
        run.finish({"file": "a", "score": float("nan")})
    lines = [json.dumps({"identity": SETTINGS}), '{"file": "a", "score": NaN}', '{"file": "b"}']
    (tmp_path / "run.jsonl").write_text("\n".join(lines) + "\n")
    with start(tmp_path) as run:
        assert list(run.pending(["a", "b"])) == ["a"]
