"""Options, files and results of runs."""

from __future__ import annotations

import importlib
import json
import math
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Annotated, ClassVar, Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tyro.conf import arg

from refer3d.runs.config import choose_model, from_mapping, load_yaml, parse, save_yaml
from refer3d.runs.device import to_device
from refer3d.runs.errors import InputError
from refer3d.runs.files import HOUR, atomic_write, sweep_drafts
from refer3d.runs.folder import RunFolder, refuse_file
from refer3d.runs.options import Bounds, Changeable, differences, options, override, to_mapping
from refer3d.runs.programs import Program, run_program
from refer3d.runs.progress import Progress
from refer3d.runs.results import Stopwatch, git_commit, load_results, peak_memory_mib, provenance
from refer3d.runs.results import save_results as save
from refer3d.runs.states import save_state
from tests import processes
from tests.errors import raises


@dataclass(frozen=True)
class Optimiser:
    """How."""

    head_lr: float = 1e-4
    """Learning rate of
    the head."""
    steps: Annotated[int, arg(aliases=("--steps",)), Changeable("train")] = 10
    kind: Literal["adam", "sgd"] = "adam"
    rates: Annotated[tuple[float, ...], Bounds(1, 10, also=100)] = ()
    without: tuple[Literal["momentum", "decay"], ...] = ()

    def check(self):
        if self.steps == 1000:
            raise ValueError("steps: expected fewer, got 1000; lower it")


@dataclass(frozen=True)
class Schema:
    """What."""

    RENAMED: ClassVar[dict] = {
        "train.head_rate": "train.head_lr",
        "train.momentum": "train.without momentum",
        "train.decay": "train.without decay",
    }

    model_path: Annotated[str, arg(aliases=("-m",))] = ""
    resume: Annotated[bool, Changeable("train", "eval")] = False
    names: tuple[str, ...] = ()
    limit: float | None = None
    train: Optimiser = field(default_factory=Optimiser)


def read(path, text):
    path.write_text(text, encoding="utf-8")
    return load_yaml(path, Schema)


def test_file_changes_the_defaults(tmp_path):
    config = read(
        tmp_path / "a.yaml",
        "names: [6, frame_7]\nlimit: 2\ntrain:\n  head_lr: 1e-3\n  kind: sgd\n",
    )
    assert config == Schema(
        names=("6", "frame_7"), limit=2.0, train=Optimiser(head_lr=1e-3, kind="sgd")
    )


@pytest.mark.parametrize("text", ["", "# nothing\n", "model: tests\n", "train:\n"])
def test_an_empty_file_changes_nothing(tmp_path, text):
    assert read(tmp_path / "a.yaml", text) == Schema()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train:\n  head_rl: 1\n", "a.yaml: train: unknown key 'head_rl'; did you mean 'head_lr'?"),
        (
            "head_lr: 1\n",
            "a.yaml: unknown key 'head_lr'; did you mean 'head_lr' of section 'train'?",
        ),
        ("train:\n  name: x\n", "a.yaml: train: unknown key 'name'; see 'names'"),
        ("qqq: 1\n", "a.yaml: unknown key 'qqq'; known keys: model_path, resume, names"),
        ("train: 3\n", "a.yaml: train: expected 'key: value' below it, got 3"),
        ("train:\n  steps: many\n", "train: steps: expected a whole number, got 'many'"),
        ("train:\n  steps: 1.5\n", "train: steps: expected a whole number, got 1.5"),
        ("train:\n  steps: true\n", "train: steps: expected a whole number, got True"),
        ("train:\n  head_lr: .nan\n", "train: head_lr: expected a number, got nan"),
        ("train:\n  head_lr: [1]\n", "train: head_lr: expected a number, got [1]"),
        ("train:\n  kind: adan\n", "train: kind: expected one of adam, sgd, got 'adan'"),
        ("resume: 1\n", "resume: expected true or false, got 1"),
        ("names: one\n", "names: expected a list, each text, got 'one'"),
        ("names: [[1]]\n", "names: expected text, got [1]"),
        ("model_path:\n", "model_path: expected text, got None"),
        ("- 1\n", "a.yaml: expected 'section:' and below it 'key: value', got [1]"),
        ("train: {", "a.yaml: is not YAML ("),
        ("limit: 1\nlimit: 2\n", "the key 'limit' stands twice"),
        ("[" * 10_000, "a.yaml: is not YAML ("),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, text, message):
    with pytest.raises(InputError) as caught:
        read(tmp_path / "a.yaml", text)
    assert message in str(caught.value)
    assert str(tmp_path / "a.yaml") in str(caught.value)


