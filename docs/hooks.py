"""mkdocs hooks: adapt pages that are written for GitHub to the built site."""

import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(\]\()(?![a-z]+:|[#/])([^)\s#]+)([^)]*\))")
ROLE = re.compile(r":(?:class|data|exc|func|meth|mod):<code>~?\.?([\w.]+)</code>")


def on_page_markdown(markdown, page, config, files):
    """Turn links to folders and to files outside of docs/ into links to the repository.

    Links to files that do not exist stay as they are, so that `mkdocs build --strict` reports them.
    """
    folder = posixpath.dirname(posixpath.join("docs", page.file.src_uri))

    def to_repository(link: re.Match) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[2]))
        path = ROOT / target
        if target.startswith("../") or not path.exists():
            return link[0]
        if target.startswith("docs/") and path.is_file():
            return link[0]
        kind = "tree" if path.is_dir() else "blob"
        return f"{link[1]}{config.repo_url.rstrip('/')}/{kind}/main/{target}{link[3]}"

    return LINK.sub(to_repository, markdown)


def on_page_content(html, page, config, files):
    """Render the references in docstrings (``:func:`name```) as links where the target is shown."""
    return ROLE.sub(r'<autoref identifier="\1" optional><code>\1</code></autoref>', html)
