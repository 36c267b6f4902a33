"""Jobs in folders: done once, whoever begins, stops, kills or repeats them."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from refer3d.runs.errors import InputError
from refer3d.runs.jobs import LOG, Job, do_all, do_many, summarize, table_lines
from refer3d.runs.many import Many, Variant, read_many
from tests import processes
from tests.errors import raises

RESULT = "results.json"


def work(config):
    """Notes that it has begun, does as told, and writes a result."""
    folder, order = config
    with (folder / "begun").open("a") as file:
        file.write("x")
    if order == "wait":
        while not (folder.parent / "go").exists():
            time.sleep(0.01)
    if order == "die" and times_begun(folder) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if order == "fail":
        raise InputError("--rate: too large")
    (folder / RESULT).write_text(json.dumps({"metrics": {"mIoU": 0.5}}))


def times_begun(folder):
    path = folder / "begun"
    return len(path.read_text()) if path.exists() else 0


def jobs_of(out, **orders):
    """Jobs by the names of their folders; a function, since processes get a copy of it."""
    return [
        Job(out / name, (out / name, order), work, out / name / RESULT)
        for name, order in orders.items()
    ]


def do_jobs(out, orders):
    do_all(jobs_of(out, **orders), workers=2)


def until(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow  # starts a caller with a server of its own
def test_a_killed_call_is_repeated_for_what_is_missing(tmp_path):
    orders = {"a": "", "b": "", "c": "wait", "d": "wait", "e": "", "f": ""}
    call = processes.start_caller(do_jobs, tmp_path, orders)
    until(lambda: times_begun(tmp_path / "c") and times_begun(tmp_path / "d"))
    call.kill()
    call.join()
    assert not do_all(jobs_of(tmp_path, a="", b=""))
    (tmp_path / "go").touch()
    assert not do_all(jobs_of(tmp_path, **orders), workers=2)
    assert [times_begun(tmp_path / name) for name in orders] == [1, 1, 2, 2, 1, 1]


@pytest.mark.slow  # starts a caller with a server of its own
def test_two_calls_do_each_job_once(tmp_path):
    orders = {"a": "wait", "b": "wait", "c": ""}
    calls = [processes.start_caller(do_jobs, tmp_path, orders) for _ in range(2)]
    until(lambda: times_begun(tmp_path / "a") and times_begun(tmp_path / "b"))
    (tmp_path / "go").touch()
    for call in calls:
        call.join(120)
        assert call.exitcode == 0
    assert [times_begun(tmp_path / name) for name in orders] == [1, 1, 1]


def test_a_killed_job_goes_on_and_a_broken_one_stops_no_other(tmp_path):
    errors = do_all(jobs_of(tmp_path, killed="die", broken="fail", good=""))
    assert errors == {"broken": "--rate: too large"}
    assert [times_begun(tmp_path / name) for name in ("killed", "broken", "good")] == [2, 1, 1]
    assert "error: --rate: too large" in (tmp_path / "broken" / LOG).read_text()
    assert "Traceback" not in (tmp_path / "broken" / LOG).read_text()


@pytest.mark.parametrize(("engine", "extra"), [("ray", "ray"), ("slurm", "slurm")])
def test_an_engine_that_is_not_installed_is_an_error(tmp_path, monkeypatch, engine, extra):
    for name in ("ray", "submitit"):
        monkeypatch.setitem(sys.modules, name, None)
    with raises(InputError, f"--engine {engine}", f"pip install 'refer3d[{extra}]'"):
        do_all(jobs_of(tmp_path, a=""), engine)


def test_a_cluster_that_does_not_answer_is_an_error(tmp_path, monkeypatch):
    def init(**_):
        raise ConnectionError("no node\nat this address")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init))
    with raises(InputError, "--engine ray", "(no node)", "RAY_ADDRESS"):
        do_all(jobs_of(tmp_path, a=""), "ray")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ray", "slurm"])
def test_other_engines_do_the_same(tmp_path, engine, monkeypatch):
    pytest.importorskip({"ray": "ray", "slurm": "submitit"}[engine])
    if engine == "slurm":  # submitit runs the same jobs on this machine
        submitit = sys.modules["submitit"]
        monkeypatch.setattr(submitit, "AutoExecutor", submitit.LocalExecutor)
    errors = do_all(jobs_of(tmp_path, a="", b="fail", c=""), engine, workers=2)
    assert errors == {"b": "--rate: too large"}
    assert not do_all(jobs_of(tmp_path, a="", c=""), engine, workers=2)
    assert [times_begun(tmp_path / name) for name in ("a", "b", "c")] == [1, 1, 1]
    if engine == "ray":  # Ray begins a lost job again
        assert not do_all(jobs_of(tmp_path, d="die"), engine)
        assert times_begun(tmp_path / "d") == 2


def test_means_and_deviations_are_over_seeds():
    def run(scene, rate, seed, miou, **more):
        return Variant(scene, (("rate", rate),), seed), {"mIoU": miou, **more}

    runs = [run("x/a", "1", 0, 0.4, psnr=30.0), run("x/a", "1", 1, 0.6, psnr=None)]
    runs += [run("x/a", "2", 0, 0.5), run("b", "1", 0, 0.7)]
    first, second, third = summarize(runs)
    assert (first["name"], first["settings"], first["seeds"]) == ("a", {"rate": "1"}, 2)
    assert first["mean"] == {"mIoU": pytest.approx(0.5)}
    assert first["deviation"] == {"mIoU": pytest.approx(0.02**0.5)}
    assert second["deviation"] == {"mIoU": None}
    assert third["name"] == "b"
    head, *rows = table_lines([first, second, third], ("mIoU", "psnr"))
    assert head.split() == ["name", "rate", "seeds", "mIoU"]
    assert rows[0].split() == ["a", "1", "2", "0.5", "±", "0.1414"]
    assert rows[2].split() == ["b", "1", "1", "0.7"]


def read(*argv):
    return read_many(argv, "x many", "Do.", "SCENE", lambda variant, folder, words: words)


def test_every_scene_has_every_setting_and_seed():
    settings = ["--set", "train.lr=1,2", "--set", "match.groups=true,false", "--seeds", "0,7"]
    many = read("data/a", "b.yaml", "--out", "out", *settings, "--iterations", "3")
    assert len(many.configs) == 2 * 2 * 2 * 2
    last, words = list(many.configs.items())[-1]
    assert last.name == "b_train.lr=2_match.groups=false_seed=7"
    assert words == [
        *("--iterations", "3", "--seed", "7", "--train.lr", "2", "--match.no_groups"),
    ]
    (alone,) = read("data/a", "--out", "out").configs
    assert (alone.name, alone.words) == ("a", [])


@pytest.mark.parametrize(
    ("argv", "names"),
    [
        (["--set", "rate"], ("--set", "NAME=VALUE", "rate")),
        (["--seeds", "0,x"], ("--seeds", "0,1,2", "0,x")),
        (["--workers", "0"], ("--workers", "at least 1", "0")),
        (["--slurm", "gpu"], ("--slurm", "NAME=VALUE", "gpu")),
        (["--seeds", "1,1"], ("a_seed=1", "one run", "rename")),
    ],
)
def test_wrong_options_are_refused(argv, names):
    with raises(InputError, *names):
        read("data/a", "--out", "out", *argv)


def test_the_table_names_what_failed(tmp_path, capsys):
    variants = [Variant(name, (), None) for name in ("a", "b")]
    many = Many(tmp_path, "local", 1, {}, dict.fromkeys(variants))
    jobs = dict(zip(variants, jobs_of(tmp_path, a="", b="fail"), strict=True))
    with raises(InputError, "1 of 2 runs", "b", "--rate: too large", LOG, "goes on"):
        do_many(many, jobs, ("mIoU",))
    table = json.loads(Path(tmp_path, "many.json").read_text())
    assert table["runs"] == [
        {"source": "a", "settings": {}, "seed": None, "folder": "a", "metrics": {"mIoU": 0.5}}
    ]
    assert table["errors"] == {"b": "--rate: too large"}
    assert capsys.readouterr().out.split() == ["name", "seeds", "mIoU", "a", "1", "0.5"]