def test_an_absent_file_proposes_the_nearest(tmp_path):
    (tmp_path / "ramen.yaml").touch()
    with pytest.raises(InputError, match=r"no such config file; did you mean .*ramen\.yaml\?"):
        load_yaml(tmp_path / "rammen.yaml", Schema)
    with pytest.raises(InputError, match=r"no such config file; correct the path"):
        load_yaml(tmp_path / "elsewhere" / "x.yaml", Schema)


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"names: [\xff]\n")
    with pytest.raises(InputError, match="is not UTF-8 text"):
        load_yaml(tmp_path / "a.yaml", Schema)


@given(
    st.builds(
        Schema,
        model_path=st.text(),
        resume=st.booleans(),
        names=st.lists(st.text()).map(tuple),
        limit=st.none() | st.floats(allow_nan=False, allow_infinity=False),
        train=st.builds(
            Optimiser,
            head_lr=st.floats(allow_nan=False, allow_infinity=False),
            steps=st.integers(),
            kind=st.sampled_from(["adam", "sgd"]),
        ),
    )
)
def test_what_is_written_is_read(tmp_path_factory, config):
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    save_yaml(config, path)
    assert load_yaml(path, Schema) == config


def test_the_command_line_wins_over_the_file_and_the_file_over_the_defaults(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("train:\n  head_lr: 2\n  steps: 5\n")
    argv = ["-m", "out", "--config", str(path), "--steps", "7", "--names", "a", "b", "--resume"]
    config = parse(Schema, argv, program="train.py", description="")
    assert config == Schema("out", True, ("a", "b"), train=Optimiser(head_lr=2.0, steps=7))


def test_programs_start_from_a_base_unless_a_file_is_named(tmp_path):
    base = Schema(names=("a",))
    how = {"program": "eval.py", "description": "", "base": base}
    config = parse(Schema, ["--steps", "7"], **how)
    assert (config.names, config.train.steps) == (("a",), 7)
    (tmp_path / "a.yaml").touch()
    assert parse(Schema, ["--config", str(tmp_path / "a.yaml")], **how) == Schema()


@pytest.mark.parametrize("number", ["0", "11", "-1", "nan", "inf"])
def test_numbers_out_of_bounds_are_refused(tmp_path, number):
    (tmp_path / "a.yaml").write_text(f"train:\n  rates: [{number}]\n".replace("nan", ".nan"))
    with pytest.raises(InputError, match=r"a\.yaml: train.*rates.*got"):
        load_yaml(tmp_path / "a.yaml", Schema)
    with pytest.raises(InputError, match=r"--train\.rates: expected 1 to 10, or 100, got"):
        parse(Schema, ["--train.rates", "2", number], program="", description="")
    assert parse(Schema, ["--train.rates", "100"], program="", description="").train.rates == (100,)


def test_rules_between_fields_name_the_option(tmp_path):
    with pytest.raises(InputError, match=r"--train\.steps: expected fewer"):
        parse(Schema, ["--steps", "1000"], program="", description="")
    (tmp_path / "a.yaml").write_text("train: {steps: 1000}\n")
    with pytest.raises(InputError, match=r"a\.yaml: train\.steps: expected fewer"):
        load_yaml(tmp_path / "a.yaml", Schema)


def test_old_names_of_options_are_read_with_one_warning(tmp_path, caplog):
    path = tmp_path / "a.yaml"
    path.write_text("train: {head_rate: 2, momentum: false, decay: true}\n")
    expected = Schema(train=Optimiser(head_lr=2.0, without=("momentum",)))
    assert load_yaml(path, Schema) == expected
    argv = ["--train.head-rate", "2", "--train.no-momentum", "--train.decay"]
    assert parse(Schema, argv, program="", description="") == expected
    assert ["train.head_rate (now train.head_lr)" in text for text in caplog.messages] == [True] * 2
    argv = ["--train.head_lr", "2", "--train.without", "momentum"]
    assert parse(Schema, argv, program="", description="") == expected
    assert len(caplog.messages) == 2
    with pytest.raises(SystemExit):
        parse(Schema, ["--train.head_rate", "["], program="", description="")
    argv = ["--config", str(path), "--train.momentum", "--train.no_decay"]
    assert parse(Schema, argv, program="", description="").train.without == ("decay",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("momentum: 'false'", "train.momentum: expected true or false, got 'false'"),
        ("{momentum: false, without: 5}", "train: without: expected a list.*got 5"),
        ("{momentum: false, without: null}", "train: without: expected a list.*got None"),
        ("{head_rate: 2, head_lr: 3}", "train.head_rate is the old name of train.head_lr; delete"),
    ],
)
def test_wrong_old_names_are_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=rf"a\.yaml: {message}"):
        read(tmp_path / "a.yaml", f"train:\n  {text}\n")


