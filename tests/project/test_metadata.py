"""Files that repeat facts of pyproject.toml agree with it."""

import re
import sys
from pathlib import Path

import pytest
import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FORGE = sorted((ROOT / ".github").rglob("*.yml"))


def read_yaml(path):
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def test_versions_agree():
    version = PROJECT["project"]["version"]
    compat = tomllib.loads((ROOT / "submodules/compat/pyproject.toml").read_text(encoding="utf-8"))
    assert compat["project"]["version"] == version
    assert compat["project"]["dependencies"] == [f"refer3d=={version}"]
    assert str(read_yaml("CITATION.cff")["version"]) == version


def test_workflow_tests_the_oldest_and_the_newest_versions():
    (torch,) = (name for name in PROJECT["project"]["dependencies"] if name.startswith("torch>"))
    oldest, above_newest = re.findall(r"2\.(\d+)", torch)
    python = PROJECT["project"]["requires-python"].removeprefix(">=")
    matrix = read_yaml(".github/workflows/tests.yml")["jobs"]["tests"]["strategy"]["matrix"]
    old, new = matrix["versions"]
    assert (old["python"], old["torch"]) == (python, f"2.{oldest}.0")
    assert new["torch"] == f"2.{int(above_newest) - 1}.0"


@pytest.mark.parametrize("path", [*FORGE, ROOT / ".pre-commit-config.yaml"], ids=lambda p: p.name)
def test_yaml_has_the_keys_of_its_kind(path):
    content = read_yaml(path)
    kinds = {
        "workflows": {"name", True, "jobs"},  # YAML reads `on` as True
        "ISSUE_TEMPLATE": {"name", "description", "body"},
    }
    expected = kinds.get(path.parent.name, {"repos"}) if path.name != "config.yml" else set()
    assert expected <= set(content)


def test_licence_of_compat_is_ours():
    assert (ROOT / "LICENSE").read_text() == (ROOT / "submodules/compat/LICENSE").read_text()
