"""Fuzz tests of all untrusted input: accepted, or rejected with a one-line error.

Hypothesis changes valid content: it replaces values, removes keys, and damages the bytes.
``QMA_NET_FUZZ`` sets the number of examples per test (``shell/endurance.sh`` uses more than the
suite); the seed is fixed.
"""

import copy
import io
import json
import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from conftest import ROOT, photograph
from qma_net.core.errors import QMANetError
from qma_net.core.exif import MAX_ENTRIES
from qma_net.core.files import PathError, read_json_lines, read_json_object, safe_path
from qma_net.core.images import ORIENTATION_TAG
from qma_net.data.check import check
from qma_net.data.listing import read_listings
from qma_net.data.repair import repair
from qma_net.evaluation.attacks import read_attacks
from qma_net.evaluation.results import read_result_table
from qma_net.examine.evidence import read_evidence
from qma_net.examine.metadata import MAX_NOTES, read_facts
from qma_net.modeling.hub import CALIBRATION_NAME, CONFIG_NAME, PREPROCESSOR_NAME, WEIGHTS_FILE
from qma_net.report import report
from qma_net.weights.locate import load_model

EXAMPLES = int(os.environ.get("QMA_NET_FUZZ", 40))
SEED = 20261124

# Values that parsers often mishandle.
AWKWARD = st.sampled_from(
    [None, True, 0, -1, 10**9, 10**400, 1e308, float("nan"), float("inf"), "", "\0", "a\nb", "../x"]
    + ["/etc/passwd", "\udc80", "é" * 300, [], {}, [[]], [None], {"": None}, [1, 2, 3], "None"]
)
VALUES = st.recursive(
    AWKWARD | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


def fuzz(function):
    """Apply hypothesis with our settings, without a deadline because the machine is shared."""
    quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    chosen = settings(
        max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=quiet
    )
    return seed(SEED)(chosen(function))


def key_paths(content, path=()):
    """Yield the path of keys to every value in nested lists and dictionaries."""
    yield path
    inner = content.items() if isinstance(content, dict) else ()
    inner = enumerate(content) if isinstance(content, list) else inner
    for key, value in inner:
        yield from key_paths(value, (*path, key))


@st.composite
def changed(draw, content):
    """Replace or remove one to three values."""
    content = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 3))):
        *path, last = draw(st.sampled_from(list(key_paths(content)))) or (None,)
        if last is None:
            content = copy.deepcopy(draw(VALUES))
            continue
        container = content
        for key in path:
            container = container[key]
        if isinstance(container, dict) and draw(st.booleans()):
            del container[last]
        else:
            container[last] = copy.deepcopy(draw(VALUES))
    return content


@st.composite
def damaged(draw, data: bytes):
    """Replace, remove or duplicate pieces of the bytes."""
    data = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.sampled_from([0, 1, 2, 4, 64]))
        extra = draw(st.binary(max_size=8) | st.sampled_from([b"\xff" * 4, b"\0" * 4, b'"', b"["]))
        data[at : at + length] = extra if draw(st.booleans()) else data[at : at + length] * 2
    return bytes(data)


def either(content, *, dump=json.dumps):
    """Change the content, or damage its bytes."""
    text = dump(content).encode()
    return changed(content).map(lambda value: dump(value).encode(errors="replace")) | damaged(text)


COUNTS = Counter()  # Accepted and rejected inputs.


def accepted_or_rejected(call, *args, **kwargs):
    """Return the result of a call, or None if it raises an error with a short one-line message."""
    try:
        result = call(*args, **kwargs)
    except QMANetError as error:
        message = str(error)
    else:
        COUNTS["accepted"] += 1
        return result
    COUNTS["rejected"] += 1
    assert len(message.splitlines()) == 1, repr(message)
    assert len(message) < 4000
    return None


def test_multi_line_messages_are_detected():
    def fail():
        raise QMANetError("one line\nand another")

    with pytest.raises(AssertionError, match="one line"):
        accepted_or_rejected(fail)
    COUNTS.clear()