def test_an_old_switch_leaves_other_words_as_they_are(tmp_path):
    text = "train: {without: [momentum, decay], momentum: false}"
    assert read(tmp_path / "a.yaml", text).train.without == ("momentum", "decay")
    with pytest.raises(SystemExit):  # a switch takes no value
        parse(Schema, ["--train.momentum=False"], program="", description="")
    argv = ["--train.without", "momentum", "--train.no_decay"]
    with pytest.raises(InputError, match=r"--train\.decay: .* --train\.without, got both; add"):
        parse(Schema, argv, program="", description="")


def test_old_names_of_a_saved_config_are_read_silently(caplog):
    config = from_mapping(Schema, {"train": {"decay": False}}, "best.pth")
    assert config.train.without == ("decay",)
    assert from_mapping(Schema, {"train": {"decay": True}}, "best.pth") == Schema()
    assert not caplog.messages


def test_a_folder_belongs_to_one_run(tmp_path):
    run = RunFolder(tmp_path / "run", Schema)
    assert not run.exists()
    with pytest.raises(InputError, match=r"config\.yaml: no such file, so .* is no folder"):
        run.config()
    run.refuse_second_run("-m")
    config = Schema(limit=2.0)
    run.claim(config)
    assert run.config() == config
    with pytest.raises(InputError, match=r"-m: .*run already holds a run"):
        run.refuse_second_run("-m")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="-m: expected a folder, got the file"):
        refuse_file("-m", tmp_path / "file")
    refuse_file("-m", tmp_path)


def test_a_run_of_another_model_is_refused(tmp_path):
    run = RunFolder(tmp_path, Schema)
    run.claim(Schema())
    run.config_file.write_text(run.config_file.read_text().replace("model: tests", "model: other"))
    with pytest.raises(InputError, match=r"config\.yaml: .*tests, got one of other; use other"):
        run.config()


def test_options_change_in_the_programs_that_they_name(tmp_path):
    run = RunFolder(tmp_path, Schema)
    run.claim(Schema())
    other = override(Schema(), {"train.head_lr": 1.0, "train.steps": 3, "resume": True})
    assert run.changes(other, "train") == ["train.head_lr"]
    assert run.changes(other, "eval") == ["train.head_lr", "train.steps"]
    run.refuse_changes(override(Schema(), {"resume": True}), "eval", "stop")
    with pytest.raises(InputError, match=r"--train.head_lr: .*0\.0001, got 1\.0; .* or stop"):
        run.refuse_changes(other, "train", "stop")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--train.head_rl", "1"], "--train.head_lr"),
        (["--stepps", "1"], "--steps"),
        (["--steps", "many"], "invalid literal for int"),
        (["--train.kind", "adan"], "invalid choice 'adan'"),
        (["-m"], " argument"),
        (["--config"], "expected one argument"),
        (["extra"], "Unrecognized options: extra"),
    ],
)
def test_a_wrong_option_ends_the_program_with_a_proposal(argv, message, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(Schema, argv, program="train.py", description="")
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_help_shows_meanings_and_aliases(capsys):
    with pytest.raises(SystemExit) as caught:
        parse(Schema, ["--help"], program="train.py", description="Trains.")
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("Trains.", "--config", "--steps", "Learning rate of"))


def test_help_lists_some_options_alone_with_the_values_of_the_base(capsys):
    base = Schema(model_path="output/desk", train=Optimiser(steps=7))
    with pytest.raises(SystemExit):
        parse(
            *(Schema, ["--steps", "8", "--help"]),
            program="",
            description="",
            base=base,
            shows=lambda option: option.name in ("model_path", "train.steps"),
        )
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("-m STR", "output/desk", "--steps INT", "default: 7"))
    assert "head_lr" not in shown
    assert "resume" not in shown


