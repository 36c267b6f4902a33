"""Every shipped config loads, and sets only options that differ from the defaults."""

import importlib
from pathlib import Path

import pytest
import yaml

from refer3d.runs.config import MODEL_KEY, load_yaml
from refer3d.runs.options import differences, options

CONFIGS = Path(__file__).parents[2] / "configs"
SHIPPED = sorted(CONFIGS.rglob("*.yaml"))


def leaves(values, prefix=""):
    """Names of all options that a YAML file sets."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        elif name != MODEL_KEY:
            yield f"{prefix}{name}"


def schema_of(model):
    return importlib.import_module(f"{model}.config").Config


def test_the_demo_has_a_config():
    assert CONFIGS / "refersplat" / "demo.yaml" in SHIPPED


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_loads_and_says_only_what_differs(path):
    schema = schema_of(path.parent.name)
    config = load_yaml(path, schema)
    said = leaves(yaml.safe_load(path.read_text(encoding="utf-8")))
    assert set(said) == set(differences(config, schema()))


@pytest.mark.parametrize("model", sorted({path.parent.name for path in SHIPPED}))
def test_every_option_says_what_it_means(model):
    assert not [option.name for option in options(schema_of(model)) if not option.meaning]


@pytest.mark.parametrize("model", sorted({path.parent.name for path in SHIPPED}))
def test_every_number_has_bounds(model):
    numbers = (
        option
        for option in options(schema_of(model))
        if any(type(value) in (int, float) for value in (option.default, *_items(option.default)))
    )
    assert not [option.name for option in numbers if option.bounds is None]


@pytest.mark.parametrize("model", sorted({path.parent.name for path in SHIPPED}))
def test_old_names_lead_to_options(model):
    schema = schema_of(model)
    names = {option.name for option in options(schema)}
    for old, new in schema.RENAMED.items():
        assert old not in names
        assert new.split()[0] in names


def _items(value):
    return value if isinstance(value, tuple) else ()
