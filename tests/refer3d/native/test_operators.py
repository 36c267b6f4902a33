"""Functions that PyTorch's graphs and dispatcher take for operators."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.autograd.function import once_differentiable

from refer3d.native import operator, operators, outside_graphs
from tests.emulation import emulation


def double_in_torch(x: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    return x * factor, torch.full((), 3.0)


@operator("refer3d_tests::times", reference=double_in_torch)
def times(x: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """The product, and a number that tells the kernel: 1 on the CPU, 2 on a GPU, 3 in PyTorch."""
    return torch.empty_like(x), x.new_empty((), dtype=torch.float32)


@times.cpu
def _(native, x: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(x.detach().numpy() * factor), torch.full((), native.number)


@times.cuda
def _(gpu, x: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    return x * factor, torch.full((), 2.0)


@operator("refer3d_tests::add_one", mutates=("x",))
def add_one(x: Tensor) -> None:
    return None


@add_one.cpu
def _(native, x: Tensor) -> None:
    x.add_(1)


class Times(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return times(x, factor)[0]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return times(grad, ctx.factor)[0], None


@pytest.fixture(autouse=True)
def compiled(monkeypatch):
    """A package with compiled code for float32 and float64."""

    def cpu_ops(package, device, dtype):
        return SimpleNamespace(number=1.0) if dtype in (torch.float32, torch.float64) else None

    monkeypatch.setattr(operators, "cpu_ops", cpu_ops)


def test_the_dispatcher_picks_the_kernel():
    assert times(torch.ones(2), 1.5)[1] == 1
    with emulation():
        assert times(torch.ones(2), 1.5)[1] == 2
        assert times(torch.ones(2).half(), 1.5)[1] == 3
    assert times(torch.ones(2).half(), 1.5)[1] == 3
    assert torch.equal(times(torch.ones(2), 1.5)[0], torch.full((2,), 1.5))


def test_what_has_no_kernel_is_named():
    with pytest.raises(RuntimeError, match=r"refer3d_tests\.add_one.* cpu"):
        add_one(torch.ones(2).half())


def test_gradients_are_those_of_the_function(rng):
    x = torch.randn(3, 2, generator=rng, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: Times.apply(x, 1.5), x)
    (grad,) = torch.autograd.grad(Times.apply(x, 1.5).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_pytorch_takes_it_for_an_operator(rng):
    x = torch.randn(2, 3, generator=rng)
    torch.library.opcheck(torch.ops.refer3d_tests.times.default, (x, 2.0))
    torch.library.opcheck(torch.ops.refer3d_tests.add_one.default, (x,))
    with FakeTensorMode():
        fake, _ = times(torch.empty(4, 5), 1.0)
    assert fake.shape == (4, 5)


def test_a_graph_holds_it_whole(rng):
    x = torch.randn(3, generator=rng, requires_grad=True)
    graphs = []

    def remember(graph, _):
        graphs.append(graph.print_readable(print_output=False))
        return graph.forward

    compiled = torch.compile(
        lambda t: Times.apply(t * 2, 3.0) + 1, backend=remember, fullgraph=True
    )
    assert torch.equal(compiled(x), 6 * x.detach() + 1)
    assert "refer3d_tests.times.default" in "".join(graphs)
    compiled = torch.compile(lambda t: Times.apply(t * 2, 3.0), backend="aot_eager")
    (grad,) = torch.autograd.grad(compiled(x).sum(), x)
    assert torch.equal(grad, torch.full((3,), 6.0))


def test_a_compiler_does_not_look_into_functions_outside_graphs():
    seen = []

    @outside_graphs
    def outside(x):
        seen.append(torch.compiler.is_compiling())
        return x.numpy().copy()

    compiled = torch.compile(lambda x: torch.from_numpy(outside(x + 1)) * 2, backend="eager")
    assert torch.equal(compiled(torch.ones(2)), torch.full((2,), 4.0))
    assert seen == [False]
    assert outside.__name__ == "outside"
