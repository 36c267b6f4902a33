"""Processes that train together compute what one does."""

import dataclasses
import re
import shutil
from typing import cast

import pytest
import torch
from torch.testing import assert_close

from detailbase import train as program
from detailbase.config import Config, DataConfig, NetworkConfig, TextConfig
from detailbase.data.batches import Batches
from detailbase.descriptions.datasets import read_split
from detailbase.descriptions.sentences import Sentences, word_encoder
from detailbase.train import main
from detailbase.training.loop import add_gradients, run_epoch
from detailbase.training.state import Training
from refer3d.runs.errors import InputError
from refer3d.runs.ranks import gathered, joined, mean_of, rank, require_ranks, world
from refer3d.runs.results import load_results
from tests import processes
from tests.errors import raises
from tests.processes import together, told_by_survivor

pytestmark = pytest.mark.slow  # starts processes

CPU = torch.device("cpu")
NETWORK = NetworkConfig(
    *("unet", (8, 16), 32), heads=4, hidden=32, layers=2, choice=True, relations=True
)


def gradients(rooms, double):
    """The gradients and statistics of a batch of four rooms."""
    with joined(CPU):
        options = DataConfig(root=str(rooms), workers=0, scenes_per_batch=4)
        references = read_split(options, "detailrefer", "train")
        sentences = Sentences.encode(word_encoder(TextConfig("hash"), CPU), references, CPU)
        share = (rank(), world())
        batch = Batches(references, rooms / "scannetv2", options, 0, epoch=0, share=share)[0]
        torch.set_default_dtype(torch.float64 if double else torch.float32)
        training = Training.start(Config(network=NETWORK), 64, CPU)
        assert len(batch.superpoint_starts) - 1 == 4 // world()
        if double:
            batch = dataclasses.replace(batch, features=batch.features.double())
            sentences = cast(Sentences, Doubled(sentences))
        add_gradients(training, batch, sentences, Config().train)
        named = training.network.named_parameters()
        found = {name: p.grad for name, p in named if p.grad is not None}
        return {
            n: value.numpy()
            for n, value in {**found, **dict(training.network.named_buffers())}.items()
        }


@dataclasses.dataclass
class Doubled:
    """Text in float64."""

    sentences: Sentences

    def of(self, references):
        words, mask = self.sentences.of(references)
        return words.double(), mask


def test_two_processes_have_the_gradients_of_one(rooms):
    one = processes.call(gradients, rooms, True)
    two = together(2, gradients, rooms, True)
    assert one.keys() == two.keys()
    assert sum(abs(value).sum() for name, value in one.items() if "unet" in name) > 0
    for name, value in one.items():
        assert_close(two[name], value, rtol=1e-8, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


def counted():
    with joined(CPU):
        values = torch.arange(3.0)[rank() :]  # the first process has 0, 1, 2; the second 1, 2
        share = mean_of(values.sum(), len(values))
        require_ranks(2, "--things")
        with raises(InputError, "--things", "at least 2", "got 1", "fewer processes"):
            require_ranks(1, "--things")
        return gathered([share.item()])


def test_a_mean_weighs_terms_alike_wherever_they_are():
    shares = together(2, counted)
    assert sum(shares) / 2 == pytest.approx((3 + 3) / 5)


def test_a_killed_process_ends_all_with_one_line(rooms, config_path, tmp_path):
    options = ["--config", str(config_path), "--data.root", str(rooms), "--text.encoder", "hash"]
    options += ["--data.workers", "0", "--data.scenes_per_batch", "2", "--device", "cpu"]
    options += ["--work_dir", str(tmp_path / "out")]
    target, log = "detailbase.training.loop.total_loss", tmp_path / "log"
    status, text = told_by_survivor("detailbase", options, target, log)
    assert status == 130
    assert re.fullmatch("stopped; another process .* with --resume .*", text.splitlines()[-1])
    assert "Traceback" not in text


def train_and_keep(arguments, folder, kept):
    """Trains, and copies the run's folder as it is after the first epoch."""

    def kept_epoch(config, training, *more):
        if training.epoch == 1 and not rank():
            shutil.copytree(folder, kept)
        run_epoch(config, training, *more)

    program.run_epoch = kept_epoch
    program.main(arguments)


def test_a_training_goes_on_with_another_number_of_processes(rooms, config_path, tmp_path):
    """Two epochs of one process, of two, and one of two and then one of one: the same numbers."""
    options = [
        *("--config", str(config_path), "--data.root", str(rooms), "--text.encoder", "hash"),
        *("--data.workers", "0", "--network.channels", "8", "16", "--network.width", "32"),
        *("--network.hidden", "32", "--network.layers", "2", "--data.scenes_per_batch", "2"),
        *("--device", "cpu", "--train.lr_drops", "1", "--train.ema_decay", "0"),
    ]
    alone, pair, mixed = (tmp_path / name for name in ("alone", "pair", "mixed"))
    processes.call(main, [*options, "--work_dir", str(alone), "--epochs", "2"])
    two = [*options, "--work_dir", str(pair), "--epochs", "2"]
    together(2, train_and_keep, two, pair, mixed)
    assert torch.load(mixed / "last.pth", weights_only=True)["epoch"] == 1
    resumed = ["--epochs", "2", "--resume", str(mixed / "last.pth")]
    processes.call(main, [*options, "--work_dir", str(mixed), *resumed])
    states = [torch.load(one / "last.pth", weights_only=True) for one in (alone, pair, mixed)]
    assert [state["epoch"] for state in states] == [2, 2, 2]
    assert load_results(mixed / "timings.json")["epochs"] == 2
    # Adam divides by small second moments, so float32 sums in another order move a weight by up
    # to a learning rate in the first steps; validation must not notice.
    for state in states[1:]:
        assert states[0]["mIoU"] == pytest.approx(state["mIoU"], abs=0.05)
