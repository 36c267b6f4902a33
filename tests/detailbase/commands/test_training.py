"""A training step and its options."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from detailbase.config import Config, DataConfig, NetworkConfig, TextConfig, TrainConfig
from detailbase.data.batches import Batches
from detailbase.descriptions.datasets import read_split
from detailbase.descriptions.references import Phrase, Reference
from detailbase.descriptions.sentences import Sentences, word_encoder
from detailbase.inference.metrics import METRICS, PhraseScores
from detailbase.scans.clouds import prepared_folder
from detailbase.train import train
from detailbase.training.loop import add_gradients, step
from detailbase.training.losses import mask_loss
from detailbase.training.state import Training
from refer3d.runs.config import load_yaml
from refer3d.runs.errors import InputError

CPU = torch.device("cpu")
REFERENCE = Reference("scene", "0", ("a", "chair"), (Phrase("1", (0,)),))
NETWORK = NetworkConfig(channels=(8, 16), width=32, heads=4, hidden=32, layers=2)
CONFIGS = Path(__file__).parents[3] / "configs" / "detailbase"


def start(**options) -> Training:
    return Training.start(Config(network=NETWORK, train=TrainConfig(**options)), 64, CPU)


@pytest.fixture
def batch_and_text(rooms):
    """A batch, and its text."""
    options = DataConfig(root=str(rooms), workers=0)
    references = read_split(options, "detailrefer", "train")
    sentences = Sentences.encode(word_encoder(TextConfig("hash"), CPU), references, CPU)
    return Batches(references, prepared_folder(options), options, seed=0, epoch=0)[0], sentences


def test_the_published_rates():
    config = load_yaml(CONFIGS / "published.yaml", Config)
    assert (config.train.lr, config.train.weight_decay, config.seed) == (1e-4, 5e-4, 1999)
    assert (config.data.scenes_per_batch, config.data.max_sentences) == (2, 8)
    assert not config.train.amp  # the published trainer has no mixed precision
    options = dataclasses.replace(config.train, backbone="")
    training = Training.start(Config(network=NETWORK, train=options), 64, CPU)
    rates = []
    for training.epoch in range(options.epochs):
        training.set_rates(options)
        rates.append([group["lr"] for group in training.optimizer.param_groups])
    assert all(decoder == backbone for decoder, backbone in rates)
    drops = {epoch for epoch in range(1, 50) if rates[epoch][0] == rates[epoch - 1][0] / 2}
    assert drops == {26, 34, 42}
    assert rates[-1][0] == pytest.approx(1e-4 / 8)


def test_the_mean_of_the_weights_is_evaluated(batch_and_text):
    batch, sentences = batch_and_text
    training = start(lr=1e-2, ema_decay=0.2)
    want = None
    for keep in (0, 2 / 11, 0.2, 0.2):  # of the first steps, less
        add_gradients(training, batch, sentences, TrainConfig())
        step(training, TrainConfig())
        now = [*training.network.parameters(), *training.network.buffers()]
        now = [tensor.detach().double() for tensor in now]
        if want is None:
            want = now
        want = [keep * a + (1 - keep) * b for a, b in zip(want, now, strict=True)]
    means = [*training.evaluated.parameters(), *training.evaluated.buffers()]
    for got, mean in zip(means, want, strict=True):
        if got.is_floating_point():  # not how many batches a norm has seen
            assert_close(got.double(), mean, rtol=1e-5, atol=1e-7)
    plain = start(ema_decay=0.0)
    assert plain.evaluated is plain.network


def test_the_backbone_may_learn_more_slowly():
    training = start(lr=1e-3, backbone_lr_scale=0.01)
    others, backbone = training.optimizer.param_groups
    assert (others["lr"], backbone["lr"]) == (1e-3, pytest.approx(1e-5))
    slow = {id(parameter) for parameter in backbone["params"]}
    fast = {id(parameter) for parameter in others["params"]}
    for name, parameter in training.network.named_parameters():
        part = name.partition(".")[0]
        assert id(parameter) in (slow if part == "backbone" else fast)
    assert len(slow) + len(fast) == len(list(training.network.parameters()))


def test_the_best_epoch_of_the_mean_is_saved(rooms, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    trainings, networks = [], []
    begin = Training.start

    def start_seen(*arguments):
        trainings.append(begin(*arguments))
        return trainings[-1]

    def score_seen(network, *_):
        networks.append(network)
        value = (0.3, 0.5, 0.4)[len(networks) - 1]
        kept.append([tensor.clone() for tensor in network.state_dict().values()])
        scores = dict.fromkeys(METRICS, 1.0) | {"mIoU": value, "acc@0.5": 0.0}
        yield PhraseScores(REFERENCE, "1", 0, scores)

    kept = []
    monkeypatch.setattr(Training, "start", start_seen)
    monkeypatch.setattr("detailbase.train.score", score_seen)
    text, data = TextConfig("hash", ""), DataConfig(root=str(rooms), workers=0)
    options = TrainConfig(
        epochs=3, lr=1e-2, ema_decay=0.9, lr_drops=(0.34, 0.67), weight_decay=0.125
    )
    config = Config(work_dir=str(tmp_path / "run"), data=data, text=text, network=NETWORK,
                    train=options)  # fmt: skip
    train(config)
    (training,) = trainings
    assert all(network is training.average.module for network in networks)
    assert all(group["lr"] == 1e-2 / 4 for group in training.optimizer.param_groups)
    assert all(group["weight_decay"] == 0.125 for group in training.optimizer.param_groups)
    best = torch.load(tmp_path / "run" / "best.pth", weights_only=True)
    assert (best["epoch"], best["mIoU"]) == (2, 0.5)
    for got, want in zip(best["model"].values(), kept[1], strict=True):
        assert torch.equal(got, want)
    text = (tmp_path / "run" / "train.log").read_text()
    assert "epoch 2, val, all: mIOU 0.5000  Acc_50 0.0000  Acc_25 1.0000  smIOU 0.5000" in text


def test_batches_that_share_a_step_add_their_gradients(batch_and_text):
    alone, shared = start(), start()
    add_gradients(alone, *batch_and_text, TrainConfig())
    for _ in range(2):
        add_gradients(shared, *batch_and_text, TrainConfig(accumulate=2))
    for one, other in zip(alone.network.parameters(), shared.network.parameters(), strict=True):
        # Two halves of one float32 gradient; measured worst 1.5e-8.
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-5, atol=1e-7)


def test_long_gradients_are_clipped_before_the_step(batch_and_text):
    training = start()
    add_gradients(training, *batch_and_text, TrainConfig())
    norm = torch.nn.utils.get_total_norm([p.grad for p in training.network.parameters()])
    seen = []
    training.optimizer.register_step_pre_hook(
        lambda optimizer, *_: seen.append(
            torch.nn.utils.get_total_norm([p.grad for p in training.network.parameters()])
        )
    )
    assert norm > 0.1
    step(training, TrainConfig(clip=0.1))
    assert seen[0] == pytest.approx(0.1, rel=1e-3)
    assert all(p.grad is None for p in training.network.parameters())


def test_half_precision_learns_alike(batch_and_text):
    batch, sentences = batch_and_text
    gradients = []
    for is_mixed in (False, True):
        training = start()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_mixed):
            predictions = training.network(**batch.inputs(sentences))
        assert predictions.scores.dtype == (torch.bfloat16 if is_mixed else torch.float32)
        losses = mask_loss(
            predictions, batch.sentence_of_phrase, batch.query_of_phrase, batch.targets
        )
        assert losses.total.dtype == losses.score.dtype == torch.float32
        losses.total.backward()
        named = training.network.named_parameters()
        gradients.append(torch.cat([p.grad.flatten() for _, p in named if p.grad is not None]))
    # bfloat16 has 8 bits: the directions agree; measured 1 - 1.4e-5.
    assert torch.cosine_similarity(*gradients, dim=0) > 0.999


def test_an_infinite_loss_is_an_error(batch_and_text):
    training = start()
    with torch.no_grad():
        training.network.decoder.out_score[-1].bias.fill_(torch.inf)
        training.network.decoder.lang_proj.bias.fill_(torch.nan)
    with pytest.raises(InputError, match=r"--train\.lr: the loss is nan in batch 1 of epoch 1"):
        add_gradients(training, *batch_and_text, TrainConfig())


def test_words_behind_the_encoders_last_are_not_trained_on(rooms):
    references = read_split(DataConfig(root=str(rooms)), "detailrefer", "train")
    words = references[0].words
    read = Sentences.encode(word_encoder(TextConfig("hash"), CPU), references, CPU)
    assert read.answerable(references) == references
    short = dataclasses.replace(read, lengths={**read.lengths, words: 5})  # of six words
    first = short.answerable(references)[0]
    assert [phrase.key for phrase in references[0].phrases] == ["1", "5"]
    assert [phrase.key for phrase in first.phrases] == ["1"]
    nothing = dataclasses.replace(read, lengths={**read.lengths, words: 1})
    assert words not in [one.words for one in nothing.answerable(references)]
