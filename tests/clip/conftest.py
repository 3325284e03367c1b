import sys
from pathlib import Path

import pytest

from pyfastcal.clip import SmallCLIP, load_small, tasks

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))  # the pre-training is tested too


@pytest.fixture(scope="session")
def clip() -> SmallCLIP:
    return load_small("digits")


@pytest.fixture(scope="session")
def task() -> tasks.Task:
    return tasks.load("digits", seed=1)
