"""The names of torch_scatter, against loops over single entries."""

import itertools
import math

import pytest
import torch
from torch.testing import assert_close

import torch_scatter
from detailbase.ops import segment_reduce
from tests.errors import raises
from torch_scatter.utils import broadcast

pytestmark = pytest.mark.filterwarnings("ignore:.*jit.script:DeprecationWarning")
REDUCTIONS = ["sum", "add", "mul", "mean", "min", "max"]
SHAPES = {
    "vector": ([9], [9], 0),
    "rows": ([9, 3], [9], 0),
    "rows, negative": ([9, 3], [9], -2),
    "columns": ([2, 9], [9], -1),
    "own index": ([3, 9], [3, 9], 1),
    "index of the first dimensions": ([3, 9, 2], [3, 9], 1),
    "one index for all rows": ([3, 9, 2], [1, 9], 1),
    "dimension of size 1": ([2, 1, 9, 2], [2, 1, 9, 1], 2),
    "one group for all": ([2, 9], [1], 1),
}
"""Shapes of entries and of index, and the dimension."""
ENTRIES = {torch.float64: 1e-15, torch.float32: 1e-6, torch.int64: 0, torch.int32: 0}


def entries(shape, dtype):
    """Small numbers that repeat, so that extrema are reached several times."""
    values = (torch.arange(math.prod(shape)) * 7 % 5 - 2).view(shape).to(dtype)
    return values + 0.5 if dtype.is_floating_point else values


def groups(shape):
    """Groups 0, 1 and 3; none is 2."""
    return torch.tensor([0, 1, 3, 1, 0, 0, 3, 1, 1])[
        torch.arange(math.prod(shape)).view(shape) * 4 % 9
    ]


def by_loops(src, index, dim, count, reduce, out=None):
    """Values and places of each group, from Python numbers."""
    dim %= src.dim()
    if index.dim() == 1:
        index = index.view([1] * dim + [-1])
    index = index.view([*index.shape] + [1] * (src.dim() - index.dim())).expand(src.shape)
    shape = [*src.shape]
    shape[dim] = count
    members = {place: [] for place in itertools.product(*map(range, shape))}
    for at in itertools.product(*map(range, src.shape)):
        group = (*at[:dim], int(index[at]), *at[dim + 1 :])
        members[group].append((src[at].item(), at[dim]))
    values = torch.zeros(shape, dtype=src.dtype)
    places = torch.full(shape, src.shape[dim])
    for group, found in members.items():
        given = [] if out is None else [(out[group].item(), src.shape[dim])]
        numbers = [number for number, _ in given + found]
        if reduce in ("sum", "add"):
            values[group] = sum(numbers)
        elif reduce == "mul":
            values[group] = math.prod(numbers)
        elif reduce == "mean":
            total, size = sum(numbers), max(len(found), 1)
            values[group] = total / size if src.is_floating_point() else total // size
        elif numbers:  # the first of equal ones, what out holds before all
            choose = min if reduce == "min" else max
            values[group], places[group] = choose(given + found, key=lambda pair: pair[0])
    return values, places


def call(reduce, *arguments):
    """Values, and places or None."""
    result = getattr(torch_scatter, f"scatter_{reduce}")(*arguments)
    return result if isinstance(result, tuple) else (result, None)


@pytest.mark.parametrize("dtype", ENTRIES)
@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_equals_loops(device, reduce, dtype):
    for shape in SHAPES:
        check_equals_loops(device, reduce, shape, dtype)


def check_equals_loops(device, reduce, shape, dtype):
    size, index_size, dim = SHAPES[shape]
    src, index = entries(size, dtype), groups(index_size)
    count = int(index.max()) + 1
    wanted, wanted_places = by_loops(src, index, dim, count, reduce)
    src, index = src.to(device), index.to(device)
    got, places = call(reduce, src, index, dim)
    assert_close(got.cpu(), wanted, rtol=ENTRIES[dtype], atol=0)
    assert torch.equal(torch_scatter.scatter(src, index, dim, None, None, reduce), got)
    if places is not None:
        assert torch.equal(places.cpu(), wanted_places)


@pytest.mark.parametrize("dtype", ENTRIES)
@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_out_takes_part(device, reduce, dtype):
    for shape in SHAPES:
        check_out_takes_part(device, reduce, shape, dtype)


