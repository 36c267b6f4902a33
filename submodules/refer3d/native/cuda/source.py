"""The text of a kernel file with its headers in it, and where compiled ones are kept."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
from collections.abc import Mapping
from pathlib import Path

INCLUDE = re.compile(r'^#include "([\w./]+)"$', re.MULTILINE)
KERNEL = re.compile(r"__global__ void\s+(?:__launch_bounds__\([\w, ]+\)\s*)?(\w+)\(")
SHARED_HEADERS = Path(__file__).parents[1] / "csrc"

Defines = Mapping[str, str | int]


def sources(package: str) -> dict[str, Path]:
    """The kernel files of a package, by their stems."""
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations or [] if spec else []
    return {path.stem: path for folder in folders for path in Path(folder, "csrc").glob("*.cu")}


def read_source(path: Path, *folders: Path) -> str:
    """A file's text with our headers in the place of their includes, each of them once.

    Args:
        path: Kernel file.
        folders: Searched for headers before the file's own folder and the shared one.
    """
    return _expand(path, [*folders, path.parent, SHARED_HEADERS], set())


def _expand(path: Path, folders: list[Path], seen: set[Path]) -> str:
    text = path.read_text(encoding="utf-8").replace("#pragma once\n", "\n")

    def header(match: re.Match[str]) -> str:
        include = next(file for folder in folders if (file := folder / match[1]).is_file())
        if include in seen:
            return ""
        seen.add(include)
        line = text.count("\n", 0, match.start()) + 2
        return f'{_expand(include, folders, seen)}\n#line {line} "{path.name}"'

    return f'#line 1 "{path.name}"\n' + INCLUDE.sub(header, text)


def kernel_names(path: Path) -> list[str]:
    """The kernels that a file defines."""
    return KERNEL.findall(path.read_text(encoding="utf-8"))


def digest(*parts: object) -> str:
    """A name for what was compiled from ``parts``."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:32]


def cache_folder() -> Path:
    """Folder of compiled kernels: ``REFER3D_CACHE``, else in the user's cache."""
    if folder := os.environ.get("REFER3D_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "refer3d"
