import pytest
import torch

from pyfastcal.clip import SmallCLIP, load_small, tasks


@pytest.fixture(scope="session", autouse=True)
def _open_clip():
    pytest.importorskip("open_clip", reason="the extra 'clip' is not installed")


@pytest.fixture(scope="package", autouse=True)
def _one_thread():
    """Models this small only lose by more threads, all the more on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def clip() -> SmallCLIP:
    return load_small("digits")


@pytest.fixture(scope="session")
def task() -> tasks.Task:
    return tasks.load("digits", seed=1)
