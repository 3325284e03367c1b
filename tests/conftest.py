"""Shared settings and fixtures."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

if os.environ.get("PYFASTCAL_TEST_REFERENCE"):  # as where the package was installed without a compiler
    sys.modules["pyfastcal._C"] = None

import pytest
import torch
from hypothesis import HealthCheck, settings

from pyfastcal.ops import extension

settings.register_profile(
    "pyfastcal", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.register_profile("quick", settings.get_profile("pyfastcal"), max_examples=5)
settings.load_profile("pyfastcal")

if extension.C is None:  # which the first op says, once: here, and not in the middle of a test
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        extension.has_kernel(torch.device("cpu"))

# xdist runs one process per core; what depends on the number of threads sets it itself.
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)


def capabilities() -> list[str]:
    """The variants of the CPU kernels to test: all that this processor has, or the one that was forced."""
    if extension.C is None:
        return ["reference"]
    forced = "PYFASTCAL_CPU_CAPABILITY" in os.environ
    return [extension.C.cpu_capability()] if forced else extension.C.cpu_capabilities()


CAPABILITIES = capabilities()
DEVICES = [f"cpu-{name}" for name in CAPABILITIES] + ["cuda"] * torch.cuda.is_available()


# Minutes each: begun first, so that no process is left alone with one at the end.
SLOW = (
    "tests/cuda_model/test_kernels.py",
    "tests/cuda_model/test_check.py",
    "tests/cpu_kernels/test_kernels.py",
    "tests/scripts/test_torch_versions.py",
    "tests/package/test_sdist.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what touches the GPU: ``pytest -m gpu`` runs all of that and nothing else. Of several processes the first
    take the slowest files."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: not item.nodeid.startswith(SLOW))
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {}).values()
        if any(isinstance(value, str) and value == "cuda" for value in parameters):
            item.add_marker("gpu")


@contextmanager
def use_capability(name: str) -> Iterator[None]:
    if extension.C is None:
        yield
        return
    before = extension.C.cpu_capability()
    extension.C.set_cpu_capability(name)
    yield
    extension.C.set_cpu_capability(before)


@pytest.fixture(params=CAPABILITIES)
def capability(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test on every variant of the CPU kernels that this processor has."""
    with use_capability(request.param):
        yield request.param


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test on every device: on the CPU with every variant of the kernels, and on a GPU where there is one."""
    kind, _, name = request.param.partition("-")
    if kind == "cuda":
        yield kind
        return
    with use_capability(name):
        yield kind


@pytest.fixture
def threads():
    """``threads(n)`` sets torch's number of threads; restored afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
