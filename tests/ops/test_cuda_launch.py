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

# Tensor cores add sixteen products at a time, and cut off below a last bit of what is at most 1.
SAME, NEAR = 0, 512 / 16 * 2**-23

def same(call, atol):
    torch.testing.assert_close(moved("cpu", call("cuda")), call("cpu"), rtol=0, atol=atol)
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
        "(bins(70_000, 1), SAME), (bins(500, 10), SAME)",
        "(bins(500, 10), SAME), (bins(70_000, 300), SAME), (bins(70_000, 1), SAME), (bins(500, 300), SAME)",
        "(similarity(512), NEAR), (similarity(256), NEAR), (similarity(512), NEAR)",
        "(similarity(256), NEAR), (similarity(512), NEAR)",
    ],
)
def test_shared_memory_that_grows_and_shrinks(calls):
    run_afresh(f"""
        for call, atol in [{calls}]:
            same(call, atol)
    """)


@needs_gpu
def test_shared_memory_of_several_host_threads():
    run_afresh("""
        failures = []
        def work(call, atol):
            try:
                for _ in range(20):
                    same(call, atol)
            except BaseException as error:
                failures.append(error)
        calls = [(bins(70_000, 1), SAME), (bins(500, 10), SAME), (bins(70_000, 300), SAME)]
        calls += [(similarity(dim), NEAR) for dim in (64, 256, 512)]
        threads = [threading.Thread(target=work, args=call) for call in calls]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert not failures, failures
    """)
