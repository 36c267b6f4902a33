"""The shipped configs mean what they should; options are named rightly where code names them."""

from pathlib import Path

import pytest

from refer3d.runs.config import load_yaml
from refer3d.runs.errors import InputError
from refer3d.runs.options import options
from refersplat.command import read_options
from refersplat.config import Config
from refersplat.data.ref_lerf import REF_LERF
from refersplat.export.options import read_options as read_export
from tests.errors import raises

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", REF_LERF.test_frames)
def test_scene_configs_have_the_papers_test_views(name):
    config = load_yaml(ROOT / f"configs/refersplat/{name}.yaml", Config)
    assert [int(view) for view in config.data.test_views] == list(REF_LERF.test_frames[name])
    assert config.data.eval


@pytest.mark.parametrize(
    ("argv", "shown", "hidden"),
    [
        (["train"], "--rgb.densify_until", "--explain"),
        (["train"], "--match.reject", "--questions"),
        (["render"], "--explain", "--rgb.densify_until"),
        (["render"], "--threshold", "--resume"),
        (["eval"], "--questions", "--seed"),
        (["eval", "--table"], "--seed", "--explain"),
    ],
)
def test_help_lists_what_has_an_effect_in_the_program(argv, shown, hidden, capsys):
    with pytest.raises(SystemExit):
        read_options([*argv[1:], "--help"], argv[0])
    text = capsys.readouterr().out
    assert shown in text
    assert hidden not in text


@pytest.mark.parametrize(
    "argv", [["--sentence"], ["--sentence", "--explain"], ["--views", "-m", "a"]]
)
def test_a_list_without_a_value_is_not_taken_for_none(argv):
    with raises(InputError, argv[0], "expected a value"):
        read_options(argv, "render")
    with raises(InputError, argv[0], "expected a value"):
        read_export(argv)


def test_no_two_options_share_a_name():
    listed = [name for option in options(Config) for name in (f"--{option.name}", *option.aliases)]
    assert len(listed) == len(set(listed))
