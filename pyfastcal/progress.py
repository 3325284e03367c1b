"""Progress on stderr: bars with rate and time left on a terminal, one plain line per finished step
elsewhere."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from rich import progress as bars
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

Progress = Callable[[str, int, int], None]  # what is being done, steps done, steps in all


class Steps:
    """Counts its calls, whatever they are called with, towards ``total`` and tells ``progress`` of each."""

    def __init__(self, progress: Progress | None, what: str, total: int) -> None:
        self.progress, self.what, self.done, self.total = progress or (lambda *_: None), what, 0, total
        self.progress(what, 0, total)

    def __call__(self, *_: object) -> None:
        self.done += 1
        self.progress(self.what, self.done, self.total)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f}/s", style="progress.data.speed")


class ProgressReport:
    """A context manager, called as ``progress(what, done, total)``; ``what`` names a bar, made at first
    mention."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._plain = not console.is_terminal
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate()
        self._bars = bars.Progress(*columns, TimeRemainingColumn(elapsed_when_finished=True), console=console)
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> "ProgressReport":
        if not self._plain:
            self._bars.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self._plain:
            self._bars.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        if self._plain:
            start = self._tasks.setdefault(what, time.monotonic())
            if done >= total:
                print(f"{what}: {total} in {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)
            return
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total)
        self._bars.update(self._tasks[what], completed=done, total=total)
