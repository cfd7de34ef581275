"""The page's layout and behaviour, built from Gradio's components."""

from collections.abc import Iterator
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from ..core.errors import QMANetError
from ..examine.metadata import printable
from .examination_service import ExaminationService, Step
from .examples import Example
from .limits import Stopped
from .sessions import Result

TITLE = "QMA-Net: examine a photo"

WELCOME = (
    "Find the regions of a photo that may have been manipulated. Photos stay on this machine, and "
    "your uploads are removed when you close or reload this page."
)
NO_MODEL = (
    "The page runs without a model, so there is no mask. It shows the metadata, the regions "
    "without readable traces, and noise views. Start it with <code>qma-net serve</code> for a mask."
)
FIRST = (
    "<p>Choose a photo, drop it anywhere on this page, or paste one; then press Examine.</p>"
    "<p>Use the original file if you can: pasting or saving a photo again destroys traces.</p>"
)
STOPPED = "<p>Stopped. There is no result for this photo.</p>"
FAULT = "internal error; see the terminal in which the server was started"

FONT = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
MONOSPACE = ["ui-monospace", "Menlo", "Consolas", "monospace"]


def theme() -> gr.Theme:
    """Return a theme that uses system fonts, so that none has to be downloaded."""
    return gr.themes.Base(
        primary_hue="blue", neutral_hue="slate", font=FONT, font_mono=MONOSPACE
    ).set(
        button_primary_background_fill="#1f5f99",
        button_primary_background_fill_hover="#174a78",
        body_text_color="#1c2127",
        block_label_text_color="#1c2127",
        body_text_color_subdued="#5a646e",
    )


def build_page(service: ExaminationService, examples: list[Example]) -> gr.Blocks:
    """Build the page.

    Args:
        service: Examines the photos.
        examples: The photos to try.
    """
    with gr.Blocks(
        title=TITLE,
        analytics_enabled=False,
        delete_cache=(3600, 86400),  # Uploads of pages that were not closed properly.
    ) as blocks:
        gr.HTML(_header(service), elem_id="header")
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=300):
                photograph = gr.File(
                    label="Photo", type="filepath", height=150, elem_id="photograph"
                )
                native = gr.Checkbox(
                    label="Original size",
                    info="More precise, but much slower for large photos",
                    visible=service.supports_native,
                    elem_id="native",
                )
                with gr.Row():
                    start = gr.Button("Examine", variant="primary", elem_id="examine", min_width=90)
                    stop = gr.Button("Stop", interactive=False, elem_id="stop", min_width=90)
                buttons = _examples(examples)
            with gr.Column(scale=3, min_width=300):
                status = gr.HTML(FIRST, elem_id="status")
                result = gr.HTML("", elem_id="result")

        def upload(path: str | None, request: gr.Request) -> None:
            service.sessions.uploaded(_session_name(request), Path(path) if path else None)

        def examine(path: str | None, native: bool, request: gr.Request) -> Iterator[tuple]:
            upload(path, request)
            yield from _examined(service, path, native, _session_name(request))

        def halt(request: gr.Request) -> None:
            service.sessions.of(_session_name(request)).stop()

        def leave(request: gr.Request) -> None:
            service.sessions.close(_session_name(request))

        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        running: dict[str, Any] = {
            "inputs": [photograph, native],
            "outputs": [status, result, start, stop],
            "concurrency_limit": None,  # The service has its own queue.
            **quiet,
        }
        photograph.change(upload, photograph, queue=False, **quiet)
        start.click(examine, **running)
        stop.click(halt, queue=False, **quiet)
        for button, path in buttons:
            chosen = button.click(partial(str, path), outputs=photograph, queue=False, **quiet)
            chosen.then(examine, **running)
        blocks.unload(leave)
    return blocks


def _examples(examples: list[Example]) -> list[tuple[gr.Button, Path]]:
    if not examples:
        return []
    gr.HTML("<h2>Examples</h2><p>Created by <code>qma-net data synth</code>.</p>", elem_id="try")
    with gr.Row(elem_id="examples"):
        return [
            (gr.Button(e.title, size="sm", min_width=110, icon=str(e.thumbnail)), e.photograph)
            for e in examples
        ]


def _examined(
    service: ExaminationService, path: str | None, native: bool, name: str
) -> Iterator[tuple]:
    """Examine a photo; yield the page's updates: status, result and the two buttons."""
    idle = gr.Button(interactive=True), gr.Button(interactive=False)
    busy = gr.Button(interactive=False), gr.Button(interactive=True)
    try:
        for step in service.examine(path, native=native, name=name):
            if isinstance(step, Result):
                yield "<p>Done.</p>", _shown(step), *idle
            else:
                yield _waiting(step), "", *busy
    except Stopped:
        yield STOPPED, "", *idle
    except QMANetError as error:
        yield _alert(str(error)), "", *idle
    except Exception:
        yield _alert(FAULT), "", *idle
        raise


def _session_name(request: gr.Request) -> str:
    assert request.session_hash
    return request.session_hash


def _header(service: ExaminationService) -> str:
    return f"<h1>QMA-Net</h1><p>{WELCOME}</p><p>{service.about or NO_MODEL}</p>"


def _alert(text: str) -> str:
    return f'<p role="alert">{escape(printable(text))}</p>'


def _waiting(step: Step) -> str:
    if step.position:
        others = "one photo is" if step.position == 1 else f"{step.position} photos are"
        return f"<p>Waiting: {others} ahead of yours.</p>"
    done, total = step.tiles
    if total < 2:
        return '<p>Examining&nbsp;...</p><progress aria-label="Examining"></progress>'
    left = "" if step.seconds_left is None else f", about {_duration(step.seconds_left)} left"
    return (
        f"<p>{done} of {total} tiles finished{left}.</p>"
        f'<progress aria-label="Finished tiles" max="{total}" value="{done}"></progress>'
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _shown(result: Result) -> str:
    """Return the element that ``viewer.js`` turns into the viewer and the report below it."""
    examination = result.examination
    height, width = examination.evidence.photograph.pixels.shape[:2]
    name = escape(printable(Path(examination.evidence.photograph.name).name), quote=True)
    attributes = f'name="{name}" width="{width}" height="{height}" base="/results/{result.token}/"'
    if examination.prediction:
        threshold = examination.prediction.threshold
        attributes += f' threshold="{threshold}" shares="{result.shares()}"'
    return f"<photo-viewer {attributes}></photo-viewer>"
