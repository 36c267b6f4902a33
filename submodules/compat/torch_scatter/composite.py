"""What takes several reductions: softmax, logsumexp and standard deviation of groups."""

from torch import Tensor

from torch_scatter.scatter import count_entries, scatter_max, scatter_sum
from torch_scatter.utils import broadcast, spread


def scatter_softmax(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    dim_size: int | None = None,
) -> Tensor:
    """Softmax within each group along ``dim``, in the shape of ``src``."""
    index, shifted = _shifted(src, index, dim, dim_size)
    weights = shifted.exp()
    return weights / spread(scatter_sum(weights, index, dim, None, dim_size), index, dim)


def scatter_log_softmax(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    eps: float = 1e-12,
    dim_size: int | None = None,
) -> Tensor:
    """Logarithm of the softmax within each group; ``eps`` is added to the softmax's divisor."""
    index, shifted = _shifted(src, index, dim, dim_size)
    total = scatter_sum(shifted.exp(), index, dim, None, dim_size)
    return shifted - spread((total + eps).log(), index, dim)


def scatter_logsumexp(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
    eps: float = 1e-12,
) -> Tensor:
    """Logarithm of the sum of exponentials of each group.

    Args:
        src: Floats.
        index: As of :func:`torch_scatter.scatter`.
        dim: The dimension.
        out: Takes the result in place; what it holds counts as one more entry.
        dim_size: Number of groups; the default is the largest index plus 1.
        eps: Added to the sum of exponentials that are divided by the largest.

    Returns:
        The groups along ``dim``; 0 without entries, or where all are -inf.
    """
    _check_float(src)
    index = broadcast(index, src, dim)
    start = None if out is None else out.detach().clone()
    largest = scatter_max(src.detach(), index, dim, start, dim_size)[0]
    largest = largest.masked_fill(~largest.isfinite(), 0)
    exponentials = (src - spread(largest, index, dim)).exp()
    total = scatter_sum(exponentials, index, dim, None, largest.size(dim))
    if out is not None:
        total = total + (out - largest).exp()
    result = (total + eps).log() + largest
    if out is not None:
        return out.copy_(result)
    return result.masked_fill(total == 0, 0)


def scatter_std(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
    unbiased: bool = True,
) -> Tensor:
    """Standard deviation of each group.

    Args:
        src: Floats.
        index: As of :func:`torch_scatter.scatter`.
        dim: The dimension.
        out: Squares are added to it; the result is another tensor.
        dim_size: Number of groups; the default is the largest index plus 1.
        unbiased: Divides by one less than the number of entries, at least 1. As in torch_scatter,
            1e-6 is added to the divisor.
    """
    _check_float(src)
    if out is not None:
        dim_size = out.size(dim)
    total = scatter_sum(src, index, dim, None, dim_size)
    counts = count_entries(src, index, dim, total)
    index = broadcast(index, src, dim)
    squares = (src - spread(total / counts, index, dim)).square()
    squares = scatter_sum(squares, index, dim, out, total.size(dim))
    divisor = (counts - 1).clamp(min=1) if unbiased else counts
    return (squares / (divisor + 1e-6)).sqrt()


def _shifted(
    src: Tensor,
    index: Tensor,
    dim: int,
    dim_size: int | None,
) -> tuple[Tensor, Tensor]:
    """The index in the shape of ``src``, and ``src`` minus its group's maximum."""
    _check_float(src)
    largest = scatter_max(src.detach(), index, dim, None, dim_size)[0]
    index = broadcast(index, src, dim)
    return index, src - spread(largest, index, dim)


def _check_float(src: Tensor) -> None:
    if not src.is_floating_point():
        raise ValueError(f"src must be of floats, got {src.dtype}; convert it by .float()")
