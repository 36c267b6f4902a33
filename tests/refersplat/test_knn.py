import importlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from torch.testing import assert_close

from refer3d import native
from refer3d.native import operators
from refer3d.native.loader import runnable_variants
from refersplat.ops import reference
from refersplat.ops.knn import knn


def cloud(rng, count, dtype=torch.float32, device="cpu"):
    return torch.randn(count, 3, generator=rng, dtype=dtype).to(device)


@pytest.mark.parametrize(
    ("dtype", "queries", "points", "k"),
    [
        (torch.float32, 0, 5, 2),
        (torch.float64, 1, 1, 1),
        (torch.float32, 3, 7, 0),
        (torch.float32, 1800, 1000, 5),
        (torch.float64, 200, 1400, 9),
    ],
)
def test_matches_reference(rng, device, dtype, queries, points, k):
    queries = cloud(rng, queries, dtype, device)
    points = cloud(rng, points, dtype, device)
    distances, indices = knn(queries, points, k)
    expected_distances, expected_indices = reference.knn(queries, points, k)
    # Three squares are summed, with or without fused products; measured worst 1.2e-7 relative.
    assert_close(distances, expected_distances, rtol=6e-7, atol=0)
    assert torch.equal(indices, expected_indices)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_brute_force_on_any_points(dtype):
    # Few distinct coordinates give duplicates, ties, lines and planes; squares are exact.
    grid = st.sampled_from([-2.0, -1.0, 0.0, 1.0, 3.0, 64.0])

    @given(
        points=arrays.arrays(dtype, st.tuples(st.integers(1, 60), st.just(3)), elements=grid),
        queries=arrays.arrays(dtype, st.tuples(st.integers(1, 9), st.just(3)), elements=grid),
        k=st.integers(1, 60),
    )
    def check(points, queries, k):
        k = min(k, len(points))
        distances, indices = knn(torch.from_numpy(queries), torch.from_numpy(points), k)
        squared = ((queries[:, None] - points) ** 2).sum(axis=2)
        expected = np.argsort(squared, axis=1, kind="stable")[:, :k]
        np.testing.assert_array_equal(indices.numpy(), expected)
        np.testing.assert_array_equal(
            distances.numpy(), np.take_along_axis(squared, expected, axis=1)
        )

    check()


def test_gradients_match_reference(rng, device):
    queries = cloud(rng, 40, torch.float64, device).requires_grad_()
    points = cloud(rng, 30, torch.float64, device).requires_grad_()
    weights = cloud(rng, 40, torch.float64, device)
    got, want = (
        torch.autograd.grad((op(queries, points, 3)[0] * weights).sum(), (queries, points))
        for op in (knn, reference.knn)
    )
    for name, one, other in zip(["queries", "points"], got, want, strict=True):
        assert other.abs().max() > 0, name
        # A few terms of order 1 in float64, added in another order; measured worst 9e-16.
        assert_close(one, other, rtol=1e-14, atol=5e-15)


def test_gradients_match_finite_differences(rng):
    queries = cloud(rng, 4, torch.float64).requires_grad_()
    points = cloud(rng, 6, torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda q, p: knn(q, p, 2)[0], (queries, points))


def test_operator_is_registered_correctly(rng, device):
    points = cloud(rng, 12, device=device)
    torch.library.opcheck(torch.ops.refersplat.knn.default, (points, points + 1, 3))


def test_known_answer():
    points = torch.tensor([[0.0, 0, 0], [3, 0, 0], [0, 1, 0], [0, 0, -2]])
    distances, indices = knn(torch.tensor([[1.0, 0, 0]]), points, 3)
    assert distances.tolist() == [[1, 2, 4]]
    assert indices.tolist() == [[0, 2, 1]]


@pytest.mark.parametrize("variant", runnable_variants())
def test_every_variant_gives_the_same(rng, variant):
    module = importlib.import_module(f"refersplat._cpu_{variant}")
    points = cloud(rng, 5000)
    expected_distances, expected_indices = reference.knn(points[:100], points, 7)
    distances, indices = torch.empty(100, 7), torch.empty(100, 7, dtype=torch.int64)
    module.knn(points[:100].numpy(), points.numpy(), 2, distances.numpy(), indices.numpy())
    assert_close(distances, expected_distances, rtol=6e-7, atol=0)
    assert torch.equal(indices, expected_indices)


