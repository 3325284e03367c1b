"""Progress on stderr, with rate and time left: bars on a terminal; elsewhere a plain line per finished step, and
one now and then while a long one goes on."""

import sys
import time
from collections.abc import Callable
from datetime import timedelta
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

from .text import printable

EVERY = 30.0  # seconds between plain lines

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
    mention. Silent unless ``shown``."""

    def __init__(self, shown: bool = True) -> None:
        self._shown = shown
        console = Console(stderr=True)
        self._plain = not console.is_terminal
        columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), _Rate()
        self._bars = bars.Progress(*columns, TimeRemainingColumn(elapsed_when_finished=True), console=console)
        self._tasks: dict[str, Any] = {}
        self._told: dict[str, float] = {}

    def __enter__(self) -> "ProgressReport":
        if self._shown and not self._plain:
            self._bars.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._shown and not self._plain:
            self._bars.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        if not self._shown:
            return
        what = printable(what)
        if self._plain:
            self._plainly(what, done, total)
            return
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total)
        self._bars.update(self._tasks[what], completed=done, total=total)

    def _plainly(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        start = self._tasks.setdefault(what, now)
        if done >= total:
            line = f"{total} in {now - start:.1f} s"
        elif done and now - self._told.get(what, start) >= EVERY:
            self._told[what] = now
            rate = done / (now - start)
            line = f"{done} of {total}, {rate:.3g}/s, {timedelta(seconds=round((total - done) / rate))} left"
        else:
            return
        print(f"{what}: {line}", file=sys.stderr, flush=True)