def test_options_are_listed_with_their_meaning():
    listed = {option.name: option for option in options(Schema)}
    assert list(listed) == [
        *("model_path", "resume", "names", "limit"),
        *("train.head_lr", "train.steps", "train.kind", "train.rates", "train.without"),
    ]
    assert listed["train.head_lr"].meaning == "Learning rate of the head."
    assert listed["train.steps"].aliases == ("--steps",)
    assert listed["train.kind"].choices == ("adam", "sgd")
    assert listed["limit"].default is None


def test_differences_are_named():
    other = from_mapping(Schema, {"names": ["x"], "train": {"steps": 3}}, "here")
    assert differences(Schema(), other) == ["names", "train.steps"]
    assert to_mapping(other)["names"] == ["x"]


@pytest.mark.parametrize(
    ("argv", "model"),
    [
        (["-s", "x"], "one"),
        (["-m=x"], "one"),
        (["--config", "{two}/a.yaml"], "two"),
        (["--config={two}/a.yaml", "-m", "x"], "two"),
        (["--config", "{two}/named.yaml"], "one"),
        (["-m", "x", "--config", "{other}/a.yaml"], "one"),
        (["--help"], "one"),
    ],
)
def test_the_model_is_chosen_by_options_or_config(tmp_path, argv, model):
    for folder, name, text in (
        ("two", "a.yaml", ""),
        ("two", "named.yaml", "model: one"),
        ("other", "a.yaml", ""),
    ):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_text(text)
    argv = [word.format(two=tmp_path / "two", other=tmp_path / "other") for word in argv]
    assert choose_model(argv, ("one", "two"), {"-s": "one", "-m": "one"}) == model


def test_a_command_line_that_names_no_model(tmp_path):
    with pytest.raises(InputError, match="expected -m, or --config FILE, got neither"):
        choose_model([], ("one",), {"-m": "one"})
    (tmp_path / "a.yaml").touch()
    with pytest.raises(InputError, match=r"a\.yaml: lies in no model's folder.*one of: one"):
        choose_model(["--config", str(tmp_path / "a.yaml")], ("one",), {"-m": "one"})


