"""A small experiment for real: two learners, one task, two seeds, few epochs."""

from pathlib import Path

import pytest

pytest.importorskip("open_clip", reason="the extra 'demo' is not installed")
pytest.importorskip("sklearn", reason="the extra 'demo' is not installed")

OPTIONS = {"learners": ["coop", "MaPLe"], "seeds": [0, 1], "few_shots": [2], "epochs": 3}


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("experiment")


@pytest.fixture(scope="package")
def results(folder: Path):
    from pyfastcal import experiment

    return experiment.run(folder, experiment.bundled(["digits"]), **OPTIONS)
