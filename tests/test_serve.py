"""``qma-net serve``: its API, limits, start and end."""

import io
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from conftest import photograph
from forks import HANG_TIMEOUT
from qma_net import cli
from qma_net.core.html import render
from qma_net.inference.predictor import QMANetPredictor
from qma_net.modeling.config import Preprocessing
from qma_net.synth.recipe import SynthesisError
from qma_net.web import worker
from qma_net.web.examples import TITLES, make_examples
from qma_net.web.limits import Limits, ServeError
from sample_archives import bomb
from serving import (
    BROKEN,
    PHOTO,
    SMALL,
    STRICT,
    TOKEN,
    Server,
    encoded,
    eventually,
    examine,
    open_client,
    post,
)


@pytest.fixture(scope="module")
def disposable(servers, tmp_path_factory, checkpoint):
    """A server that may be stopped, with a tiny disk."""
    folder = tmp_path_factory.mktemp("disposable") / "server"
    started = Server(folder, "--checkpoint", str(checkpoint), limits=Limits(kept_gigabytes=1e-6))
    yield started
    started.end()


@pytest.mark.parametrize(("fit", "is_offered"), [("resize", True), ("native", False)])
def test_original_resolution_is_offered_only_where_it_makes_a_difference(
    build_tiny, fit, is_offered
):
    model = build_tiny()
    model.preprocessing = Preprocessing(64, fit=fit)
    about = worker._describe(QMANetPredictor(model, "cpu"), "")
    page = render("qma_net.web", "page.html.j2", about=about, examples=[], limits=Limits())
    assert ('id="native"' in page) == is_offered
    assert about["supports_native"]  # The API accepts the option in any case.


def test_images_keep_the_color_profile_of_the_photo(client):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    state = examine(client, encoded(photograph(64, 64), icc_profile=profile))
    for name in ("photograph", "overlay"):
        content = client.get(f"/api/examinations/{state['id']}/{name}.png").content
        assert Image.open(io.BytesIO(content)).info["icc_profile"] == profile


def test_api_examines_a_photo(client, server, checkpoint):
    before = set(server.visitor_files())
    state = examine(client, PHOTO, "../../the harbour.jpg")
    assert (state["state"], state["name"], state["error"]) == ("done", "the harbour.jpg", None)
    assert (state["result"]["width"], state["result"]["height"]) == (400, 300)
    base = f"/api/examinations/{state['id']}"
    assert client.get(base).json() == state
    assert len(state["id"]) >= 22
    for name, mode in (("mask", "L"), ("overlay", "RGB"), ("photograph", "RGB")):
        image = Image.open(io.BytesIO(client.get(f"{base}/{name}.png").content))
        assert (image.mode, image.size) == (mode, (400, 300))
    report = client.get(f"{base}/report.html", params={"threshold": 0.3})
    assert "Examination of the harbour.jpg" in report.text
    assert "sandbox" in report.headers["content-security-policy"]
    assert "script-src" not in report.headers["content-security-policy"]
    facts = client.get(f"{base}/report.json?threshold=1").json()
    assert (facts["file"], facts["marked"]) == ("the harbour.jpg", 0)
    assert facts["checkpoint"] == checkpoint.name  # Not where it is on the server.
    assert str(checkpoint.parent) not in report.text
    added = set(server.visitor_files()) - before
    folders = {path.parent for path in added}
    assert {folder.name for folder in folders} == {state["id"]}
    assert all(re.fullmatch(r"\w+\.(png|bin|pickle)", path.name) for path in added)
    root = next(iter(folders)).parents[1]
    assert root.stat().st_mode & 0o777 == 0o700
    assert client.delete(base).status_code == 204
    assert set(server.visitor_files()) == before
    assert {client.get(base).status_code, client.delete(base).status_code} == {404}


def test_openapi_and_health(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/api/examinations", "/api/examinations/{name}", "/healthz"} <= paths.keys()
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/docs").status_code == 404


def test_page_contains_no_external_references_and_no_inline_code(client):
    response = client.get("/")
    assert not re.search(r'(src|href|action)="(https?:)?//', response.text)
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script>", response.text)
    policy = response.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    for name, value in (
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "same-origin"),
        ("cache-control", "no-store"),
    ):
        assert response.headers[name] == value


def test_files_that_cannot_be_decoded_are_reported(client, server):
    for content, fault in ((bomb(), "40000x40000 pixels"), (BROKEN, "cannot read broken.jpg")):
        state = examine(client, content, "broken.jpg")  # Its metadata may still be of interest.
        assert (state["state"], state["result"]["width"]) == ("done", None)
        assert fault in state["result"]["error"]
        base = f"/api/examinations/{state['id']}"
        assert client.get(f"{base}/photograph.png").status_code == 404
        assert "broken.jpg" in client.get(f"{base}/report.html").text
        client.delete(base)
    assert [path for path in server.visitor_files() if path.name == "upload"] == []


