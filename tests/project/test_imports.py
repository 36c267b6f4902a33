"""Who may import whom: scripts -> train, render, evaluate -> model -> ops -> csrc."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODELS = ("refersplat", "detailbase")
FACES = ("diff_gaussian_rasterization", "simple_knn", "pointgroup_ops")
"""The names that other code bases import: thin, over the ops of one model."""
KNOWS = {
    "data": ("config", "cameras"),
    "detailbase.data": ("config", "ops"),  # voxels and superpoints are made in data workers
    "ops": ("cameras",),
    "config": (),
    "cameras": (),
}
"""Parts of a model that use only themselves and these other parts of it."""


def imports(source: str, module: str) -> set[str]:
    """Every module that ``source``, the text of ``module``, imports when it runs."""
    found = set()
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue  # names a type, depends on nothing
        waiting.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: -node.level] if node.level else []
            origin = ".".join([*base, *filter(None, [node.module])])
            # `from refersplat import train` imports refersplat.train.
            found.update(f"{origin}.{alias.name}" for alias in node.names)
    return found


def is_in(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def forbidden(module: str, imported: str) -> str | None:
    """Why ``module`` may not import ``imported``, or None where it may."""
    top, part = [*module.split("."), ""][:2]
    if top in FACES:
        allowed = [f"{model}.{part}" for model in MODELS for part in ("ops", "cameras")]
        if is_in(imported, *MODELS) and not is_in(imported, *allowed):
            return "a drop-in face uses ops only"
    elif top not in MODELS:
        if is_in(imported, *MODELS):
            return "submodules know neither model"
    elif is_in(imported, *(model for model in MODELS if model != top)):
        return "the models do not know each other"
    elif part in KNOWS and is_in(imported, top):
        known = KNOWS.get(f"{top}.{part}", KNOWS[part])
        if not is_in(imported, *(f"{top}.{name}" for name in (part, *known))):
            return f"{part} knows only {', '.join(known) or 'itself'}"
    elif part == "model" and is_in(
        imported, *(f"{top}.{name}" for name in ("data", "train", "evaluate", "render"))
    ):
        return "a model knows no files and no training"
    return None


def modules() -> list[tuple[str, Path]]:
    files = [path for model in MODELS for path in (ROOT / model).rglob("*.py")]
    named = [(path.relative_to(ROOT), path) for path in files]
    named += [(p.relative_to(ROOT / "submodules"), p) for p in (ROOT / "submodules").rglob("*.py")]
    # A package is named with its __init__, so that relative imports are counted from its folder.
    return [(".".join(name.with_suffix("").parts), path) for name, path in sorted(named)]


def test_imports_go_one_way():
    assert len(modules()) > 10
    wrong = [
        f"{path.relative_to(ROOT)} imports {imported}: {why}"
        for module, path in modules()
        for imported in imports(path.read_text(encoding="utf-8"), module)
        if (why := forbidden(module, imported))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("refersplat.train", "import detailbase.ops"),
        ("detailbase.model.unet", "from refersplat.ops import knn"),
        ("runs.config", "from refersplat.config import Config"),
        ("simple_knn.__init__", "from refersplat.model import referring"),
        ("refersplat.ops.knn", "from refersplat import gaussians"),
        ("refersplat.ops.knn", "def f():\n    from ..model.build import field"),
        ("refersplat.data.colmap", "from refersplat.ops import knn"),
        ("refersplat.data.__init__", "from ..train import main"),
        ("refersplat.config", "import refersplat.data"),
        ("refersplat.model.referring", "from refersplat.data import load_scene"),
    ],
)
def test_what_breaks_the_rule_is_seen(module, source):
    assert any(forbidden(module, imported) for imported in imports(source, module))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("refersplat.ops.__init__", "from .knn import knn"),
        ("simple_knn.__init__", "from refersplat.ops import knn"),
        ("refersplat.data.scene", "from refersplat.cameras import Camera\nimport runs.errors"),
        ("refersplat.model.referring", "from ..ops import knn"),
        ("refersplat.model.groups", "if TYPE_CHECKING:\n    from refersplat.data import View"),
    ],
)
def test_what_follows_the_rule_is_let_through(module, source):
    assert not any(forbidden(module, imported) for imported in imports(source, module))


def test_native_code_knows_no_python():
    sources = [
        path
        for folder in [*(ROOT / model for model in MODELS), ROOT / "submodules"]
        for path in folder.rglob("csrc/*")
        if not path.name.endswith("bindings.cpp")
    ]
    assert sources
    for path in sources:
        assert not re.search(
            r"#include\s*[<\"](pybind11|Python\.h|torch|ATen|c10)", path.read_text(encoding="utf-8")
        ), path
