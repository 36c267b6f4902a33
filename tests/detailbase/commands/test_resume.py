import time

import pytest
import torch

from detailbase.train import main
from tests import processes

pytestmark = pytest.mark.slow  # trains three times

SHORT = ("--epochs", "4", "--train.checkpoint_every", "1")
SMALL = (
    *("--text.encoder", "hash", "--device", "cpu", "--data.workers", "0"),
    *("--network.channels", "8", "16", "--network.width", "32", "--network.heads", "4"),
    *("--network.hidden", "32", "--network.layers", "2", "--data.scenes_per_batch", "1"),
)


def arguments(config_path, rooms, out, *more):
    options = ["--config", config_path, "--data.root", rooms, "--work_dir", out, *SHORT, *SMALL]
    return [*map(str, options), *more]


def weights(folder):
    state = torch.load(folder / "last.pth", weights_only=True)
    assert state["epoch"] == 4
    best = torch.load(folder / "best.pth", weights_only=True)
    numbers = {name: torch.tensor(state[name]) for name in ("mIoU", "best")}
    return {
        **state["model"],
        **{f"adam {name}": value for name, value in flat(state["optimizer"]["state"])},
        **{f"average {name}": value for name, value in state["average"].items()},
        **{f"best {name}": value for name, value in best["model"].items()},
        **numbers,
    }


def flat(states):
    for index, state in states.items():
        for name, value in state.items():
            yield f"{index} {name}", torch.as_tensor(value)


def steps_behind(state_file):
    state = torch.load(state_file, weights_only=True)
    return 4 * state["epoch"] + state["batch"]


@pytest.mark.parametrize(("accumulate", "begun"), [(1, 0), (2, 1)], ids=["at once", "in between"])
def test_a_killed_run_resumes_to_the_same_bits(rooms, config_path, tmp_path, accumulate, begun):
    more = ("--train.accumulate", str(accumulate))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    processes.call(main, arguments(config_path, rooms, whole, *more))

    process = processes.start(main, arguments(config_path, rooms, killed, *more))
    deadline = time.monotonic() + 60
    last = killed / "last.pth"
    while not (last.exists() and steps_behind(last) >= begun) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.join()
    stopped = torch.load(last, weights_only=True)
    assert stopped["epoch"] < 4, "the run had ended before it was killed"

    processes.call(main, arguments(config_path, rooms, killed, *more, "--resume"))
    expected, resumed = weights(whole), weights(killed)
    assert expected.keys() == resumed.keys()
    assert [name for name in expected if not torch.equal(expected[name], resumed[name])] == []
