import pytest
import torch

from refer3d.native import as_array, check_same, check_shape
from tests.errors import raises


@pytest.mark.parametrize("shape", [(3, 2), (3,), (1, 3, 3)])
def test_another_shape_is_named(shape):
    with raises(ValueError, "conics", "[*, 3]", list(shape)):
        check_shape("conics", torch.zeros(shape), (None, 3))


def test_free_sizes_are_free():
    check_shape("conics", torch.zeros(0, 3), (None, 3))
    check_shape("conics", torch.zeros(7, 3), (7, 3))


def test_another_dtype_is_named():
    check_same("conics", torch.zeros(1), "means2d", torch.ones(2))
    with raises(ValueError, "conics", "means2d", "float32", "float64"):
        check_same("conics", torch.zeros(1, dtype=torch.float64), "means2d", torch.zeros(1))


def test_an_array_shares_the_tensors_memory():
    tensor = torch.zeros(2, 3, requires_grad=True)
    as_array(tensor)[1, 2] = 5
    assert tensor[1, 2] == 5
    assert as_array(tensor.T).flags.c_contiguous
