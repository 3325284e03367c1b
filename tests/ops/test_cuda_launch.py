"""What only a fresh process shows: kernels launched for the first time within a graph's capture, and calls whose need
of shared memory grows or shrinks from one to the next, on one host thread or several."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ..devices import needs_gpu

ROOT = Path(__file__).resolve().parents[2]
SETUP = """
import torch, threading
import pyfastcal as fc
from pyfastcal import ops
from tests.devices import moved
from tests.ops.test_compile import FUNCTIONS

def bins(n, n_bins):
    x = torch.rand(n, generator=torch.Generator().manual_seed(n))
    return lambda device: fc.bin_counts(x.to(device), (x > 0.4).to(device), n_bins)

def similarity(dim):
    x = torch.randn(700, dim, generator=torch.Generator().manual_seed(dim)).bfloat16()
    return lambda device: ops.similarity(x.to(device), x.to(device))

def same(call, exactly):
    tolerance = dict(rtol=0, atol=0) if exactly else dict(rtol=0, atol=2e-6)
    torch.testing.assert_close(moved("cpu", call("cuda")), call("cpu"), **tolerance)
"""


def run_afresh(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SETUP + textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_gpu
@pytest.mark.parametrize("mode", ["global", "thread_local"])
def test_first_launches_within_a_capture(mode):
    run_afresh(f"""
        for name, (function, arguments) in FUNCTIONS.items():
            inputs = moved("cuda", arguments(40))
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, capture_error_mode={mode!r}):
                out = function(*inputs)
            graph.replay()
            torch.testing.assert_close(out, function(*inputs), rtol=0, atol=0, msg=name)
    """)


@needs_gpu
@pytest.mark.parametrize(
    "calls",
    [
        "(bins(70_000, 1), True), (bins(500, 10), True)",
        "(bins(500, 10), True), (bins(70_000, 300), True), (bins(70_000, 1), True), (bins(500, 300), True)",
        "(similarity(512), False), (similarity(256), False), (similarity(512), False)",
        "(similarity(256), False), (similarity(512), False)",
    ],
)
def test_shared_memory_that_grows_and_shrinks(calls):
    run_afresh(f"""
        for call, exactly in [{calls}]:
            same(call, exactly)
    """)


@needs_gpu
def test_shared_memory_of_several_host_threads():
    run_afresh("""
        failures = []
        def work(call, exactly):
            try:
                for _ in range(20):
                    same(call, exactly)
            except BaseException as error:
                failures.append(error)
        calls = [(bins(70_000, 1), True), (bins(500, 10), True), (bins(70_000, 300), True)]
        calls += [(similarity(dim), False) for dim in (64, 256, 512)]
        threads = [threading.Thread(target=work, args=call) for call in calls]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert not failures, failures
    """)