def test_does_not_depend_on_threads(rng, monkeypatch):
    points = cloud(rng, 20_000)
    expected = knn(points, points, 4)
    for threads in (1, 3, 8):
        monkeypatch.setattr(operators, "num_threads", lambda threads=threads: threads)
        assert all(map(torch.equal, knn(points, points, 4), expected))


def test_can_be_called_from_several_threads_at_once(rng):
    points = cloud(rng, 20_000)
    expected = knn(points, points, 4)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: knn(points, points, 4), range(12)):
            assert all(map(torch.equal, found, expected))


@pytest.mark.slow
def test_works_in_a_forked_process():
    """As data workers are: none of the parent's threads are in the child."""
    script = """
import os, torch
from refersplat.ops.knn import knn
points = torch.rand(20_000, 3)
expected = knn(points, points, 4)
if (child := os.fork()) == 0:
    os._exit(not all(map(torch.equal, knn(points, points, 4), expected)))
assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


# 200 000 points each: without care for such clouds a search visits them all, and this takes hours.
@pytest.mark.parametrize("kind", ["duplicates", "line", "cluster far from an outlier"])
def test_uneven_clouds_are_searched_quickly(rng, kind):
    points = cloud(rng, 200_000)
    if kind == "duplicates":
        points[:] = 1
    elif kind == "line":
        points[:, 1:] = 0
    else:
        points *= 1e-4
        points[-1] = 1e6
    distances, indices = knn(points, points, 3)
    some = torch.randint(len(points), (20,), generator=rng)
    expected_distances, expected_indices = reference.knn(points[some], points, 3)
    assert_close(distances[some], expected_distances, rtol=6e-7, atol=0)
    assert torch.equal(indices[some], expected_indices)


def test_squares_that_overflow_are_still_neighbours():
    points = torch.tensor([[3e30, 0, 0], [-3e30, 0, 0], [0, 3e30, 0]])
    distances, indices = knn(torch.zeros(1, 3), points, 2)
    assert distances.tolist() == [[float("inf")] * 2]
    assert indices.tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("queries", "points", "k", "message"),
    [
        (
            torch.zeros(2, 2),
            torch.zeros(2, 3),
            1,
            r"queries must have shape \[\*, 3\], got \[2, 2\]",
        ),
        (torch.zeros(2, 3), torch.zeros(3), 1, r"points must have shape \[\*, 3\], got \[3\]"),
        (torch.zeros(2, 3), torch.zeros(2, 3), 3, "k must lie between 0 and .* points, 2, got 3"),
        (torch.zeros(2, 3), torch.zeros(2, 3), -1, "got -1"),
        (
            torch.zeros(2, 3),
            torch.zeros(2, 3, dtype=torch.float64),
            1,
            r"points must match queries \(cpu, float32\), got cpu, float64",
        ),
        (
            torch.zeros(2, 3, dtype=torch.int32),
            torch.zeros(2, 3, dtype=torch.int32),
            1,
            "queries must be float32 or float64, got int32",
        ),
        (torch.zeros(2, 3), torch.full((2, 3), torch.nan), 1, "points must be finite"),
        (torch.full((2, 3), torch.inf), torch.zeros(2, 3), 1, "queries must be finite"),
    ],
)
def test_errors_name_the_argument(queries, points, k, message):
    with pytest.raises(ValueError, match=message):
        knn(queries, points, k)


def test_compiled_code_is_used():
    assert native.backend("refersplat").startswith("cpu-")


def test_large_coordinates_are_finite_one_by_one():
    points = torch.tensor([[2e38, 2e38, 0.0], [0.0, 0.0, 0.0]])
    _, indices = knn(torch.tensor([[2e38, 2e38, 1.0]]), points, 1)
    assert indices.tolist() == [[0]]