def check_out_takes_part(device, reduce, shape, dtype):
    size, index_size, dim = SHAPES[shape]
    src, index = entries(size, dtype), groups(index_size)
    size = [*size]
    size[dim] = 5
    out = entries(size, dtype) // 2 * 2
    wanted, wanted_places = by_loops(src, index, dim, 5, reduce, out)
    out = out.to(device)
    got, places = call(reduce, src.to(device), index.to(device), dim, out)
    assert got.data_ptr() == out.data_ptr()
    assert_close(out.cpu(), wanted, rtol=ENTRIES[dtype], atol=0)
    if places is not None:
        assert torch.equal(places.cpu(), wanted_places)


@pytest.mark.parametrize("shape", ["rows", "own index", "index of the first dimensions"])
@pytest.mark.parametrize("reduce", ["sum", "mul", "mean", "min", "max"])
def test_gradients_match_finite_differences(rng, reduce, shape):
    size, index_size, dim = SHAPES[shape]
    src = torch.randn(size, generator=rng, dtype=torch.float64).requires_grad_()
    index = groups(index_size)
    assert torch.autograd.gradcheck(
        lambda x: torch_scatter.scatter(x, index, dim, reduce=reduce), (src,)
    )


@pytest.mark.parametrize("reduce", ["min", "max"])
def test_the_first_of_equal_extrema_gets_the_gradient(device, reduce):
    for src in (torch.zeros(3, device=device), torch.zeros(3, 1, device=device)):
        src.requires_grad_()
        index = torch.zeros(3, dtype=torch.int64, device=device)
        torch_scatter.scatter(src, index, 0, reduce=reduce).sum().backward()
        assert src.grad.flatten().tolist() == [1, 0, 0]


def test_groups_follow_dim_size(device):
    index = torch.tensor([1, 0], device=device)
    for reduce in REDUCTIONS:
        got, places = call(reduce, torch.ones(2, 3, device=device), index, 0, None, 4)
        assert got.shape == (4, 3)
        assert (got[2:] == (reduce == "mul")).all()
        assert places is None or (places[2:] == 2).all()


def test_extrema_of_no_number_and_of_infinities(device):
    src = torch.tensor([1, math.nan, -math.inf, -math.inf], device=device)
    index = torch.tensor([0, 0, 1, 1], device=device)
    for entries_of in (src, src[:, None]):
        values, places = torch_scatter.scatter_max(entries_of, index, 0)
        assert values.flatten()[0].isnan()
        assert values.flatten()[1] == -math.inf
        assert places.flatten().tolist() == [1, 2]


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_nothing_at_all(device, reduce):
    empty = torch.zeros(0, dtype=torch.int64, device=device)
    src = torch.zeros(0, 3, device=device, requires_grad=True)
    assert torch_scatter.scatter(src, empty, 0, reduce=reduce).shape == (0, 3)
    groups = torch_scatter.scatter(src, empty, 0, dim_size=2, reduce=reduce)
    assert groups.tolist() == [[float(reduce == "mul")] * 3] * 2
    groups.sum().backward()
    if reduce != "mul":
        indptr = torch.zeros(3, dtype=torch.int64, device=device)
        assert torch_scatter.segment_csr(src, indptr, reduce=reduce).tolist() == [[0] * 3] * 2


COO = {
    "vector": ([6], [0, 0, 1, 1, 1, 3], [0, 2, 5, 5, 6]),
    "rows": ([6, 2], [0, 0, 1, 1, 1, 3], [0, 2, 5, 5, 6]),
    "own boundaries": (
        [2, 6],
        [[0, 0, 1, 1, 1, 3], [0, 0, 0, 1, 1, 2]],
        [[0, 2, 5, 5, 6], [0, 3, 5, 6, 6]],
    ),
    "boundaries of several": ([3, 6, 2], [[0, 0, 1, 1, 1, 3]], [[0, 2, 5, 5, 6]]),
}


@pytest.mark.parametrize("shape", COO)
@pytest.mark.parametrize("reduce", ["sum", "add", "mean", "min", "max"])
def test_segments_equal_loops(device, reduce, shape):
    for dtype in ENTRIES:
        check_segments_equal_loops(device, reduce, shape, dtype)


