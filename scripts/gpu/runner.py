"""Runs stages one after the other, each for its share of the time, and writes down what becomes of them as it goes.

Whatever ends the run, what was there until then is in the folder: the log is written line by line, ``stages.json``
anew when a stage begins and ends.
"""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from scripts import ROOT

LEAST = 15.0  # seconds: a stage that may take longer is not begun with less
GRACE = 8.0  # seconds from the request to end to the end


@dataclass
class Stage:
    name: str
    command: list[str]
    budget: float  # seconds
    environment: dict[str, str] = field(default_factory=dict)
    skip: str = ""  # why it cannot run here
    takes_the_rest: bool = False  # of the time, if that is more than the budget
    told_the_time: bool = False  # its command is told by --budget how long it may work
    vital: bool = False  # where it fails nothing else makes sense
    wary_of: tuple[str, ...] = ()  # where one of these stages did not succeed, this one's environment is added to by
    if_wary: dict[str, str] = field(default_factory=dict)

    def line(self) -> str:
        return " ".join([*(f"{k}='{v}'" for k, v in self.environment.items()), *self.command])


@dataclass
class Outcome:
    stage: str
    result: str  # running, ok, failed, out of time, skipped, not begun
    seconds: float = 0.0
    note: str = ""

    @property
    def good(self) -> bool:
        return self.result in ("ok", "skipped")


def environment(stage: Stage) -> dict[str, str]:
    """The one that is there, with this tree first among what Python looks through."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": os.pathsep.join(paths)} | stage.environment


def run(stage: Stage, seconds: float, say: Callable[[str], object]) -> Outcome:
    """Runs a stage with all that it starts for at most ``seconds``. Then it is asked to end (as by ctrl-C, so that
    pytest writes its report), and killed if it does not."""
    if stage.skip:
        return Outcome(stage.name, "skipped", 0.0, stage.skip)
    time_to_work = max(seconds - 2 * GRACE, 1.0)
    command = [*stage.command, *(["--budget", f"{time_to_work:.0f}"] if stage.told_the_time else [])]
    begin = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(stage),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    late = threading.Event()

    def end(send: Callable[[int, int], None], number: int) -> None:
        late.set()
        with suppress(ProcessLookupError):  # it has ended since
            send(process.pid, number)

    timers = [  # the first asks only the process itself: pytest ends its workers
        threading.Timer(seconds - min(GRACE, seconds / 4), end, [os.kill, signal.SIGINT]),
        threading.Timer(seconds, end, [os.killpg, signal.SIGKILL]),
    ]
    reader = threading.Thread(target=lambda: [say(line.rstrip("\n")) for line in process.stdout], daemon=True)
    for thread in (*timers, reader):
        thread.start()
    code = process.wait()
    for timer in timers:
        timer.cancel()
    reader.join(2)  # no longer: what it started and left behind may hold the pipe open
    took = time.monotonic() - begin
    if late.is_set():
        return Outcome(stage.name, "out of time", took, f"stopped after {took:.0f} s")
    return Outcome(stage.name, "ok" if code == 0 else "failed", took, "" if code == 0 else f"exit code {code}")


class Record:
    """The folder that a run leaves: ``log.txt`` and ``stages.json`` beside what the stages write there."""

    def __init__(self, folder: Path, **facts: Any):
        self.folder, self.facts = folder, facts
        self.outcomes: list[Outcome] = []
        folder.mkdir(parents=True, exist_ok=True)
        self._log = (folder / "log.txt").open("a")

    def say(self, line: str) -> None:
        print(line, flush=True)
        print(line, file=self._log, flush=True)

    def put(self, outcome: Outcome) -> None:
        """In place of the last one, where that is of the same stage."""
        if self.outcomes and self.outcomes[-1].stage == outcome.stage:
            self.outcomes.pop()
        self.outcomes.append(outcome)
        temporary = self.folder / f"stages.{os.getpid()}.tmp"
        temporary.write_text(json.dumps(self.facts | {"stages": [asdict(o) for o in self.outcomes]}, indent=1) + "\n")
        temporary.replace(self.folder / "stages.json")


def run_all(stages: list[Stage], total: float, record: Record) -> list[Outcome]:
    end = time.monotonic() + total
    stopped = ""
    for stage in stages:
        left = end - time.monotonic()
        if bad := [o.stage for o in record.outcomes if o.stage in stage.wary_of and not o.good]:
            stage = replace(stage, environment=stage.environment | stage.if_wary)
        record.say(f"\n== {stage.name} ==\n{stage.line()}" + f"  # for {', '.join(bad)} did not succeed" * bool(bad))
        if stopped or left < min(LEAST, stage.budget):
            record.put(Outcome(stage.name, "not begun", 0.0, stopped or "no time left"))
            continue
        record.put(Outcome(stage.name, "running"))
        seconds = left if stage.takes_the_rest else min(stage.budget, left)
        outcome = run(stage, seconds, record.say)
        record.put(outcome)
        record.say(f"{stage.name}: {outcome.result} {outcome.note}".rstrip())
        if stage.vital and not outcome.good:
            stopped = f"{stage.name} did not succeed"
    return record.outcomes


def summary(outcomes: list[Outcome]) -> str:
    return "\n".join(f"{o.stage:<12}{o.result:<12}{o.seconds:6.1f} s  {o.note}".rstrip() for o in outcomes)