def test_frozen_or_crashing_decoder_affects_only_its_examination(client, server):
    large = encoded(photograph(600, 1400), quality=95)
    for attack, number in (("stop", signal.SIGSTOP), ("crash", signal.SIGSEGV)):
        frozen = post(client, large, params={"native": True}).json()["id"]
        base = f"/api/examinations/{frozen}"
        assert eventually(lambda base=base: client.get(base).json()["state"] == "running")
        process = server.worker()
        os.kill(process, number)
        other = post(client, SMALL).json()["id"]
        assert client.get("/healthz").status_code == 200
        if attack == "stop":
            assert client.get(base).json()["state"] == "running"
            assert client.delete(base).status_code == 204
        else:
            assert eventually(lambda base=base: client.get(base).json()["state"] == "failed")
            assert "crashed" in client.get(base).json()["error"]
            client.delete(base)
        path = f"/api/examinations/{other}"
        assert eventually(lambda path=path: client.get(path).json()["state"] == "done")
        client.delete(path)
        assert not Path(f"/proc/{process}").exists()


def test_41_visitors_do_not_remove_the_results_of_each_other(client):
    names = []
    for _ in range(41):
        while (response := post(client, SMALL)).status_code == 429:
            assert int(response.headers["retry-after"]) > 0
            time.sleep(0.2)
        names.append(response.json()["id"])
    assert len(set(names)) == 41
    assert eventually(
        lambda: all(
            client.get(f"/api/examinations/{name}").json()["state"] == "done" for name in names
        )
    )
    for name in names:
        assert client.delete(f"/api/examinations/{name}").status_code == 204


def test_paths_below_the_root_path_are_served(strict):
    assert strict.get("/forensics/openapi.json").json()["servers"] == [{"url": "/forensics"}]
    assert strict.get("/forensics/static/page.js").status_code == 200
    assert strict.get("/forensicsx/").status_code == 404


def test_full_queue_and_store_are_refused(servers, strict):
    names = [post(strict, SMALL).json()["id"]]
    os.kill(process := servers[1].worker(), signal.SIGSTOP)
    try:
        answers = [post(strict, SMALL) for _ in range(4)]
        assert {answer.status_code for answer in answers} == {202, 429}
        names += [answer.json()["id"] for answer in answers if answer.status_code == 202]
    finally:
        os.kill(process, signal.SIGCONT)

    def is_full() -> bool:
        answer = post(strict, SMALL)
        names.extend([answer.json()["id"]] if answer.status_code == 202 else [])
        for name in names:  # Those that nobody asks for are removed soon.
            strict.get(f"/api/examinations/{name}")
        return len(names) == STRICT.kept

    assert eventually(is_full)
    answer = post(strict, SMALL)
    assert answer.status_code == 429
    for name in names:
        strict.delete(f"/api/examinations/{name}")


def test_abandoned_examinations_are_removed(servers, strict):
    name = post(strict, SMALL).json()["id"]  # Nobody asks for it.
    assert eventually(lambda: not servers[1].visitor_files())
    assert strict.get(f"/api/examinations/{name}").status_code == 404


def test_full_disk_gives_status_507(disposable):
    process = disposable.process.pid
    with open_client(disposable.address()) as client:
        soft, hard = resource.prlimit(process, resource.RLIMIT_FSIZE)
        resource.prlimit(process, resource.RLIMIT_FSIZE, (1000, hard))
        response = post(client)
        resource.prlimit(process, resource.RLIMIT_FSIZE, (soft, hard))
        assert response.status_code == 507
        assert disposable.visitor_files() == []
        state = examine(client)
        assert post(client).status_code == 507
        client.delete(f"/api/examinations/{state['id']}")


def test_write_error_of_a_full_disk_gives_status_507(tmp_path):
    from qma_net.web.examinations import storing

    with pytest.raises(ServeError, match="No space left on device") as refused, storing():
        raise OSError(28, "No space left on device")
    assert refused.value.status == 507


def test_interrupted_server_with_a_frozen_decoder_leaves_nothing(disposable):
    server, address = disposable, disposable.address()
    with open_client(address) as client:
        large = encoded(photograph(600, 1400), quality=95)
        name = post(client, large, params={"native": True}).json()["id"]
        path = f"/api/examinations/{name}"
        assert eventually(lambda: client.get(path).json()["state"] == "running")
        os.kill(server.worker(), signal.SIGSTOP)
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(HANG_TIMEOUT) == 0
    assert list(server.temporary.iterdir()) == []
    line = f"{address} (Ctrl+C stops the server and removes all uploads)\n"
    assert server.log.read_text() == line


