"""What pages about photographs are made of: pictures as data, tables, lists, one style."""

import base64
from collections.abc import Iterable, Mapping
from html import escape

import cv2
import numpy as np

LARGEST_SHOWN = 1280  # pixels of a longer side on a page

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

STYLE = """
:root { --ink: #1c2127; --quiet: #5a646e; --line: #d9dee3; --accent: #1f5f99; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 76rem; color: var(--ink);
  background: #fff; font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .8rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .6rem; } h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
p, ul { max-width: 48rem; } li { overflow-wrap: anywhere; }
.caution { border-left: 4px solid #c77700; background: #fff7e8; padding: .7rem 1rem; margin: 0; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr));
  gap: 1.25rem; align-items: start; }
.large { grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
figure { margin: 0; } figure img { width: 100%; height: auto; display: block;
  border: 1px solid var(--line); background: #eee; }
figcaption { font-size: .9rem; color: var(--quiet); margin-top: .4rem; }
figcaption b { color: var(--ink); }
.swatch { display: inline-block; width: 1em; height: 1em; vertical-align: -.12em;
  border: 1px solid #888; margin-right: .25em; }
.tint { background: #e66; border-color: #ff2828; } .dark { background: #000; }
.hatch { background:
  repeating-linear-gradient(135deg, #ebebeb 0 2px, #141414 2px 4px, #999 4px 8px); }
.facts { border-collapse: collapse; font-size: .92rem; width: 100%; table-layout: fixed; }
.facts th, .facts td { text-align: left; vertical-align: top; padding: .25rem .6rem .25rem 0;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
.facts th { font-weight: 400; color: var(--quiet); width: 13rem; }
@media (max-width: 36rem) { .facts th { width: 8rem; } }
.scroll { overflow-x: auto; } .quantisation { border-collapse: collapse; margin: .3rem 0 1rem;
  font: .78rem/1.3 ui-monospace, Menlo, Consolas, monospace; }
.quantisation td { text-align: right; padding: .1rem .35rem; }
.quantisation caption { text-align: left; color: var(--quiet); font-family: inherit; }
details { margin: .6rem 0; } summary { cursor: pointer; color: var(--accent); }
pre, code { font: .84em/1.4 ui-monospace, Menlo, Consolas, monospace; background: #f4f6f8;
  overflow-wrap: anywhere; } code { padding: .1em .3em; border-radius: 3px; }
pre { padding: .6rem; white-space: pre-wrap; max-height: 24rem; overflow: auto; }
.thumbnails { display: flex; flex-wrap: wrap; gap: 1rem; }
.thumbnails img { width: auto; max-width: 100%; }
@media print { body { max-width: none; padding: 0; } figure { break-inside: avoid; } }
"""


def document(title: str, body: Iterable[str]) -> str:
    """A whole page, in ASCII, so that no machine's settings can garble it.

    Its own policy lets no script run and nothing be fetched, whatever slipped into the text.

    Args:
        title: plain text, also its heading.
        body: HTML.
    """
    text = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )
    return text.encode("ascii", "xmlcharrefreplace").decode()


def reduced(picture: np.ndarray, largest: int = LARGEST_SHOWN) -> np.ndarray:
    """A picture of at most so many pixels on its longer side, by averaging."""
    height, width = picture.shape[:2]
    scale = largest / max(height, width)
    if scale >= 1:
        return picture
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def png_data(picture: np.ndarray) -> str:
    """uint8 ``(H, W)`` or ``(H, W, 3)`` as the address of a PNG that holds it."""
    return _data("png", picture)


def jpeg_data(picture: np.ndarray) -> str:
    """The same as a JPEG: smaller, for what is looked at as a whole."""
    return _data("jpeg", picture)


def _data(kind: str, picture: np.ndarray) -> str:
    stored = picture[..., ::-1] if picture.ndim == 3 else picture  # OpenCV's order
    done, content = cv2.imencode(f".{kind}", np.ascontiguousarray(stored))
    assert done, f"a picture of {picture.shape} as {kind}"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def figure(data: str, alternative: str, caption: str) -> str:
    """A picture and what is said of it.

    Args:
        data: its address.
        alternative: plain text for who does not see it.
        caption: HTML.
    """
    caption = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f'<figure><img alt="{escape(alternative)}" src="{data}">{caption}</figure>'


def table(rows: Mapping[str, str]) -> str:
    """Names and plain texts in two columns."""
    cells = (
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(text)}</td></tr>'
        for name, text in rows.items()
    )
    return f'<table class="facts">{"".join(cells)}</table>'


def folded(summary: str, content: str) -> str:
    """HTML behind a line of plain text that opens it."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def bullets(items: Iterable[str]) -> str:
    """A list of HTML."""
    return "<ul>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>"


def pairs(values: Mapping) -> str:
    """Names and values in one line of plain text."""
    return ", ".join(f"{name} {value}" for name, value in values.items())


def percent(share: float) -> str:
    """A share of 0..1; a small one is not said to be none."""
    return "less than 0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f} %"
