"""Real processes: killed and started again, or several ranks, they come to the same bits."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pyfastcal.evaluate import checkpoint as checkpoints
from pyfastcal.evaluate import evaluate_shards
from pyfastcal.io import Shard, find_shards, load_features, save_features

from .data import spoil, write

pytestmark = pytest.mark.usefixtures("one_thread")

CHILD = """
import os, sys, json, torch
torch.set_num_threads(1)  # no threads of torch's own, so that it can be forked
from tests.evaluate.test_processes import rerun
print("ready", flush=True)
for line in sys.stdin:
    arguments = json.loads(line)
    child = os.fork()
    if not child:
        rerun(*arguments)
        os._exit(0)
    print(child, flush=True)
    sys.stdin.readline()  # reaped when told to: until then the number is no other process's
    print(os.waitpid(child, 0)[1], flush=True)
"""


def rerun(shards: str, new: str, base: str, checkpoint: str, out: str) -> None:
    """What the child does, killed or not."""
    found = find_shards([shards])
    done = evaluate_shards(
        found, load_features(new).classes, load_features(base), ("conf", "dac"), checkpoint=checkpoint, every=0.0
    )
    Path(out).write_text(json.dumps(done.rows))


class Child:
    """A process that has imported everything, and forks one that evaluates whenever it is told to."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", CHILD]
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1, env=environment)
        assert self.process.stdout.readline() == "ready\n"

    def __call__(self, *arguments: str, kill_after: float | None = None) -> int:
        """The status the evaluation ended with."""
        self.process.stdin.write(json.dumps(arguments) + "\n")
        pid = int(self.process.stdout.readline())
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(pid, signal.SIGKILL)
        self.process.stdin.write("\n")
        return int(self.process.stdout.readline())


@pytest.fixture
def child():
    child = Child()
    yield child
    child.process.stdin.close()
    child.process.wait(timeout=20)


def test_killed_twenty_times_it_ends_with_the_same_bits(splits: tuple, tmp_path: Path, child: Child) -> None:
    new, base = splits
    write(tmp_path / "shards", new, (10,) * 110)
    files = [str(tmp_path / "shards")]
    files += [str(save_features(tmp_path / f"{n}.safetensors", f)) for n, f in (("new", new), ("base", base))]
    out = [str(tmp_path / f"{name}.json") for name in ("whole", "killed")]
    start = time.monotonic()
    assert child(*files, str(tmp_path / "whole"), out[0]) == 0
    longest = (time.monotonic() - start) / 8
    generator = torch.Generator().manual_seed(0)
    killed = 0
    for _ in range(100):
        delay = longest * float(torch.rand((), generator=generator))
        killed += child(*files, str(tmp_path / "kept"), out[1], kill_after=delay) == signal.SIGKILL
        if killed == 20:
            break
    assert killed == 20
    merged = tmp_path / "kept" / checkpoints.MERGED
    assert int(load_file(merged)["done"].sum()) > 0
    assert child(*files, str(tmp_path / "kept"), out[1]) == 0
    assert Path(out[1]).read_text() == Path(out[0]).read_text()
    assert child(*files, str(tmp_path / "kept"), out[1]) == 0
    assert [p.name for p in (tmp_path / "kept").iterdir()] == [checkpoints.MERGED]


def test_torchrun_gives_the_same_bits(splits: tuple, shards: list[Shard], tmp_path: Path) -> None:
    new, base = splits
    spoil(shards[2])
    for name, features in (("new", new), ("base", base)):
        save_features(tmp_path / f"{name}.safetensors", features)
    options = ["evaluate", str(tmp_path / "shards" / "*.safetensors"), "--base", str(tmp_path / "base.safetensors")]
    options += ["--classes", str(tmp_path / "new.safetensors"), "--methods", "all", "--skip-bad", "--json"]
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node"]
    results = []
    for ranks in ("1", "2"):
        out = tmp_path / f"{ranks}.json"
        more = ["--checkpoint", str(tmp_path / "kept")] if ranks == "2" else []
        done = subprocess.run(
            [*run, ranks, "-m", "pyfastcal", *options, str(out), *more], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("Written:") == 1 and "without 1 shard that could not be read" in done.stdout
        assert done.stderr.count("shards calibrated and measured: ") == 1
        results.append(json.loads(out.read_text()))
        del results[-1]["environment"]  # it tells the number of threads
    assert results[0] == results[1]
    assert results[0]["runs"][0]["skipped"][0]["shard"] == shards[2].name
    assert sum(load_file(tmp_path / "kept" / f"rank-{rank}.safetensors")["done"].sum() for rank in (0, 1)) == 5
