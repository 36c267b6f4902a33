import math

import pytest
import torch
from torch.testing import assert_close

from refersplat.ops.adam import BETAS, EPSILON, adam_reference, adam_step
from tests.emulation import emulation


def arguments(rng, shape, dtype=torch.float32, device="cpu"):
    parameter, gradient, first = (
        torch.randn(*shape, generator=rng, dtype=dtype).to(device) for _ in range(3)
    )
    second = torch.rand(*shape, generator=rng, dtype=dtype).to(device)
    rates = torch.rand(math.prod(shape[1:]), generator=rng, dtype=dtype).to(device)
    return parameter, gradient, first, second, rates


@pytest.mark.parametrize(
    ("dtype", "shape", "step"),
    [
        (torch.float32, (1,), 1),
        (torch.float64, (50_000,), 7_000),
        (torch.float32, (333, 3), 7_000),
        (torch.float64, (333, 3), 1),
        (torch.float32, (1_001, 16, 3), 1),
    ],
)
def test_matches_reference(rng, device, dtype, shape, step):
    ours = arguments(rng, shape, dtype, device)
    expected = [tensor.clone() for tensor in ours]
    adam_step(*ours, step)
    adam_reference(*expected, step)
    # A handful of roundings each; measured worst 2e-7 relative in float32.
    tolerance = {torch.float32: 1e-6, torch.float64: 1e-14}[dtype]
    for got, want in zip(ours, expected, strict=True):
        assert_close(got, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("shape", [(0, 3), (100, 4, 3)])
def test_emulated_step_matches_reference(rng, shape):
    ours = arguments(rng, shape, torch.float64)
    expected = [tensor.clone() for tensor in ours]
    with emulation():
        adam_step(*ours, 3)
    adam_reference(*expected, 3)
    for got, want in zip(ours, expected, strict=True):
        assert_close(got, want, rtol=1e-14, atol=1e-14)


def test_does_what_torch_does(rng):
    parameter = torch.randn(40, 3, generator=rng, dtype=torch.float64)
    theirs = parameter.clone().requires_grad_()
    optimizer = torch.optim.Adam([theirs], lr=0.01, betas=BETAS, eps=EPSILON)
    first, second = torch.zeros_like(parameter), torch.zeros_like(parameter)
    for step in range(1, 20):
        gradient = torch.randn(40, 3, generator=rng, dtype=torch.float64)
        theirs.grad = gradient.clone()
        optimizer.step()
        rates = torch.full((3,), 0.01, dtype=torch.float64)
        adam_step(parameter, gradient, first, second, rates, step)
    assert_close(parameter, theirs.detach(), rtol=1e-12, atol=1e-12)


def test_each_column_has_its_rate():
    parameter, moments = torch.zeros(100, 2), torch.zeros(2, 100, 2)
    adam_step(parameter, torch.ones(100, 2), *moments, torch.tensor([0.5, 0.0]), 1)
    assert_close(parameter, torch.tensor([-0.5, 0.0]).expand(100, 2))


def test_gradients_of_what_has_moved_are_refused(rng, device):
    parameter, gradient, first, second, rates = arguments(rng, (5, 3), device=device)
    loss = parameter.requires_grad_().square().sum()
    adam_step(parameter.detach(), gradient, first, second, rates, 3)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_names_what_does_not_match(rng):
    parameter, gradient, first, second, rates = arguments(rng, (5, 3))
    with pytest.raises(ValueError, match=r"gradient must have shape \[5, 3\], got \[4, 3\]"):
        adam_step(parameter, gradient[:4], first, second, rates, 1)
    with pytest.raises(ValueError, match=r"rates must have shape \[3\], got \[2\]"):
        adam_step(parameter, gradient, first, second, rates[:2], 1)
    with pytest.raises(ValueError, match="first must be contiguous"):
        adam_step(parameter, gradient, first.T.contiguous().T, second, rates, 1)