def test_stopped_process_is_replaced_before_the_next_photo(client, server):
    name = post(client, encoded(photograph(600, 1400)), params={"native": True}).json()["id"]
    base = f"/api/examinations/{name}"
    assert eventually(lambda: client.get(base).json()["state"] == "running")
    process = server.worker()
    assert client.delete(base).status_code == 204
    assert eventually(lambda: server.worker() not in (0, process))


def start_worker(folder: Path, limits: Limits) -> worker.Worker:
    started = worker.Worker(partial(worker.load_model, "", "", (), "", folder), folder, limits)
    started.start()
    return started


def test_memory_of_an_examination_is_limited(tmp_path):
    examiner = start_worker(tmp_path, Limits(memory_gigabytes=0.25))
    options = {"native": False, "is_stopped": lambda: False, "progress": lambda _: None}
    (tmp_path / "upload").write_bytes(encoded(np.zeros((6000, 8000, 3), np.uint8)))
    with pytest.raises(ServeError, match="memory"):
        examiner.examine(tmp_path, name="large", **options)
    (tmp_path / "upload").write_bytes(SMALL)
    assert examiner.examine(tmp_path, name="small", **options)["width"] == 80
    examiner.kill()


def test_worker_ends_an_examination_that_takes_too_long(tmp_path):
    examiner = start_worker(tmp_path, Limits(minutes=0))
    (tmp_path / "upload").write_bytes(PHOTO)
    options = {"name": "a", "native": False, "is_stopped": lambda: False, "progress": print}
    with pytest.raises(ServeError, match="took more than 0 minutes"):
        examiner.examine(tmp_path, **options)
    examiner.kill()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--host", "no.such.host.invalid", "--token", TOKEN],
            "cannot listen on --host no.such.host.invalid --port",
        ),
        (
            ["--host", "203.0.113.7", "--token", TOKEN],
            "cannot listen on --host 203.0.113.7 --port 7860: Cannot assign",
        ),
        (["--port", "99999"], "--port 99999: .*; choose a different --port"),
        (
            ["--host", "0.0.0.0"],
            "--host 0.0.0.0 can be reached by others and requires an access token",
        ),
        (["--token", "short"], "--token is too short"),
        (["--root-path", "forensics"], "expected /PATH or https://HOST/PATH"),
        (["--model", "MVSSNet"], "--model MVSSNet requires --checkpoint"),
    ],
)
def test_unusable_address_or_model_gives_one_line_error(flags, message):
    with pytest.raises(SystemExit, match=message):
        cli.main(["serve", *flags])


def test_port_in_use_gives_one_line_error():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit, match=rf"--port {port}: .* in use; choose a different"):
            cli.main(["serve", "--port", str(port)])


def test_missing_uvicorn_names_the_extra_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(SystemExit, match=r"pip install 'qma-net\[web\]'"):
        cli.main(["serve"])


def test_missing_imdlbenco_names_the_extra_to_install(tmp_path):
    package = tmp_path / "IMDLBenCo"
    package.mkdir()
    error = "raise ModuleNotFoundError(\"No module named 'IMDLBenCo'\", name='IMDLBenCo')"
    (package / "__init__.py").write_text(error)
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{Path(cli.__file__).parents[2]}"}
    command = ["serve", "--port", "0", "--model", "MVSSNet", "--checkpoint", "a.pth"]
    result = subprocess.run(
        [sys.executable, "-m", "qma_net", *command], env=environment, capture_output=True, text=True
    )
    message = "qma-net: IMDLBenCo is not installed; run: pip install 'qma-net[benco]'\n"
    assert (result.returncode, result.stderr) == (1, message)


def test_examples_are_created_from_a_folder_of_photos(tmp_path, monkeypatch):
    photos = tmp_path / "photos"
    photos.mkdir()
    with pytest.raises(SynthesisError, match="has 0 usable photos, expected at least two"):
        make_examples(tmp_path, str(photos))
    for seed in range(4):
        Image.fromarray(photograph(400, 600, seed)).save(photos / f"{seed}.png")
    examples = make_examples(tmp_path, str(photos))
    assert [example.title for example in examples] == list(TITLES.values())
    for example in examples:
        assert Image.open(example.photograph).format == "JPEG"
        assert max(Image.open(example.thumbnail).size) == 96
    monkeypatch.setattr("qma_net.web.examples.find_spec", lambda name: None)
    assert make_examples(tmp_path) == []


