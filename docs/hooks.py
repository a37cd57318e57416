"""Build hook of the documentation site: some pages are files of the repository's root.

`docs/results.md` and its like are short pages that link to the file at the root; in the site they hold its content.
"""

import posixpath
import re
from pathlib import Path
from typing import Any


ROOT = Path(__file__).parent.parent
# Page of the site -> file at the root of the repository.
ROOT_PAGES = {
    "architecture.md": "ARCHITECTURE.md",
    "results.md": "RESULTS.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
LINK = re.compile(r"(?<!!)\[(?P<label>[^\]]+)\]\((?P<target>[^)\s]+)\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Called by MkDocs for the Markdown of each page."""
    source = ROOT_PAGES.get(page.file.src_uri)
    if source is None:
        return markdown
    return LINK.sub(_site_link, (ROOT / source).read_text(encoding="utf-8"))


def _site_link(link: re.Match) -> str:
    """A link of a file at the root, as a link of the site; a file that is not part of the site loses its link."""
    label, target = link["label"], link["target"]
    if "://" in target or target.startswith(("#", "mailto:")):
        return link[0]
    path, _, anchor = target.partition("#")
    suffix = ""
    if anchor:
        suffix = f"#{anchor}"
    pages = {source: page for page, source in ROOT_PAGES.items()} | {"README.md": "index.md"}
    if path in pages:
        return f"[{label}]({pages[path]}{suffix})"
    if posixpath.normpath(path).startswith("docs/"):
        return f"[{label}]({path.removeprefix('docs/')}{suffix})"
    return label
