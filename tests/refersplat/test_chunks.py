import pytest
import torch
from torch.testing import assert_close

from refersplat.field.chunks import map_chunks


def weigh(shared, chunk):
    weight, _ = shared
    x, y = chunk
    return torch.tanh(weight @ x) * y, (x * x).sum(dim=1, keepdim=True)


@pytest.fixture
def inputs(rng):
    weight = torch.randn(4, 4, generator=rng, dtype=torch.float64, requires_grad=True)
    unused = torch.randn(2, generator=rng, dtype=torch.float64, requires_grad=True)
    x = torch.randn(4, 10, generator=rng, dtype=torch.float64, requires_grad=True)
    y = torch.randn(4, 10, generator=rng, dtype=torch.float64)  # needs no gradient
    chunks = list(zip(x.split(3, dim=1), y.split(3, dim=1), strict=True))
    return (weight, unused), chunks, (weight, unused, x)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_same_as_one_after_the_other(inputs, threads):
    shared, chunks, leaves = inputs
    expected = [weigh(shared, chunk) for chunk in chunks]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        parallel = map_chunks(weigh, shared, chunks)
        gradients = [
            torch.autograd.grad(
                sum((one**2).sum() for pair in results for one in pair), leaves, allow_unused=True
            )
            for results in (parallel, expected)
        ]
        with torch.no_grad():
            without = map_chunks(weigh, shared, chunks)
    finally:
        torch.set_num_threads(before)
    for results in (parallel, without):
        for row, expected_row in zip(results, expected, strict=True):
            assert all(map(torch.equal, row, expected_row))
    assert not without[0][0].requires_grad
    assert gradients[0][1] is None
    assert_close(gradients[0][::2], gradients[1][::2], rtol=1e-13, atol=1e-13)


def test_gradients_do_not_depend_on_the_number_of_threads(inputs):
    shared, chunks, leaves = inputs
    gradients = []
    before = torch.get_num_threads()
    for threads in (1, 3):
        torch.set_num_threads(threads)
        total = sum(row[0].sum() for row in map_chunks(weigh, shared, chunks))
        gradients.append(torch.autograd.grad(total, leaves, allow_unused=True))
    torch.set_num_threads(before)
    assert torch.equal(gradients[0][0], gradients[1][0])
    assert torch.equal(gradients[0][2], gradients[1][2])


def test_an_error_comes_out(inputs):
    shared, chunks, _ = inputs

    def fail(shared, chunk):
        raise RuntimeError("as it should")

    with pytest.raises(RuntimeError, match="as it should"):
        map_chunks(fail, shared, chunks)


def test_the_callers_threads_stay(inputs):
    shared, chunks, _ = inputs
    before = torch.get_num_threads()
    map_chunks(weigh, shared, chunks)
    assert torch.get_num_threads() == before
