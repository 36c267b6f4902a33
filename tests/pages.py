"""Reads pages of results as a browser does, without one."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

from PIL import Image


class Page(HTMLParser):
    """Content of a page; only data within it may be loaded."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        """Text of the cells of each table, by row."""
        self.curves: list[str] = []
        """Captions of the curves."""
        self.pictures = 0
        self.open: list[str] = []
        self.feed(text)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            assert name not in ("href", "srcset", "action", "onclick"), (tag, name)
            if name == "src":
                head, _, data = (value or "").partition(",")
                assert head == "data:image/jpeg;base64"
                Image.open(io.BytesIO(base64.b64decode(data))).load()
                self.pictures += 1
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "figcaption":
            self.curves.append("")
        if tag not in ("img", "meta", "polyline"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag != "polyline":
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & {*self.open}:
            self.tables[-1][-1][-1] += data
        elif "figcaption" in self.open:
            self.curves[-1] += data


def read_page(path: Path) -> Page:
    """Parses a page; checks that it loads nothing from elsewhere."""
    text = path.read_text(encoding="utf-8")
    assert "Content-Security-Policy" in text
    assert not re.search(r"https?:|@import|url\(", text.partition("<details>")[0])
    return Page(text)