def check_segments_equal_loops(device, reduce, shape, dtype):
    size, index, indptr = COO[shape]
    src, index, indptr = entries(size, dtype), torch.tensor(index), torch.tensor(indptr)
    dim = index.dim() - 1
    wanted, wanted_places = by_loops(src, index, dim, 4, reduce)
    for name, groups in (("csr", indptr), ("coo", index), ("csr", indptr.int())):
        function = getattr(torch_scatter, f"segment_{reduce}_{name}")
        if groups.dtype == torch.int32 and name == "coo":
            continue
        result = function(src.to(device), groups.to(device))
        got, places = result if isinstance(result, tuple) else (result, None)
        assert_close(got.cpu(), wanted, rtol=ENTRIES[dtype], atol=0)
        if places is not None:
            assert torch.equal(places.cpu(), wanted_places)
    general = torch_scatter.segment_coo(src.to(device), index.to(device), None, 4, reduce)
    assert_close(general.cpu(), wanted, rtol=ENTRIES[dtype], atol=0)
    out = torch.full_like(wanted, 7).to(device)
    torch_scatter.segment_csr(src.to(device), indptr.to(device), out, reduce)
    assert_close(out.cpu(), wanted, rtol=ENTRIES[dtype], atol=0)


def test_entries_outside_of_the_boundaries_are_in_no_segment(device):
    src = torch.arange(5.0, device=device)
    indptr = torch.tensor([1, 3, 4], device=device)
    assert torch_scatter.segment_csr(src, indptr).tolist() == [3, 3]


@pytest.mark.parametrize("shape", COO)
def test_gather_spreads_groups(device, shape):
    size, index, indptr = COO[shape]
    index, indptr = (torch.tensor(x, device=device) for x in (index, indptr))
    dim = index.dim() - 1
    size = [*size]
    size[dim] = 4
    src = entries(size, torch.float64).to(device).requires_grad_()
    at = broadcast(index, torch.zeros([*size[:dim], 6, *size[dim + 1 :]]), dim)
    wanted = src.gather(dim, at)
    for got in (torch_scatter.gather_csr(src, indptr), torch_scatter.gather_coo(src, index)):
        assert torch.equal(got, wanted)
        (gradient,) = torch.autograd.grad(got.square().sum(), src)
        assert_close(gradient, torch.autograd.grad(wanted.square().sum(), src)[0])
        wanted = src.gather(dim, at)
    out = torch.zeros_like(wanted)
    torch_scatter.gather_csr(src.detach(), indptr, out)
    assert torch.equal(out, wanted)


@pytest.mark.parametrize("shape", SHAPES)
def test_composites_equal_those_of_each_group(rng, device, shape):
    size, index_size, dim = SHAPES[shape]
    src = torch.randn(size, generator=rng, dtype=torch.float64)
    index = broadcast(groups(index_size), src, dim)
    by_group = src.movedim(dim, -1), index.movedim(dim, -1)
    columns = [x.reshape(-1, src.shape[dim]) for x in by_group]
    softmax, shape = torch.zeros_like(columns[0]), (len(columns[0]), 5)
    logsumexp, std = (torch.zeros(shape, dtype=torch.float64) for _ in range(2))
    for row, (values, at) in enumerate(zip(*columns, strict=True)):
        for group in at.unique():
            members = values[at == group]
            softmax[row, at == group] = members.softmax(dim=0)
            logsumexp[row, group] = members.logsumexp(dim=0)
            std[row, group] = members.std() if len(members) > 1 else 0
    restore = [*by_group[0].shape]
    softmax = softmax.view(restore).movedim(-1, dim)
    restore[-1] = 5
    logsumexp, std = (x.view(restore).movedim(-1, dim) for x in (logsumexp, std))
    src, index = src.to(device).requires_grad_(), groups(index_size).to(device)
    got = torch_scatter.scatter_softmax(src, index, dim)
    assert_close(got.detach().cpu(), softmax, rtol=1e-14, atol=0)
    got = torch_scatter.scatter_log_softmax(src, index, dim)
    assert_close(got.detach().cpu(), softmax.log(), rtol=0, atol=1e-11)  # eps is 1e-12
    got = torch_scatter.scatter_logsumexp(src, index, dim, dim_size=5)
    assert_close(got.detach().cpu(), logsumexp, rtol=0, atol=1e-11)
    got = torch_scatter.scatter_std(src.detach(), index, dim, dim_size=5)
    assert_close(got.cpu(), std, rtol=1e-6, atol=0)  # 1e-6 is added to the divisor


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp", "std"])
def test_gradients_of_composites_match_finite_differences(rng, name):
    src = torch.randn(9, 2, generator=rng, dtype=torch.float64).requires_grad_()
    function = getattr(torch_scatter, f"scatter_{name}")
    assert torch.autograd.gradcheck(lambda x: function(x, groups([9]), 0), (src,))


