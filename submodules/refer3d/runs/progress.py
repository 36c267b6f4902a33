"""Progress bar and TensorBoard log of a run."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType

import psutil
from tqdm import tqdm

from refer3d.runs.ranks import rank

SECONDS_BETWEEN_LINES = 30.0
"""Interval of the lines if the output is no terminal."""


class Progress:
    """Bar with the latest numbers, the memory in use and the time left.

    With a folder ``events``, the numbers also go to TensorBoard's event files there. Of several
    processes, the first shows the bar and writes.
    """

    def __init__(
        self, label: str, total: int, start: int = 0, events: Path | str | None = None
    ) -> None:
        interactive = sys.stderr.isatty()
        self.done = start
        """Number of steps so far."""
        self._bar = tqdm(
            total=total,
            initial=start,
            desc=label,
            disable=rank() > 0,
            dynamic_ncols=interactive,
            mininterval=0.2 if interactive else SECONDS_BETWEEN_LINES,
        )
        self._process = psutil.Process()
        self._writer = None
        if events is not None and not rank():
            from torch.utils.tensorboard import SummaryWriter  # slow to import

            self._writer = SummaryWriter(str(events), purge_step=start)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()
        if self._writer is not None:
            self._writer.close()

    def advance(self, steps: int = 1) -> None:
        """Moves the bar."""
        self.done += steps
        self._bar.update(steps)

    def report(self, step: int, group: str = "", **numbers: float) -> None:
        """Shows the latest ``numbers`` and logs them at ``step`` as ``<group>/<name>``.

        The default group is the bar's label.
        """
        shown = {name: f"{value:.4g}" for name, value in numbers.items()}
        shown["memory"] = f"{self._process.memory_info().rss / 2**30:.1f} GiB"
        self._bar.set_postfix(shown, refresh=False)
        if self._writer is not None:
            for name, value in numbers.items():
                self._writer.add_scalar(f"{group or self._bar.desc}/{name}", value, step)
