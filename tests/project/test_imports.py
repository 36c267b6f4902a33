"""Imports go one way: from programs down to ops, and the models do not know each other."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FACES = (
    "PG_OP",
    "diff_gaussian_rasterization",
    "fused_ssim",
    "pointgroup_ops",
    "segmentator",
    "simple_knn",
    "softgroup",
    "spconv",
    "torch_scatter",
)
"""The names that other code bases import: thin, over the ops of one model."""
LAYERS = {
    "refersplat": (
        ("tables",),
        ("many",),
        ("__main__",),
        ("__init__", "train", "evaluate", "pictures"),
        ("export", "viewer"),
        ("masks",),
        ("inference", "labels"),
        ("referring",),
        ("language",),
        ("field",),
        ("rgb",),
        ("splats",),
        ("photos",),
        ("data",),
        ("ops",),
        ("command",),
        ("config", "cameras", "metrics"),
    ),
    "detailbase": (
        ("many",),
        ("__main__",),
        ("__init__", "train", "evaluate", "predict"),
        ("viewer",),
        ("inference",),
        ("training",),
        ("model",),
        ("data",),
        ("descriptions",),
        ("scans",),
        ("ops",),
        ("command",),
        ("config",),
    ),
    "refer3d": (
        ("doctor", "page", "viewer"),
        ("text_encoder", "language"),
        ("native",),
        ("runs",),
        ("__init__",),
    ),
}
"""The parts of each package, from the top: a part imports what stands in the layers below it, and
itself."""


def imports(source: str, module: str) -> set[str]:
    """Every module that ``source``, the text of ``module``, names in an import, for types too."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: -node.level] if node.level else []
            origin = ".".join([*base, *filter(None, [node.module])])
            # `from refersplat import train` imports refersplat.train.
            found.update(f"{origin}.{alias.name}" for alias in node.names)
    return found


def split(module: str) -> tuple[str, str]:
    """Package and part of a module: ``refersplat.ops.knn`` is in the part ops of refersplat."""
    package, part = [*module.split("."), "__init__"][:2]
    return package, part


def layer(package: str, part: str) -> int:
    """Distance of a part from the top; a name that is no part is one of ``__init__``."""
    layers = LAYERS[package]
    places = [index for index, parts in enumerate(layers) if part in parts]
    return places[0] if places else next(i for i, ps in enumerate(layers) if "__init__" in ps)


def forbidden(module: str, imported: str) -> str | None:
    """Why ``module`` may not import ``imported``, or None where it may."""
    (package, part), (other, other_part) = split(module), split(imported)
    if other in FACES and package not in FACES:
        return "nothing here needs a drop-in face"
    if other not in LAYERS or (package == other and part == other_part):
        return None
    if package in FACES:
        is_allowed = other == "refer3d" or other_part in ("ops", "cameras")
        return None if is_allowed else "a drop-in face uses ops only"
    if package != other:
        return None if other == "refer3d" else f"{package} does not know {other}"
    if layer(package, other_part) <= layer(package, part):
        return f"{other_part} does not stand below {part}"
    return None


def modules() -> list[tuple[str, Path]]:
    roots = {ROOT: ("refersplat", "detailbase"), ROOT / "submodules": ("refer3d",)}
    roots[ROOT / "submodules" / "compat"] = FACES
    files = [
        (path.relative_to(root), path)
        for root, packages in roots.items()
        for package in packages
        for path in (root / package).rglob("*.py")
    ]
    # A package is named with its __init__, so that relative imports are counted from its folder.
    return [(".".join(name.with_suffix("").parts), path) for name, path in sorted(files)]


def test_imports_go_one_way():
    assert len(modules()) > 100
    wrong = [
        f"{path.relative_to(ROOT)} imports {imported}: {why}"
        for module, path in modules()
        for imported in imports(path.read_text(encoding="utf-8"), module)
        if (why := forbidden(module, imported))
    ]
    assert not wrong, "\n".join(sorted(wrong))


def test_every_part_has_a_layer():
    parts = {split(module) for module, _ in modules()}
    known = {(package, part) for package in LAYERS for parts in LAYERS[package] for part in parts}
    assert {(package, part) for package, part in parts if package in LAYERS} <= known


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("refersplat.train", "import detailbase.ops"),
        ("detailbase.model.backbone", "from refersplat.ops import knn"),
        ("refer3d.runs.config", "from refersplat.config import Config"),
        ("refer3d.runs.config", "from refer3d.native import load"),
        ("simple_knn.__init__", "from refersplat.field import network"),
        ("refersplat.ops.knn", "from refersplat.splats import gaussians"),
        ("refersplat.ops.knn", "def f():\n    from ..field.network import ReferringField"),
        ("refersplat.data.colmap", "from refersplat.splats import render"),
        ("refersplat.data.__init__", "from ..train import main"),
        ("refersplat.config", "import refersplat.data"),
        ("refersplat.field.network", "from refersplat.referring import train"),
        ("refersplat.ops.knn", "from pointgroup_ops import voxelization"),
        ("refersplat.rgb.train", "if TYPE_CHECKING:\n    from refersplat.field import network"),
    ],
)
def test_what_breaks_the_rule_is_seen(module, source):
    assert any(forbidden(module, imported) for imported in imports(source, module))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("refersplat.ops.__init__", "from .knn import knn"),
        ("simple_knn.__init__", "from refersplat.ops import knn"),
        ("refersplat.data.scene", "from refersplat.cameras import Camera\nimport refer3d.runs"),
        ("refersplat.field.network", "from ..ops import knn"),
        ("refersplat.language.groups", "if TYPE_CHECKING:\n    from refersplat.data import View"),
    ],
)
def test_what_follows_the_rule_is_let_through(module, source):
    assert not any(forbidden(module, imported) for imported in imports(source, module))


def test_native_code_knows_no_python():
    sources = [
        path
        for folder in (ROOT / "refersplat", ROOT / "detailbase", ROOT / "submodules")
        for path in folder.rglob("csrc/*")
        if not path.stem.endswith("bindings")
    ]
    assert sources
    for path in sources:
        assert not re.search(
            r"#include\s*[<\"](pybind11|Python\.h|torch|ATen|c10)", path.read_text(encoding="utf-8")
        ), path
