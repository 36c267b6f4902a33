"""Functions that PyTorch's graphs and gradients take for operators."""

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from refer3d.native import operator
from tests.errors import raises


@operator("refer3d_tests::times")
def times(one: Tensor, other: Tensor | None, factor: float) -> tuple[Tensor, Tensor]:
    product = one.detach().numpy() * factor  # what no graph could look into
    product = torch.from_numpy(product)
    return product if other is None else product * other, one.sum()


@times.register_fake
def _(one: Tensor, other: Tensor | None, factor: float) -> tuple[Tensor, Tensor]:
    return torch.empty_like(one), one.new_empty(())


def keep(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:2])
    ctx.factor = inputs[2]
    ctx.mark_non_differentiable(output[1])


def backward(ctx, grad, _):
    one, other = ctx.saved_tensors
    needs = ctx.needs_input_grad
    grad_one = grad * ctx.factor * (1 if other is None else other) if needs[0] else None
    return grad_one, grad * ctx.factor * one if needs[1] else None, None


times.register_autograd(backward, setup_context=keep)


@operator("refer3d_tests::halved")
def halved(x: Tensor) -> Tensor:
    return x / 2


@operator("refer3d_tests::squared")
def squared(x: Tensor) -> Tensor:
    return x * x


squared.register_autograd(
    lambda ctx, grad: 4 * grad * halved(*ctx.saved_tensors),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
)


@pytest.mark.parametrize("needed", [(True, True), (True, False), (False, True)])
def test_gradients_go_to_what_needs_them(rng, needed):
    leaves = [
        torch.randn(3, 2, generator=rng, dtype=torch.float64).requires_grad_(is_needed)
        for is_needed in needed
    ]
    assert torch.autograd.gradcheck(lambda *x: times(*x, 1.5)[0], leaves)
    with torch.no_grad():
        assert not times(*leaves, 1.5)[0].requires_grad
    assert not times(leaves[0].detach(), leaves[1].detach(), 1.5)[0].requires_grad


def test_an_operand_may_be_absent(rng):
    x = torch.randn(3, generator=rng, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: times(x, None, 1.5)[0], x)


def test_the_backward_pass_of_an_operator_without_gradients_is_an_error():
    x = torch.ones(2, requires_grad=True)
    half = halved(x)
    assert torch.equal(half, torch.full((2,), 0.5))
    with raises(RuntimeError, "refer3d_tests::halved", "gradients"):
        half.sum().backward()
    # Also where gradients of gradients would be missed otherwise.
    (grad,) = torch.autograd.grad(squared(x).sum(), x, create_graph=True)
    assert torch.equal(grad, 2 * x)
    with raises(RuntimeError, "refer3d_tests::halved", "gradients"):
        grad.sum().backward()


def test_a_module_of_operators_may_be_loaded_again(rng):
    before = operator("refer3d_tests::loaded")(add_one)
    after = operator("refer3d_tests::loaded")(add_one)
    x = torch.randn(3, generator=rng)
    assert torch.equal(after(x), x + 1)
    assert before is not after


def add_one(x: Tensor) -> Tensor:
    return x + 1


def test_gradients_are_named_after_their_operator():
    assert "times" in times(torch.ones(1, requires_grad=True), None, 1.0)[0].grad_fn.name()


def test_pytorch_takes_it_for_an_operator(rng):
    x, y = torch.randn(2, 3, 2, generator=rng).unbind()
    torch.library.opcheck(
        torch.ops.refer3d_tests.times.default, (x.requires_grad_(), y.requires_grad_(), 2.0)
    )
    with FakeTensorMode():
        fake, _ = times(torch.empty(4, 5), None, 1.0)
    assert fake.shape == (4, 5)


def test_a_graph_holds_it_whole(rng):
    x = torch.randn(3, generator=rng, requires_grad=True)
    graphs = []

    def remember(graph, _):
        graphs.append([str(node.target) for node in graph.graph.nodes])
        return graph.forward

    compiled = torch.compile(
        lambda t: times(t * 2, t, 3.0)[0] + 1, backend=remember, fullgraph=True
    )
    assert torch.equal(compiled(x), 6 * x.detach() * x + 1)
    assert "refer3d_tests.times.default" in graphs[0]