def test_a_folder_in_a_files_place_is_named(tmp_path):
    page = tmp_path / "page.html"
    page.mkdir()
    with pytest.raises(OSError, match=r"page\.html") as error, atomic_write(page) as file:
        file.write(b"1")
    assert error.value.filename == str(page)
    assert list(tmp_path.iterdir()) == [page]


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "folder" / "a.txt"
    with atomic_write(path) as file:
        file.write(b"one")
        assert not path.exists()
    with pytest.raises(ZeroDivisionError), atomic_write(path) as file:
        file.write(b"tw" * (1 // 0))
    assert path.read_bytes() == b"one"
    assert list(path.parent.iterdir()) == [path]


def test_results_are_json_that_everybody_reads(tmp_path):
    path = tmp_path / "results.json"
    save(path, {"a": math.nan, "b": (1, math.inf), "c": {2: "ü"}})
    assert json.loads(path.read_text("utf-8")) == {"a": None, "b": [1, None], "c": {"2": "ü"}}
    path.write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        load_results(path)
    path.write_text("[]")
    with pytest.raises(InputError, match="expected an object, got"):
        load_results(path)


def test_a_stage_that_is_stopped_adds_up(tmp_path):
    path = tmp_path / "timings.json"
    with pytest.raises(KeyboardInterrupt), Stopwatch(path).stage("fit"):
        raise KeyboardInterrupt
    watch = Stopwatch(path)
    assert watch.stages["fit"]["finished"] is False
    watch.stages["fit"]["seconds"] = 100.0
    with watch.stage("fit"):
        assert Stopwatch(path).stages["fit"]["finished"] is False  # a killed stage has begun
    assert Stopwatch(path).stages["fit"]["finished"] is True
    assert 100 <= load_results(path)["fit"]["seconds"] < 101
    with watch.stage("fit"):
        pass
    assert load_results(path)["fit"]["seconds"] < 100


def test_provenance_says_what_made_a_result():
    record = provenance("cpu-base")
    assert record["backend"] == "cpu-base"
    assert torch.__version__.startswith(record["versions"]["torch"])  # which may lack +cu124
    assert record["threads"] == torch.get_num_threads()
    assert record["git_commit"] == git_commit()
    assert 10 < peak_memory_mib() < 1e6


def test_progress_keeps_its_numbers(tmp_path):
    with Progress("fit", 3, events=tmp_path) as progress:
        progress.advance(2)
        progress.report(2, loss=0.5)
    (events,) = tmp_path.glob("events.out.tfevents.*")
    assert b"fit/loss" in events.read_bytes()


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ("raise InputError('a.yaml: wrong')", 2, "error: a.yaml: wrong\n"),
        ("open('/nowhere/file')", 2, "error: /nowhere/file: No such file or directory\n"),
        (
            "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (9, 9))\n"
            "    with atomic_write('a') as file: file.write(b'y' * 99)",
            *(2, "error: a: File too large\n"),
        ),
        ("raise KeyboardInterrupt('go on with --resume')", 130, "\nstopped; go on with --resume\n"),
        ("os.kill(os.getpid(), signal.SIGTERM)", 143, "\nstopped\n"),
        (
            "try: os.kill(os.getpid(), signal.SIGINT)\n"
            "    except KeyboardInterrupt as error: raise ImportError('torch') from error",
            *(130, "\nstopped\n"),
        ),
        ("if os.fork() == 0: os.kill(os.getpid(), signal.SIGTERM)\n    os.wait()", 0, ""),
        ("pass", 0, ""),
    ],
)
def test_programs_end_without_a_traceback(body, status, message, tmp_path):
    program = (
        "import os, signal\n"
        "from refer3d.runs.errors import InputError, run\n"
        "from refer3d.runs.files import atomic_write\n"
        f"def main(argv):\n    {body}\n"
        "run(main)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        encoding="utf-8",
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (status, message)
    assert list(tmp_path.iterdir()) == []


def test_a_state_that_does_not_fit_the_disk_names_its_file(tmp_path, monkeypatch):
    def no_space(state, file):
        raise RuntimeError("unexpected pos 64 vs 0\nmore")

    monkeypatch.setattr(torch, "save", no_space)
    with pytest.raises(OSError, match="cannot be written") as raised:
        save_state(tmp_path / "a.pt", {"format": 1})
    assert raised.value.filename == str(tmp_path / "a.pt")
    assert list(tmp_path.iterdir()) == []


def test_output_that_nobody_takes_is_no_bug():
    program = (
        "from refer3d.runs.errors import run\nrun(lambda argv: print('x\\n' * 99999, flush=True))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_a_bug_keeps_its_traceback():
    program = "from refer3d.runs.errors import run\nrun(lambda argv: 1 / 0)\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8")
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


def test_uploads_are_pinned_and_asynchronous_and_downloads_are_not(monkeypatch):
    calls = []

    def stand_in(kind):
        tensor = SimpleNamespace(device=torch.device(kind))
        tensor.pin_memory = lambda: calls.append("pinned") or tensor
        tensor.to = lambda device, non_blocking: calls.append((str(device), non_blocking)) or tensor
        return tensor

    for start, end in (("cpu", "cuda:0"), ("cuda:0", "cuda:0"), ("cuda:0", "cpu"), ("cpu", "cpu")):
        to_device(stand_in(start), end)
    assert calls == ["pinned", ("cuda:0", True), ("cuda:0", True), ("cpu", False), ("cpu", False)]


PROGRAMS = {
    "echo": Program("Print the arguments. Twice.", "builtins:print", "+".join),
    "list": Program("List them.", "builtins:list", list),
}


def test_a_command_runs_the_program_that_it_names(capsys, monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "")  # to be restored
    monkeypatch.delenv("OMP_WAIT_POLICY")
    run_program("tool", PROGRAMS, ["echo", "a", "b"])
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    assert capsys.readouterr().out == "a+b\n"
    for argv in ([], ["--help"]):
        run_program("tool", PROGRAMS, argv)
        shown = capsys.readouterr().out
        assert all(
            text in shown for text in ("usage: tool PROGRAM", "echo  Print the arguments\n", "list")
        )
    with pytest.raises(InputError, match="expected one of echo, list, got 'ech'; did you mean 'ec"):
        run_program("tool", PROGRAMS, ["ech"])
    stopped = Program("Stop.", "tests.refer3d.test_runs:stop", list, "go on so")
    with pytest.raises(KeyboardInterrupt, match="go on so"):
        run_program("tool", {"stop": stopped}, ["stop"])


def stop(_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("model", ["refersplat", "detailbase"])
def test_help_needs_no_torch(model):
    program = (
        f"import sys; from {model}.__main__ import PROGRAMS, main\n"
        "for argv in ([], *([name] for name in PROGRAMS)):\n"
        "    try: main([*argv, '--help'])\n"
        "    except SystemExit: pass\n"
        "assert not {'torch', 'numpy'} & {*sys.modules}"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8")
    assert (done.returncode, done.stderr) == (0, "")
    programs = importlib.import_module(f"{model}.__main__").PROGRAMS
    assert all(f"usage: {model} {name}" in done.stdout for name in ("PROGRAM", *programs))


def test_programs_leave_out_what_they_do_not_use():
    program = (
        "import sys, detailbase.train, detailbase.predict, refersplat.train, refersplat.evaluate\n"
        "print(*{'torch._dynamo', 'sympy', 'transformers', 'viser', 'matplotlib'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8")
    assert (done.stdout.strip(), done.stderr) == ("", "")


def hold(folder, held):
    with RunFolder(folder, Schema).held("-m"):
        held.set()
        time.sleep(60)


def test_a_folder_is_held_by_one_process_and_free_after_its_death(tmp_path):
    run, held = RunFolder(tmp_path / "run", Schema), processes.CONTEXT.Event()
    process = processes.start(hold, run.path, held)
    assert held.wait(60)
    with raises(InputError, "-m", run.path, "another folder"), run.held("-m"):
        pass
    process.kill()
    process.join()
    with run.held("-m"):
        pass


def test_a_folder_is_held_once_in_a_process(tmp_path, monkeypatch):
    locked = []
    monkeypatch.setattr("refer3d.runs.folder._lock", lambda file: locked.append(file.name) or True)
    run = RunFolder(tmp_path / "run", Schema)
    same = RunFolder(tmp_path / "x" / ".." / "run", Schema)
    (tmp_path / "x").mkdir()
    for number in (1, 2):  # free again behind the block
        with run.held("-m"):
            for other in (run, same):
                with raises(InputError, "-m", other.path, "another folder"), other.held("-m"):
                    pass
            # Closing the file of a second lock would end the first.
            assert len(locked) == number


def test_drafts_of_killed_processes_are_swept(tmp_path):
    folder = tmp_path / "point_cloud"
    folder.mkdir()
    draft, kept = folder / ".a.ply.0123abcd.tmp", folder / ".mine.tmp"
    for path in (draft, kept):
        path.touch()
    sweep_drafts(tmp_path, HOUR)
    assert draft.exists()
    with RunFolder(tmp_path, Schema).held("-m"):
        pass
    assert not draft.exists()
    assert kept.exists()


@pytest.mark.parametrize(
    "text",
    [
        '{"fit": [1]}',
        '{"fit": {"seconds": "x", "peak_mib": 0, "finished": false}}',
        '{"fit": {"seconds": %s, "peak_mib": 0, "finished": false}}' % ("9" * 4000),
        "[" * 100_000,
        '{"a": ' * 10_000,
        "9" * 5000,
    ],
    ids=["list", "text", "large", "deep list", "deep object", "5000 digits"],
)  # fmt: skip
def test_timings_of_others_are_refused(tmp_path, text):
    path = tmp_path / "timings.json"
    path.write_text(text)
    with raises(InputError, "timings.json", "delete it"):
        Stopwatch(path)


@pytest.mark.parametrize("value", ["0x" + "f" * 5000, "1:" * 3000 + "1", "[" * 3000, "&a [*a]"])
def test_extreme_values_of_options_are_refused(tmp_path, value):
    path = tmp_path / "a.yaml"
    path.write_text(f"steps: {value}")
    with raises(InputError, "a.yaml") as error:
        load_yaml(path, Schema)
    assert len(str(error.value)) < 900


def test_half_a_character_is_escaped(tmp_path):
    save(tmp_path / "a.json", {"name": "\ud800"})
    assert load_results(tmp_path / "a.json") == {"name": "\ud800"}
