"""The page: what a visitor sees and does, in Gradio's components."""

from collections.abc import Iterator
from functools import partial
from html import escape
from pathlib import Path

import gradio as gr

from ..core.errors import QMANetError
from ..examine.exif import printable
from .desk import Desk, Step
from .examples import Example
from .limits import Stopped
from .sessions import Result

TITLE = "QMA-Net: examine a photograph"

WELCOME = (
    "Where could this photograph have been changed? It stays on this machine, and what you "
    "upload is removed when you close or reload this page."
)
NO_MODEL = (
    "It was started without a model, so there is no mask: you see what the file says, where "
    "nothing can be read, and noise views. Start it with <code>qma-net serve</code> for a mask."
)
FIRST = (
    "<p>Choose a photograph, drop it anywhere on this page, or paste one; then press Examine.</p>"
    "<p>Take the file as you received it: a picture that was pasted or saved again has lost its "
    "history.</p>"
)
STOPPED = "<p>Stopped: nothing was found out about this photograph.</p>"
FAULT = "this is a fault of the program, not of the photograph; where it was started it says more"

FONT = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]  # of the reader's machine
MONOSPACE = ["ui-monospace", "Menlo", "Consolas", "monospace"]


def theme() -> gr.Theme:
    """Calm, and without a font that would have to be fetched."""
    return gr.themes.Base(
        primary_hue="blue", neutral_hue="slate", font=FONT, font_mono=MONOSPACE
    ).set(
        button_primary_background_fill="#1f5f99",
        button_primary_background_fill_hover="#174a78",
        body_text_color="#1c2127",
        block_label_text_color="#1c2127",
        body_text_color_subdued="#5a646e",
    )


def build_page(desk: Desk, examples: list[Example]) -> gr.Blocks:
    """The page.

    Args:
        desk: what examines.
        examples: photographs to try.
    """
    with gr.Blocks(
        title=TITLE,
        analytics_enabled=False,
        delete_cache=(3600, 86400),  # of uploads whose page never said goodbye
    ) as blocks:
        gr.HTML(_header(desk), elem_id="header")
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=300):
                photograph = gr.File(
                    label="Photograph", type="filepath", height=150, elem_id="photograph"
                )
                native = gr.Checkbox(
                    label="At its own size",
                    info="Finer, and much slower for a large photograph",
                    visible=desk.takes_native,
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
            desk.sessions.uploaded(request.session_hash, Path(path) if path else None)

        def examine(path: str | None, native: bool, request: gr.Request) -> Iterator[tuple]:
            upload(path, request)
            yield from _examined(desk, path, native, request.session_hash)

        def halt(request: gr.Request) -> None:
            desk.sessions.of(request.session_hash).stop()

        def leave(request: gr.Request) -> None:
            desk.sessions.close(request.session_hash)

        quiet = {"api_visibility": "private", "show_progress": "hidden"}
        running = {
            "inputs": [photograph, native],
            "outputs": [status, result, start, stop],
            "concurrency_limit": None,  # the desk has a queue of its own, with a thread of its own
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
    gr.HTML("<h2>Or try one</h2><p>Made by <code>qma-net data synth</code>.</p>", elem_id="try")
    with gr.Row(elem_id="examples"):
        return [
            (gr.Button(e.title, size="sm", min_width=110, icon=str(e.thumbnail)), e.photograph)
            for e in examples
        ]


def _examined(desk: Desk, path: str | None, native: bool, name: str) -> Iterator[tuple]:
    """What the page shows while a photograph is examined: status, result, the two buttons."""
    idle = gr.Button(interactive=True), gr.Button(interactive=False)
    busy = gr.Button(interactive=False), gr.Button(interactive=True)
    try:
        for step in desk.examine(path, native=native, name=name):
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


def _header(desk: Desk) -> str:
    return f"<h1>QMA-Net</h1><p>{WELCOME}</p><p>{desk.about or NO_MODEL}</p>"


def _alert(text: str) -> str:
    return f'<p role="alert">{escape(printable(text))}</p>'


def _waiting(step: Step) -> str:
    if step.before:
        some = "one photograph" if step.before == 1 else f"{step.before} photographs"
        return f"<p>Waiting: {some} before yours.</p>"
    done, total = step.tiles
    if total < 2:
        return '<p>Looking&nbsp;...</p><progress aria-label="Examining"></progress>'
    left = "" if step.seconds_left is None else f", about {_duration(step.seconds_left)} left"
    return (
        f"<p>{done} of {total} tiles looked at{left}.</p>"
        f'<progress aria-label="Tiles looked at" max="{total}" value="{done}"></progress>'
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _shown(result: Result) -> str:
    """The viewer, which ``viewer.js`` brings to life, and the report below it."""
    found = result.examination
    height, width = found.evidence.photograph.pixels.shape[:2]
    name = escape(printable(Path(found.evidence.photograph.name).name), quote=True)
    about = f'name="{name}" width="{width}" height="{height}" base="/results/{result.token}/"'
    if found.prediction:
        about += f' threshold="{found.prediction.threshold}" shares="{result.shares()}"'
    return f"<photo-viewer {about}></photo-viewer>"