class Bright(torch.nn.Module):
    """A model for BenCo's registry that marks bright pixels."""

    def __init__(self, gain: float = 3.0):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(gain))

    def forward(self, image, mask, label, **kwargs):
        mask = torch.sigmoid(self.gain * image.mean(1, keepdim=True))
        return {"pred_mask": mask, "pred_label": None}


@pytest.mark.parametrize("padded", [False, True])
def test_registered_model_examines_photos_as_in_benco(tmp_path, monkeypatch, padded):
    pytest.importorskip("IMDLBenCo.registry", reason="imdlbenco is not installed")
    from argparse import Namespace

    from IMDLBenCo.registry import MODELS

    from qma_net.evaluation.registered_model import RegisteredModel
    from qma_net.examine.page import render_page

    monkeypatch.setitem(MODELS.module_dict, "Bright", Bright)
    trained = Namespace(image_size=64, if_padding=padded)
    torch.save({"model": Bright(4.0).state_dict(), "args": trained}, tmp_path / "bright.pth")
    model = RegisteredModel.load(
        "Bright", ["--gain", "4"], str(tmp_path / "bright.pth"), device="cpu", folder=tmp_path
    )
    about = worker._describe(model, "")
    assert about["about"] == "Model: Bright, bright.pth."
    assert not about["supports_native"]
    pixels = np.full((120, 160, 3), 60, np.uint8)
    pixels[30:90, 80:] = 220
    Image.fromarray(pixels).save(tmp_path / "upload", "PNG")
    limits = Limits()
    result = worker._examine(model, "", limits, tmp_path, "a", False, lambda *_: None)
    examination = worker.load_examination(tmp_path)
    marked = examination.prediction.binary
    expected = pixels[..., 0] > 128
    assert marked.shape == (120, 160)
    assert (marked == expected).mean() > 0.97
    assert examination.settings["shown"].startswith("padded" if padded else "resized")
    assert ">Bright<" in render_page(examination, images=False)
    mask, shares = examination.prediction.mask, result["shares"]
    assert shares[::20] == [round(float((mask > t).mean()), 4) for t in (0, 0.2, 0.4, 0.6, 0.8, 1)]
    assert 0 < shares[80] < shares[20] < 1
    assert any("downscaled to 64x48" in note for note in examination.notes) == padded


@pytest.mark.slow
def test_memory_stays_constant_over_200_requests(tmp_path, checkpoint, capsys):
    """Four visitors; a fifth of their files is invalid, and each request gets an answer."""
    server = Server(tmp_path / "server", "--checkpoint", str(checkpoint))
    address = server.address()
    bad = (b"", b"words", BROKEN, bomb())
    answers, errors = [], []

    def visit(number: int, times: int) -> None:
        try:
            with open_client(address) as client:
                for i in range(times):
                    is_bad = i % 5 == 4
                    content = bad[i // 5 % 4] if is_bad else PHOTO
                    if len(content) < 10:
                        assert post(client, content).status_code in (400, 415)
                    else:
                        state = examine(client, content, f"{number}_{i}.jpg")
                        error = state["error"] or state["result"]["error"]
                        assert (error is not None) == is_bad, state
                        base = f"/api/examinations/{state['id']}"
                        for file in () if is_bad else ("mask.png", "panels.html?threshold=0.3"):
                            client.get(f"{base}/{file}").raise_for_status()
                        assert client.delete(base).status_code == 204
                    answers.append(is_bad)
        except Exception as error:
            errors.append(error)

    def memory() -> float:
        """The memory of both processes in MB."""
        texts = [
            Path(f"/proc/{process}/status").read_text(encoding="utf-8")
            for process in (server.process.pid, server.worker())
        ]
        return sum(int(re.search(r"VmRSS:\s+(\d+)", text)[1]) for text in texts) / 1024

    def all_visit(times: int) -> float:
        visitors = [threading.Thread(target=visit, args=(i, times)) for i in range(4)]
        for visitor in visitors:
            visitor.start()
        for visitor in visitors:
            visitor.join()
        return memory()

    try:
        after_warm_up = all_visit(10)
        at_end = all_visit(40)
        left = server.visitor_files()
    finally:
        server.end()
    with capsys.disabled():
        print(f" {len(answers)} answers; {after_warm_up:.0f} MB, then {at_end:.0f} MB", end="")
    assert errors == []
    assert (len(answers), sum(answers)) == (40 + 160, 8 + 32)
    assert at_end < 1.1 * after_warm_up
    assert left == []
