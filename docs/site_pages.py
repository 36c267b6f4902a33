"""Adds README.md and others from outside docs/ to the site, and maps links between files."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
    "data/README.md": "data.md",
}
"""Pages of the site by their files in the repository; those in docs/ keep their names."""
LINK = re.compile(r"(\]\()([^)#:]+)(#[^)]*)?(\))")


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages."""
    for source, name in PAGES.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Points links between files of the repository at the site's pages."""
    names = {name: source for source, name in PAGES.items()}
    folder = posixpath.dirname(names.get(page.file.src_uri, f"docs/{page.file.src_uri}"))

    def mapped(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[2]))
        if target not in PAGES and not (ROOT / target).exists():
            return link[0]  # the strict build reports it
        if target not in PAGES and not target.startswith("docs/"):
            return f"{link[1]}#{link[4]}"  # a file that the site does not show
        return f"{link[1]}{PAGES.get(target, target.removeprefix('docs/'))}{link[3] or ''}{link[4]}"

    return LINK.sub(mapped, markdown)
