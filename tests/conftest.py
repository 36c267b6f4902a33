"""Fixtures of all tests."""

from collections.abc import Callable, Iterator

import hypothesis
import pytest
import torch

from refer3d.native import loader

# The same examples on every run: a red test must be red again when someone looks.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def without_compiled_ops(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Returns a function after whose call ops run without compiled code."""

    def forget() -> None:
        monkeypatch.setenv("REFER3D_BACKEND", "reference")
        loader.load.cache_clear()

    yield forget
    loader.load.cache_clear()


@pytest.fixture(params=["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)
