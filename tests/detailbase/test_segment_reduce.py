import importlib

import pytest
import torch
from torch.testing import assert_close

from detailbase.ops import reference, segment_reduce
from refer3d.native import operators
from refer3d.native.loader import runnable_variants


def rows(rng, count, channels, num_segments, dtype=torch.float32, device="cpu"):
    values = torch.randn(count, channels, generator=rng, dtype=dtype)
    segments = torch.randint(0, max(num_segments, 1), (count,), generator=rng)
    return values.to(device), segments.to(device)


def by_definition(values, segments, count, reduce):
    if reduce == "max":
        return reference.segment_max(values, segments, count)[0]
    total = reference.segment_sum(values, segments, count)
    sizes = torch.bincount(segments, minlength=count)[:, None]
    return total if reduce == "sum" else total / sizes.clamp(min=1)


@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
@pytest.mark.parametrize(
    ("dtype", "count", "channels", "segments"),
    [
        (torch.float32, 0, 3, 0),
        (torch.float64, 0, 3, 4),
        (torch.float32, 1, 1, 1),
        (torch.float64, 50, 0, 3),
        (torch.float32, 50, 7, 90),
        (torch.float32, 3000, 32, 5),
        (torch.float64, 3000, 32, 5),
    ],
)
def test_matches_reference(rng, device, reduce, dtype, count, channels, segments):
    values, index = rows(rng, count, channels, segments, dtype, device)
    expected = by_definition(values, index, segments, reduce)
    # Up to 700 terms of order 1, perhaps added in another order; measured worst 8e-6 in float32.
    tolerance = {torch.float32: 4e-5, torch.float64: 1e-13}[dtype]
    got = segment_reduce(values, index, segments, reduce)
    assert_close(got, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
def test_gradients_match_reference(rng, device, reduce):
    values, index = rows(rng, 300, 4, 70, torch.float64, device)
    values.requires_grad_()
    weights = torch.randn(70, 4, generator=rng, dtype=torch.float64).to(device)
    got, want = (
        torch.autograd.grad((op(values, index, 70, reduce) * weights).sum(), values)[0]
        for op in (segment_reduce, by_definition)
    )
    assert want.abs().max() > 0
    assert_close(got, want, rtol=1e-14, atol=0)  # nothing is added; measured worst 0


@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
def test_gradients_match_finite_differences(rng, reduce):
    values, index = rows(rng, 9, 2, 4, torch.float64)
    values.requires_grad_()
    assert torch.autograd.gradcheck(lambda v: segment_reduce(v, index, 4, reduce), (values,))


def test_operators_are_registered_correctly(rng, device):
    values, index = rows(rng, 9, 2, 4, device=device)
    for op in (torch.ops.detailbase.segment_sum, torch.ops.detailbase.segment_max):
        torch.library.opcheck(op.default, (values, index, 5))


def test_known_answer(device):
    values = torch.tensor([[1.0, -1], [5, -2], [3, -5], [5, -9]], device=device)
    index = torch.tensor([2, 0, 2, 2], device=device)
    results = {r: segment_reduce(values, index, 4, r).tolist() for r in ("sum", "mean", "max")}
    assert results == {
        "sum": [[5, -2], [0, 0], [9, -15], [0, 0]],
        "mean": [[5, -2], [0, 0], [3, -5], [0, 0]],
        "max": [[5, -2], [0, 0], [5, -1], [0, 0]],
    }


def test_the_first_of_equal_maxima_gets_the_gradient(device):
    values = torch.tensor([[2.0], [7], [7]], device=device, requires_grad=True)
    segment_reduce(values, torch.zeros(3, dtype=torch.int64, device=device), 1, "max").backward()
    assert values.grad.tolist() == [[0], [1], [0]]


def test_a_nan_is_not_hidden(rng, device):
    values = torch.tensor([[1.0], [torch.nan], [3], [4]], device=device)
    index = torch.tensor([0, 0, 0, 1], device=device)
    for op in (segment_reduce, by_definition):
        assert_close(
            op(values, index, 2, "max"),
            torch.tensor([[torch.nan], [4]], device=device),
            equal_nan=True,
        )
    compiled, expected = (
        op(values, index, 2)[1] for op in (torch.ops.detailbase.segment_max, reference.segment_max)
    )
    assert torch.equal(compiled, expected)


@pytest.mark.parametrize("variant", runnable_variants())
def test_every_variant_gives_the_same(rng, variant):
    module = importlib.import_module(f"detailbase._cpu_{variant}")
    values, index = rows(rng, 5000, 9, 300)
    total = torch.empty(300, 9)
    module.segment_sum(values.numpy(), index.numpy(), 2, total.numpy())
    # About 17 terms of order 1 in the same order; measured worst 0.
    assert_close(total, reference.segment_sum(values, index, 300), rtol=0, atol=1e-6)


def test_does_not_depend_on_threads(rng, monkeypatch):
    values, index = rows(rng, 50_000, 8, 900)
    expected = segment_reduce(values, index, 900)
    for threads in (1, 3, 8):
        monkeypatch.setattr(operators, "num_threads", lambda threads=threads: threads)
        assert torch.equal(segment_reduce(values, index, 900), expected)


@pytest.mark.parametrize(
    ("values", "segments", "count", "reduce", "message"),
    [
        (torch.zeros(3), torch.zeros(3).long(), 1, "sum", r"values must have shape \[\*, \*\]"),
        (torch.zeros(3, 1), torch.zeros(2).long(), 1, "sum", r"segments must have shape \[3\]"),
        (torch.zeros(3, 1), torch.zeros(3), 1, "sum", "segments must be int64 .* got float32"),
        (torch.zeros(3, 1).long(), torch.zeros(3).long(), 1, "sum", "values must have a floating"),
        (torch.zeros(3, 1), torch.zeros(3).long(), -1, "sum", "count must not be negative"),
        (torch.zeros(3, 1), torch.zeros(3).long(), 1, "min", "reduce must be sum, mean or max"),
        (torch.zeros(2, 1), torch.tensor([0, 2]), 2, "max", r"in 0\.\.1, row 1 is 2"),
        (torch.zeros(2, 1), torch.tensor([-1, 0]), 2, "mean", r"in 0\.\.1, row 0 is -1"),
    ],
)
def test_errors_name_the_argument(values, segments, count, reduce, message):
    with pytest.raises(ValueError, match=message):
        segment_reduce(values, segments, count, reduce)


@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
def test_coarse_numbers_are_added_up_finely(device, reduce):
    values = torch.ones(1000, 2, dtype=torch.bfloat16, device=device)  # 256 + 1 is 256 to them
    out = segment_reduce(values, torch.zeros(1000, dtype=torch.int64, device=device), 1, reduce)
    assert out.dtype == torch.bfloat16
    assert (out == (1000 if reduce == "sum" else 1)).all()
