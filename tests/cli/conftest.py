from pathlib import Path

import pytest

from tests.command import feature_files


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A new and a base feature file."""
    return feature_files(tmp_path)