@pytest.fixture(autouse=True)
def counted(request, record):
    """Record how many inputs of a test were accepted and rejected."""
    COUNTS.clear()
    yield
    if COUNTS:
        answers = ", ".join(f"{number} {what}" for what, number in sorted(COUNTS.items()))
        record(f"{request.node.name}: {EXAMPLES} inputs of seed {SEED}: {answers}")


PAIRS = [["a/Tp/1.jpg", "a/Gt/1.png"], ["b.png", "Negative"]]


@pytest.mark.parametrize(
    "content",
    [PAIRS, [["ManiDataset", "a"], ["JsonDataset", "b.json"]], {"one": "a", "two": "b.json"}],
    ids=["list", "protocol", "test sets"],
)
def test_list_is_accepted_or_rejected_by_read_check_and_repair(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()

    @fuzz
    @given(data=either(content))
    def attempt(data):
        path = tmp_path / "list.json"
        path.write_bytes(data)
        before = set(tmp_path.iterdir())
        accepted_or_rejected(read_listings, path)
        accepted_or_rejected(check, [path], fast=True, workers=1)
        accepted_or_rejected(repair, [path], tmp_path / "out" / "fixed", workers=1)
        assert set(tmp_path.iterdir()) == before

    attempt()


def test_attack_file_is_accepted_or_rejected(tmp_path):
    import yaml

    entries = yaml.safe_load((ROOT / "benco_configs/robustness.yaml").read_text())[:3]

    @fuzz
    @given(data=either(entries, dump=yaml.safe_dump))
    def attempt(data):
        path = tmp_path / "attacks.yaml"
        path.write_bytes(data)
        accepted_or_rejected(read_attacks, path)

    attempt()


def test_small_attack_file_cannot_expand_without_limit(tmp_path):
    """Nested YAML anchors would give 9**30 arguments."""
    lines = ["- &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"- &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    lines += ["- {name: a, unit: u, levels: [1], transform: Blur, arguments: {blur_limit: *a29}}"]
    (tmp_path / "attacks.yaml").write_text("\n".join(lines))
    with pytest.raises(QMANetError, match="anchors"):
        read_attacks(tmp_path / "attacks.yaml", ["a"])


HEADER = {"set": "CASIAv1", "path": "sets/CASIAv1", "files_sha256": "0" * 64, "model": "QMANet"}
HEADER |= {"model_flags": {"size": "b0", "decoder": "query"}, "checkpoint": "run/checkpoint-9.pth"}
HEADER |= {"checkpoint_sha256": "1" * 64, "fit": "resize", "image_size": 512, "batch_size": 4}
HEADER |= {"about": "demo", "attack": None, "threshold": 0.5, "versions": {"qma-net": "0.2.0"}}
METRICS = ("pixel_f1", "permute_f1", "iou", "auc", "authentic_marked", "image_f1", "image_auc")
EVALUATION = dict.fromkeys(METRICS, 0.5)
EVALUATION |= {"n_tampered": 1, "n_authentic": 0, "score_source": "pred_label", "header": HEADER}
EVALUATION |= {"intervals": {"pixel_f1": [0.4, 0.6], "iou": [0.4, 0.6]}}
ATTACK = {"name": "jpeg", "level": 50, "unit": "quality", "transform": "", "arguments": {}}
ATTACKED = EVALUATION | {"header": HEADER | {"attack": ATTACK}}
COMPARISON = {"difference": 0.1, "interval": [0.0, 0.2], "p_value": 0.03, "n": 10}
PREPARED = {"dataset": "CASIAv1", "tampered": 920, "paper": 920, "types": {"splice": 459}}
ROW = {"name": "CASIAv1", "tampered": 920, "types": None, "smallest": "10x10", "largest": "20x20"}
RESULTS = {
    "CASIAv1.json": EVALUATION,
    "attacked.json": ATTACKED,
    "comparison.json": {"CASIAv1": {"a - b": {"pixel_f1": COMPARISON, "iou": None}}},
    "prepare.json": PREPARED,
    "check.json": {"errors": [], "warnings": [], "sets": [ROW]},
}
TABLE = (
    "name,label,f1,permute_f1,iou,auc,score,marked,path\na.jpg,1,0.5,0.5,0.4,0.9,0.7,0.2,/a.jpg\n"
)


@pytest.mark.parametrize("name", RESULTS)
def test_report_is_written_despite_a_damaged_file(name, tmp_path, monkeypatch):
    monkeypatch.setattr("qma_net.report._draw_figures", lambda *_: [])
    results = tmp_path / "results"
    results.mkdir()
    (results / "intact.json").write_text(
        json.dumps(EVALUATION | {"header": HEADER | {"set": "Columbia"}})
    )
    (results / "log.txt").write_text('{"epoch": 0, "train_total_loss": 1.0}\n')

    @fuzz
    @given(data=either(RESULTS[name]))
    def attempt(data):
        (results / name).write_bytes(data)
        *_, page = report([results], tmp_path / "page" / "report.html")
        assert "Columbia" in page.read_text()

    attempt()
    assert {path.name for path in tmp_path.iterdir()} == {"results", "page"}


def test_names_in_a_report_are_escaped(tmp_path, monkeypatch):
    """Datasets, models, checkpoints, attacks and folders can have any name."""
    monkeypatch.setattr("qma_net.report._draw_figures", lambda *_: [])
    evil = "<script>alert(1)</script>\"'>\n<img src=x onerror=alert(2)>| a\\\\b & $x$"
    header = HEADER | {"set": evil, "model": evil, "checkpoint": evil, "about": evil, "fit": evil}
    header |= {"model_flags": {evil: evil}, "versions": {"qma-net": evil}}
    (tmp_path / "results<img src=x>").mkdir()
    for name, attack in (("clean", None), ("attacked", ATTACK | {"name": evil, "unit": evil})):
        content = EVALUATION | {"header": header | {"attack": attack}}
        (tmp_path / "results<img src=x>" / f"{name}.json").write_text(json.dumps(content))
    pairs = {evil: {evil: {"pixel_f1": COMPARISON}}}
    (tmp_path / "results<img src=x>/comparison.json").write_text(json.dumps(pairs))
    *written, page = report([tmp_path / "results<img src=x>"], tmp_path / "page/report.html")
    text = page.read_text()
    assert "&lt;script&gt;alert(1)" in text
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert all(path.parent.parent == tmp_path / "page" for path in written)


@fuzz
@given(data=damaged(TABLE.encode()))
def test_rows_are_accepted_or_rejected(data, tmp_path):
    (tmp_path / "table.csv").write_bytes(data)
    for row in accepted_or_rejected(read_result_table, tmp_path / "table.csv") or ():
        assert row["name"]
        assert isinstance(row["f1"], float | None)


@fuzz
@given(data=either([{"epoch": 1, "a": 2.0}, {"epoch": 2}]))
def test_damaged_json_lines_are_skipped(data, tmp_path):
    (tmp_path / "log.txt").write_bytes(data.replace(b"}, {", b"}\n{").strip(b"[]"))
    for row in read_json_lines(tmp_path / "log.txt", ["epoch"]):
        assert "epoch" in row
    (tmp_path / "one.json").write_bytes(data)
    accepted_or_rejected(read_json_object, tmp_path / "one.json", "an object")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A directory written by save_pretrained with every optional file."""
    from qma_net.modeling import config
    from qma_net.modeling.calibration import Calibration
    from qma_net.modeling.config import Preprocessing, QMANetConfig
    from qma_net.modeling.qma_net import QMANetModel

    config.SIZES["smallest"] = ((8, 16, 40, 64), (1, 1, 1, 1))
    model = QMANetModel.from_config(QMANetConfig(size="smallest", views="srm"))
    model.preprocessing = Preprocessing(64, "resize")
    model.calibration = Calibration((0.1, 0.2), model.preprocessing)
    folder = tmp_path_factory.mktemp("pretrained")
    model.save_pretrained(folder)
    yield folder
    del config.SIZES["smallest"]


@pytest.mark.parametrize("name", [CONFIG_NAME, PREPROCESSOR_NAME, CALIBRATION_NAME])
def test_json_of_a_model_is_accepted_or_rejected(name, pretrained, tmp_path):
    whole = (pretrained / name).read_bytes()

    @fuzz
    @given(data=either(json.loads(whole)))
    def attempt(data):
        (pretrained / name).write_bytes(data)
        try:
            accepted_or_rejected(load_model, pretrained)
        finally:
            (pretrained / name).write_bytes(whole)

    attempt()


def test_weights_are_accepted_or_rejected(pretrained):
    """The header of the safetensors file is damaged: names, types, shapes and offsets."""
    whole = (pretrained / WEIGHTS_FILE).read_bytes()
    head = int.from_bytes(whole[:8], "little") + 8

    @fuzz
    @given(data=damaged(whole[:head]))
    def attempt(data):
        (pretrained / WEIGHTS_FILE).write_bytes(data + whole[head:])
        try:
            accepted_or_rejected(load_model, pretrained)
        finally:
            (pretrained / WEIGHTS_FILE).write_bytes(whole)

    attempt()


def jpeg_with_exif(block):
    file = io.BytesIO()
    Image.fromarray(photograph(48, 64)).save(file, "JPEG", exif=b"Exif\0\0" + block)
    return file.getvalue()


def exif_block():
    exif = Image.Exif()
    exif[ORIENTATION_TAG], exif[0x010F] = 6, "Maker"
    exif.get_ifd(0x8825).update({1: "S", 2: (33.0, 51.0, 30.0), 3: "E", 4: (151.0, 12.0, 0.0)})
    return exif.tobytes().removeprefix(b"Exif\0\0")


@fuzz
@given(block=damaged(exif_block()))
def test_damaged_exif_is_shown_as_it_is_applied(block):
    """Whatever remains readable, the page shows the orientation that the pixels have."""
    evidence = accepted_or_rejected(read_evidence, jpeg_with_exif(block))
    if evidence is None:
        return
    facts, notes = evidence.facts, evidence.facts.notes
    shown = facts.exif.get("IFD0", {}).get("Orientation", "1")
    applied = evidence.photograph.orientation
    if str(applied) != shown:
        assert applied == 1
        assert any(note.startswith("EXIF: the orientation") for note in notes)
    texts = [text for entries in facts.exif.values() for text in entries.values()]
    assert len(texts) <= MAX_ENTRIES
    assert all(text.replace("\n", "").isprintable() for text in [*texts, *notes])
    latitude, longitude = facts.position or (0, 0)
    assert abs(latitude) <= 90
    assert abs(longitude) <= 180


@fuzz
@given(
    data=st.binary(max_size=400)
    | damaged(b"\xff\xd8\xff\xe1\0\x08Exif\0\0\xff\xdb\0\x43" + b"\1" * 80)
)
def test_facts_about_arbitrary_bytes_are_read_without_an_error(data):
    facts = read_facts(data)
    assert (facts.size, len(facts.sha256)) == (len(data), 64)
    assert len(facts.notes) <= MAX_NOTES + 1
    if facts.format == "JPEG" and not data.endswith(b"\xff\xd9"):
        assert facts.notes or facts.trailing


@fuzz
@given(name=st.text(max_size=300) | st.sampled_from(["..", "a/../b", "/a", "", "a\0", "\udc80"]))
def test_safe_path_stays_in_its_folder(name, tmp_path):
    for nested in (False, True):
        try:
            path = safe_path(tmp_path / "out", name, nested=nested)
        except PathError:
            continue
        assert tmp_path / "out" in path.resolve().parents
