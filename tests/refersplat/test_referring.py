from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from refer3d.text_encoder import HashTextEncoder, TextFeatures
from refersplat.field import folded
from refersplat.field.network import SENTENCES_AT_ONCE, ReferringField

ENCODER = HashTextEncoder(dim=24)
SENTENCES = ["the red mug", "a banana that lies beside the mug", "mug"]


@pytest.fixture
def field() -> ReferringField:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ReferringField(text_dim=24).double()


def inputs(rng: torch.Generator, count: int) -> tuple[Tensor, Tensor, TextFeatures]:
    """Features [N, C] and positions [N, 3] in float64, and text."""
    features = torch.randn(count, 16, generator=rng, dtype=torch.float64)
    positions = torch.randn(count, 3, generator=rng, dtype=torch.float64)
    text = ENCODER(SENTENCES)
    return features, positions, TextFeatures(text.words.double(), text.mask, text.embeddings)


def defined(field: ReferringField, features: Tensor, positions: Tensor, text: TextFeatures):
    """Features of ``forward``, and the responses that follow from them."""
    words = field.embed_words(text)
    read = field(features, positions, words, text.mask)
    return read, (read @ words.sum(dim=1)[..., None])[..., 0]


@pytest.mark.parametrize("count", [1, 2, 50, 133])
def test_folded_matches_definition(field, rng, monkeypatch, count):
    monkeypatch.setattr(folded, "CHUNK", 32)
    features, positions, text = inputs(rng, count)
    features.requires_grad_()
    selected = torch.randint(count, (len(SENTENCES), 5), generator=rng)
    cotangents = torch.randn(len(SENTENCES), count, generator=rng, dtype=torch.float64)
    parameters = {"features": features, **dict(field.named_parameters())}

    read, responses = defined(field, features, positions, text)
    mean = torch.stack([read[b, rows].mean(dim=0) for b, rows in enumerate(selected)])
    interaction = field.interact(features, positions, field.embed_words(text), text.mask)
    # float64; measured worst 3e-15 of the largest value.
    assert_close(interaction.responses, responses, rtol=1e-12, atol=1e-12)
    assert_close(interaction.mean(selected), mean, rtol=1e-12, atol=1e-12)

    got, want = (
        torch.autograd.grad((r * cotangents).sum() + m.sin().sum(), list(parameters.values()))
        for r, m in ((interaction.responses, interaction.mean(selected)), (responses, mean))
    )
    scale = max(float(gradient.norm()) for gradient in want)
    for name, one, other in zip(parameters, got, want, strict=True):
        # A gradient that cancels to zero is compared with the others' size.
        assert (one - other).norm() <= 1e-10 * other.norm() + 1e-13 * scale, name


def test_only_visible_gaussians_respond(field, rng):
    features, positions, text = inputs(rng, 50)
    words = field.embed_words(text)
    visible, others = (
        torch.tensor([3, 7, 48]),
        torch.tensor([i for i in range(50) if i not in (3, 7, 48)]),
    )
    everyone = field.interact(features, positions, words, text.mask)
    some = field.interact(features, positions, words, text.mask, (visible, others))
    assert_close(some.responses, everyone.responses[:, visible], rtol=1e-12, atol=1e-12)


def test_float32_is_accurate(field, rng):
    features, positions, text = inputs(rng, 5000)
    want = defined(field, features, positions, text)[1].detach()
    single = TextFeatures(text.words.float(), text.mask, text.embeddings)
    got = field.float().respond(features.float(), positions.float(), single)
    # Measured 1.2e-6 of the largest.
    assert_close(got.double(), want, rtol=0, atol=6e-6 * float(want.abs().max()))


def test_longer_neighbour_changes_nothing(field, rng):
    features, positions, text = inputs(rng, 40)
    alone = field.respond(features, positions, text[[0]])
    beside = field.respond(features, positions, text)
    assert_close(beside[:1], alone, rtol=1e-12, atol=1e-12)


def test_order_of_gaussians_does_not_matter(field, rng):
    features, positions, text = inputs(rng, 40)
    order = torch.randperm(40, generator=rng)
    straight = field.respond(features, positions, text)
    shuffled = field.respond(features[order], positions[order], text)
    assert_close(shuffled, straight[:, order], rtol=1e-10, atol=1e-10)


def test_any_number_of_sentences(field, rng):
    features, positions, _ = inputs(rng, 20)
    many = ENCODER([f"thing number {index}" for index in range(SENTENCES_AT_ONCE + 3)])
    text = TextFeatures(many.words.double(), many.mask, many.embeddings)
    together = field.respond(features, positions, text)
    assert together.shape == (len(text), 20)
    assert_close(together[-1:], field.respond(features, positions, text[[-1]]))


def test_a_gaussian_at_the_origin_of_the_position_branch_has_no_nan(field, rng):
    features, positions, text = inputs(rng, 3)
    with torch.no_grad():
        field.mlp3.fc3.weight.zero_()
        field.mlp3.fc3.bias.zero_()
    interaction = field.interact(features, positions, field.embed_words(text), text.mask)
    interaction.responses.sum().backward()
    assert interaction.responses.isfinite().all()
    assert all(p.grad.isfinite().all() for p in field.parameters() if p.grad is not None)


def test_published_names(field):
    names = set(field.state_dict())
    branches = {f"mlp{i}.fc{j}.{kind}" for i in "123" for j in "123" for kind in ("weight", "bias")}
    attention = {
        f"cross_attention.{layer}.{kind}"
        for layer in ("q_linear", "k_linear", "v_linear", "gp_linear", "kp_linear", "norm")
        for kind in ("weight", "bias")
    }
    assert names == branches | attention


def test_only_a_cpu_gets_chunks_that_fit_its_cache():
    cpu, gpu = (
        folded.split(
            torch.empty(100_000, 16, device=device), torch.empty(100_000, 3, device=device)
        )
        for device in ("cpu", "meta")
    )
    assert len(gpu) == 1 < 20 < len(cpu)


def test_gradients_of_means_do_not_depend_on_threads(rng):
    """The same Gaussians are selected again and again, so that threads would meet at one row."""
    field, words = ReferringField(8, 16), torch.randn(4, 3, 8, generator=rng)
    features = torch.randn(60, 16, generator=rng).requires_grad_()
    positions = torch.randn(60, 3, generator=rng)
    selected = torch.randint(0, 60, (4, 20_000), generator=rng)
    text = TextFeatures(words, torch.ones(4, 3, dtype=torch.bool), words.mean(dim=1))

    def gradient(threads):
        torch.set_num_threads(threads)
        interaction = field.interact(features, positions, field.embed_words(text), text.mask)
        return torch.autograd.grad(interaction.mean(selected).square().sum(), features)[0]

    before = torch.get_num_threads()
    try:
        want = gradient(1)
        assert all(torch.equal(gradient(2), want) for _ in range(5))
    finally:
        torch.set_num_threads(before)
