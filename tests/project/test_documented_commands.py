"""Commands and code of the documentation run."""

import importlib
import importlib.util
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import torch

from detailbase import Referrer
from refer3d.runs.config import choose_model, parse
from refersplat.ops import knn
from train import MODEL_OF, MODELS

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
PROGRAMS = ("train.py", "render.py", "eval.py")


def commands(page):
    """Yields the words of each command in a page's blocks of shell."""
    for block in re.findall(r"```(?:bash|sh|console)\n(.*?)```", page, flags=re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            for command in line.removeprefix("$ ").split("&&"):
                words = shlex.split(command, comments=True)
                while words and re.fullmatch(r"[A-Z_0-9]+=.*", words[0]):
                    words = words[1:]  # a variable of the environment
                if words:
                    yield words


DOCUMENTED = [
    pytest.param(words, id=f"{page.name}: {' '.join(words)}")
    for page in PAGES
    for words in commands(page.read_text(encoding="utf-8"))
]


def test_the_readme_has_the_two_commands():
    documented = list(commands((ROOT / "README.md").read_text(encoding="utf-8")))
    assert ["bash", "scripts/demo.sh"] in documented
    assert ["bash", "scripts/check.sh"] in documented


@pytest.mark.parametrize("words", DOCUMENTED)
def test_exists_and_is_understood(words):
    program, *rest = words
    if program == "bash":
        subprocess.run(["bash", "-n", ROOT / rest[0]], check=True)
    elif program == "python" and rest[0] == "-m":
        assert importlib.util.find_spec(rest[1]), f"no module {rest[1]}"
        for name in rest[2:]:
            assert not name.startswith("tests/") or (ROOT / name).exists(), f"no file {name}"
    elif program == "python":
        assert (ROOT / rest[0]).is_file(), f"no file {rest[0]}"
        if rest[0] in PROGRAMS:
            understand(rest[1:])
    elif program in MODELS:
        assert rest[0] in importlib.import_module(f"{program}.__main__").PROGRAMS


def understand(argv):
    """Parses the options of one of the three programs; a wrong one ends the program."""
    model = choose_model(argv, MODELS, MODEL_OF)
    schema = importlib.import_module(f"{model}.config").Config
    config = parse(schema, argv, program="", description="")
    assert model == "detailbase" or config.model_path or config.data.scene or config.score.table


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_in_the_text_exist(page):
    folders = "refersplat|detailbase|submodules|tests|benchmarks|scripts|docs|configs|data/demo"
    paths = re.findall(rf"`((?:{folders})/[\w./-]+)`", page.read_text(encoding="utf-8"))
    assert not [path for path in paths if not (ROOT / path).exists()]


def test_a_wrong_option_is_seen(capsys):
    with pytest.raises(SystemExit):
        understand(["-m", "output/demo", "--no_such_option"])


def test_the_page_of_ops_runs():
    page = (ROOT / "docs" / "ops.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) == 4
    names: dict = {}
    for block in blocks:
        exec(compile(block, "docs/ops.md", "exec"), names)
    assert names["colors"].shape == (*names["point_features"].shape[:1], 3)
    assert names["images"].shape == (2, 240, 320, 4)
    assert names["scores"].shape == (16, 240, 320)
    assert names["restored"].requires_grad


def scan_code(name):
    """The lines of a page that ask detailbase, and the command that asks the same."""
    page = (ROOT / name).read_text(encoding="utf-8")
    code = r"^(referrer = Referrer\.load\(\)).*\n(scan = .*)\n(for marked in .*:\n    print\(.*\))$"
    lines = re.search(code, page, flags=re.MULTILINE).groups()
    (scan,), (sentence,) = (re.findall(r'"(.*)"', line) for line in lines[1:])
    assert ["detailbase", "predict", scan, sentence, "-o", "out/"] in [*commands(page)]
    return lines, scan, sentence


def test_the_sentence_about_a_scan_finds_all_that_it_names():
    lines, scan, sentence = scan_code("README.md")
    assert scan_code("docs/detailbase.md")[1:] == (scan, sentence)
    printed, names = [], {"Referrer": Referrer, "print": lambda *values: printed.append(values)}
    exec("\n".join(lines).replace(scan, str(ROOT / scan)), names)
    assert [phrase for phrase, *_ in printed] == ["gray armchair", "white wardrobe"]
    assert all(score > 0.5 and len(points) for _, score, points in printed)


def test_the_op_on_another_device_is_registered():
    page = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
    block = re.search(r"## An op on another device.*?```python\n(.*?)```", page, flags=re.DOTALL)
    assert block
    assert not torch._C._dispatch_has_kernel_for_dispatch_key("refersplat::knn", "MPS")
    names: dict = {}
    exec(compile(block[1], "docs/extending.md", "exec"), names)
    assert torch._C._dispatch_has_kernel_for_dispatch_key("refersplat::knn", "MPS")
    points = torch.rand(20, 3, generator=torch.Generator().manual_seed(0))
    for result, expected in zip(
        names["knn_mps"](points, points, 3), knn(points, points, 3), strict=True
    ):
        torch.testing.assert_close(result, expected, atol=1e-6, rtol=1e-5)
    names.clear()  # the library takes its kernel back
