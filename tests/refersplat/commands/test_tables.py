"""Tables of papers: every scene of a dataset in one command, stopped and resumed."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from refer3d.runs.errors import InputError
from refersplat.__main__ import TARGETS, main
from refersplat.command import read_options
from refersplat.config import TABLE_KEYS
from refersplat.tables import SCENES, TABLES, make_table, table_lines
from tests import processes
from tests.errors import raises
from tests.refersplat.commands.conftest import BALLS, HEIGHT, WIDTH, write_balls

OPTIONS = ["--iterations", "4", "--train.iterations", "4", "--text.encoder", "hash",
           "--data.test_views", "1", "9", "--match.refine_steps", "1"]  # fmt: skip


def run_table(key: str, data: Path, out: Path, *options: str) -> dict:
    return make_table(
        read_options(["--table", key, str(data), str(out), *OPTIONS, *options], "eval")
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two of the four scenes, with LERF-OVS's labels of one."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("ramen", "teatime"):
        write_balls(folder / name)
    labels = folder / "label" / "ramen"
    labels.mkdir(parents=True)
    for view in ("frame_00001", "frame_00009"):
        objects = []
        for category in BALLS:
            mask = np.asarray(Image.open(folder / f"ramen/gt_mask/{category}_{view}.png"))
            outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            objects += [{"category": f"the {category}", "segmentation": outline[:, 0].tolist()}
                        for outline in outlines if len(outline) > 2]  # fmt: skip
        content = {"info": {"width": WIDTH, "height": HEIGHT}, "objects": objects}
        (labels / f"{view}.json").write_text(json.dumps(content))
    return folder


@pytest.mark.slow
def test_a_killed_table_goes_on_and_names_what_is_missing(data, tmp_path):
    child = processes.start_caller(run_table, "ref_lerf", data, tmp_path)
    while child.is_alive() and not (tmp_path / "teatime" / "config.yaml").exists():
        time.sleep(0.002)
    child.kill()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert not (tmp_path / "table_ref_lerf.json").exists()
    trained = (tmp_path / "ramen" / "referring.pt").stat().st_mtime_ns

    table = run_table("ref_lerf", data, tmp_path)
    assert (tmp_path / "ramen" / "referring.pt").stat().st_mtime_ns == trained
    assert json.loads((tmp_path / "table_ref_lerf.json").read_text())["mean"] == table["mean"]
    assert list(table["scenes"]) == table["mean_over"] == ["ramen", "teatime"]
    for name, row in table["scenes"].items():
        results = json.loads((tmp_path / name / "results.json").read_text())
        assert results["metrics"] == row["metrics"]
        assert results["config"]["score"]["table"] == []
        stages = results["stages"].items()
        assert row["seconds"] == {stage: values["seconds"] for stage, values in stages}
        assert "peak_mib" not in str(row)  # it would be that of all scenes before
        assert row["test_views"] == ["frame_00001", "frame_00009"]
        assert not row["has_published_views"]
    ious = [row["metrics"]["mIoU"] for row in table["scenes"].values()]
    assert table["mean"]["mIoU"] == pytest.approx(sum(ious) / 2)
    text = "\n".join(table_lines(table))
    assert f"{data / 'figurines'}: no such folder" in text
    assert "mean of 2: ramen, teatime" in text
    assert "ramen: scored on other views than the papers (--data.test_views)" in text

    views = ["--data.test_views", "1", "2"]
    with raises(InputError, "--data.test_views", tmp_path / "ramen", "name another folder"):
        run_table("ref_lerf", data, tmp_path, *views)
    for name in ("ramen", "teatime"):  # as if both lists had stood in the scenes' files
        config = tmp_path / name / "config.yaml"
        config.write_text(config.read_text().replace("- '9'", "- '2'"))
    with raises(InputError, tmp_path / "ramen", "frame_00002", "another folder"):
        run_table("ref_lerf", data, tmp_path, *views)
    for name in ("ramen", "teatime"):
        config = tmp_path / name / "config.yaml"
        config.write_text(config.read_text().replace("- '2'", "- '9'"))
    with raises(InputError, "--rgb.sh_degree", tmp_path / "ramen", "name another folder"):
        run_table("ref_lerf", data, tmp_path, "--rgb.sh_degree", "1")
    with raises(InputError, "--table", "lerf_ovs", "ref_lerf", "name another folder"):
        run_table("lerf_ovs", data, tmp_path)


def test_lerf_ovs_is_scored_in_2d_and_3d(data, tmp_path, capsys):
    with raises(InputError, "teatime", "label", "copy"):  # before any scene is trained
        run_table("lerf_ovs", data, tmp_path)
    assert not list(tmp_path.iterdir())
    only = tmp_path / "data"
    only.mkdir()
    (only / "ramen").symlink_to(data / "ramen")
    (only / "label").symlink_to(data / "label")
    main(["eval", "--table", "lerf_ovs", str(only), str(tmp_path / "out"), *OPTIONS])
    table = json.loads((tmp_path / "out" / "table_lerf_ovs.json").read_text())
    scores = table["scenes"]["ramen"]["metrics"]
    assert 0 <= scores["loc_acc"] <= 1
    assert scores["3d_acc@0.5"] <= scores["3d_acc@0.25"]
    results = json.loads((tmp_path / "out" / "ramen" / "results.json").read_text())
    assert {query["sentence"] for query in results["queries"]} == {f"the {b}" for b in BALLS}
    assert np.mean([q["iou_3d"] for q in results["queries"]]) == pytest.approx(scores["3d_mIoU"])
    text = capsys.readouterr().out
    assert "refersplat, threshold of held-out views" in text
    assert "threshold 0.5, fixed" in text
    assert "opacity above 10/255, fixed" in text
    assert table["scenes"]["ramen"]["threshold_chosen_by"] in text
    given = run_table("lerf_ovs", only, tmp_path / "out", "--threshold", "0.3")
    text = "\n".join(table_lines(given))
    assert "refersplat, threshold 0.30, given" in text
    assert "held-out" not in text


def whole_table(scores: dict[str, float]) -> dict:
    """A table of all four scenes, or of those in ``scores``, with one score each."""
    row = {"threshold": 0.4, "threshold_chosen_by": "hand", "has_published_views": True}
    published = [{"method": "A", "source": "B", "ramen": 10.0, "figurines": 20.0,
                  "teatime": 30.0, "waldo_kitchen": 60.0, "mean": 30.0},
                 {"method": "C", "source": "D", "mean": 40.0}]  # fmt: skip
    names = dict.fromkeys(("mIoU", "lerf_mIoU"))
    return {
        "table": "ref_lerf",
        "scenes": {
            scene: row | {"metrics": dict.fromkeys(names, score)} for scene, score in scores.items()
        },
        "missing": {scene: f"{scene}: absent" for scene in SCENES if scene not in scores},
        "mean": dict.fromkeys(names, sum(scores.values()) / len(scores)),
        "published": {TABLES["ref_lerf"][0].title: published},
    }


def test_means_are_of_all_scenes_or_say_of_which():
    def cells(line):
        return line.split("  published")[0].split("  these runs")[0].split()[1:]

    _, _, a, c, ours, _, _, *notes = table_lines(
        whole_table(dict(zip(SCENES, (0.1, 0.2, 0.3, 0.5), strict=True)))
    )
    assert cells(a) == ["10.0", "20.0", "30.0", "60.0", "30.0"]
    assert cells(c) == ["–", "–", "–", "–", "40.0"]
    assert cells(ours)[-5:] == ["10.0", "20.0", "30.0", "50.0", "27.5"]
    assert "three" in notes[0]  # of C's mean
    assert len(notes) == 1 + 4

    _, head, a, c, ours, _, _, *notes = table_lines(whole_table({"ramen": 0.5, "teatime": 0.6}))
    assert "mean of 4  mean of 2" in head
    assert cells(a) == ["10.0", "20.0", "30.0", "60.0", "30.0", "20.0"]
    assert cells(c) == ["–", "–", "–", "–", "40.0", "–"]
    assert cells(ours)[-6:] == ["50.0", "–", "60.0", "–", "–", "55.0"]
    assert notes[0] == "mean of 2: ramen, teatime"
    assert "figurines: absent" in notes[1]


@pytest.mark.parametrize("key", TABLE_KEYS)
def test_published_means_are_means_of_the_scenes(key):
    assert TABLES.keys() == set(TABLE_KEYS)
    for row in (row for block in TABLES[key] for row in block.published):
        *scenes, mean = row.scores
        assert len(scenes) == len(SCENES)
        if None not in row.scores:
            # The scenes and their mean are rounded to 0.1.
            assert mean == pytest.approx(sum(scenes) / len(scenes), abs=0.1), row


@pytest.mark.parametrize(
    ("argv", "names"),
    [
        (["ref_lerf", "DATA"], ("score.table", "ref_lerf or lerf_ovs")),
        (["lerf", "DATA", "OUT"], ("score.table", "ref_lerf or lerf_ovs", "lerf DATA OUT")),
        (["ref_lerf", "DATA", "OUT", "-s", "scene"], ("-s", "--table", "scene")),
        (["ref_lerf", "DATA", "OUT", "--start_checkpoint", "a"], ("--start_checkpoint", "--table")),
    ],
)
def test_wrong_tables_are_refused(argv, names):
    with raises(InputError, *names):
        read_options(["--table", *argv], "eval")


def test_a_folder_without_scenes_is_refused(tmp_path):
    with raises(InputError, "--table", tmp_path, "waldo_kitchen", "name"):
        run_table("ref_lerf", tmp_path, tmp_path / "out")
    assert TARGETS["eval"][0] == "refersplat.tables:report"
