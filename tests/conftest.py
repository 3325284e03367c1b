"""Shared settings and fixtures."""

import os

import pytest
import torch
from hypothesis import HealthCheck, settings

from pyfastcal import _extension
from pyfastcal.clip import import_open_clip

settings.register_profile(
    "pyfastcal", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("pyfastcal")

# torchmetrics, an oracle here, imports torchvision, which needs this on a CPU-only torch.
import_open_clip()

# xdist runs one process per core; what depends on the number of threads sets it itself.
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)


@pytest.fixture(params=_extension.C.cpu_capabilities() if _extension.C else ["reference"])
def capability(request: pytest.FixtureRequest):
    """Runs the test on every variant of the CPU kernels that this processor has."""
    if _extension.C is None:
        yield request.param
        return
    before = _extension.C.cpu_capability()
    _extension.C.set_cpu_capability(request.param)
    yield request.param
    _extension.C.set_cpu_capability(before)


@pytest.fixture
def threads():
    """``threads(n)`` sets torch's number of threads; restored afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