def test_composites_of_groups_with_infinities(device):
    src = torch.tensor([0.5, -math.inf, -math.inf, 2], device=device)
    index = torch.tensor([0, 0, 1, 3], device=device)
    assert torch_scatter.scatter_softmax(src, index)[[0, 1, 3]].tolist() == [1, 0, 1]
    assert torch_scatter.scatter_logsumexp(src, index).tolist() == [0.5, 0, 0, 2]
    out = torch.tensor([0.5, 1, 2, 3], device=device)
    torch_scatter.scatter_logsumexp(src[:1], index[:1], out=out)
    assert_close(out, torch.tensor([0.5 + math.log(2), 1, 2, 3], device=device))


@pytest.mark.parametrize("name", [n for n in torch_scatter.__all__])
def test_can_be_scripted(name):
    function = getattr(torch_scatter, name)
    src, index = torch.arange(6.0).view(3, 2), torch.tensor([0, 0, 2])
    if name.endswith("csr"):
        index = torch.tensor([0, 1, 3]) if name != "gather_csr" else torch.tensor([0, 1, 3, 3])
    arguments = (src, index, 0) if name.startswith("scatter") else (src, index)
    got, wanted = torch.jit.script(function)(*arguments), function(*arguments)
    assert_close(got, wanted, rtol=0, atol=0)


def test_as_spformer_pools_superpoints(rng, device):
    """Features of points and voxels to superpoints, and those back to points."""
    features = torch.randn(60, 8, generator=rng).to(device).requires_grad_()
    superpoints = torch.randint(0, 7, (60,), generator=rng).to(device)
    pooled = torch_scatter.scatter_mean(features, superpoints, dim=0)
    wanted = segment_reduce(features, superpoints, int(superpoints.max()) + 1, "mean")
    assert_close(pooled, wanted)
    slopes = torch.randn(60, 8, generator=rng).to(device)
    got, wanted = (
        torch.autograd.grad((x[superpoints] * slopes).sum(), features)[0] for x in (pooled, wanted)
    )
    assert_close(got, wanted)
    masks = torch.randint(0, 2, (3, 60), generator=rng).float().to(device)
    votes = torch_scatter.scatter_mean(masks, superpoints, dim=-1) > 0.5
    assert votes[:, superpoints].shape == masks.shape


def test_a_module_of_graph_networks_can_be_scripted():
    class MaxOfNeighbours(torch.nn.Module):
        def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
            messages = x.index_select(0, edges[0])
            return torch_scatter.scatter(
                messages, edges[1], dim=0, dim_size=x.size(0), reduce="max"
            )

    x, edges = torch.tensor([[1.0], [5], [3]]), torch.tensor([[0, 1, 2], [1, 2, 1]])
    model = torch.jit.script(MaxOfNeighbours())
    assert model(x, edges).tolist() == [[0], [3], [5]]


@pytest.mark.parametrize(
    ("function", "arguments", "names"),
    [
        ("scatter", ([3], torch.zeros(3)), ("index", "int64", "long")),
        ("scatter", ([3], torch.zeros(2).long()), ("index", "[3]", "[2]")),
        ("scatter", ([3, 2], torch.zeros(2, 2).long()), ("index", "[3, 2]", "[2, 2]")),
        ("scatter", ([3], torch.zeros(3).long(), 1), ("dim", "-1..0", 1)),
        ("scatter", ([3], torch.tensor([0, 1, 2]), 0, None, 2), ("index", "0..1", "dim_size")),
        ("scatter_max", ([3, 2], torch.tensor([0, -1, 2]), 0), ("index", "-1..2")),
        ("scatter", ([3], torch.zeros(3).long(), 0, None, None, "div"), ("reduce", "div")),
        ("gather_csr", ([3], torch.tensor([0, 2])), ("src", "indptr", 1, 3)),
        ("gather_csr", ([1], torch.tensor([1, 2])), ("indptr", 0)),
    ],
)
def test_errors_name_the_argument(function, arguments, names):
    shape, *rest = arguments
    with raises(ValueError, *names):
        getattr(torch_scatter, function)(torch.zeros(shape), *rest)
    if function.startswith("scatter") and "softmax" not in function:
        with raises(ValueError, "src"):
            torch_scatter.scatter_softmax(torch.zeros(3).long(), torch.zeros(3).long())
