from pathlib import Path

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


@pytest.fixture(scope="session")
def shapes() -> SmallCLIP:
    return load_small("shapes")


@pytest.fixture(scope="session")
def data() -> tasks.Task:
    """What the learners of ``shapes`` are tuned on."""
    return tasks.load("shapes", seed=0, shots=8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a published trainer saves, in a folder that is not there yet."""
    return tmp_path / "prompt_learner" / "model.pth.tar-50"
