"""HTML pages from jinja2 templates; each page is self-contained."""

import base64
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment

# No script runs and nothing is fetched, whatever a page contains.
CONTENT_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@cache
def environment(package: str) -> "Environment":
    """Create an autoescaping jinja2 environment for a package that has a folder ``templates/``.

    Its templates can extend this package's ``base.html.j2`` (blocks ``title``, ``head`` and
    ``content``).
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    loaders = [PackageLoader(name) for name in dict.fromkeys((package, __package__))]
    environment = Environment(
        loader=ChoiceLoader(loaders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["content_policy"] = CONTENT_POLICY
    return environment


def render(package: str, template: str, **context: object) -> str:
    """Render a package's template as HTML in pure ASCII, so that a wrong charset cannot garble it.

    See :func:`environment`; ``template`` is a file name such as ``report.html.j2``.
    """
    text = environment(package).get_template(template).render(**context)
    return text.encode("ascii", "xmlcharrefreplace").decode("ascii")


def data_uri(content: bytes, media_type: str) -> str:
    """Return a data URI of an encoded image, with a media type such as ``image/png``."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"
