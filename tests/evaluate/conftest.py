"""A split, its shards, and their evaluation."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pyfastcal.evaluate import Evaluation, evaluate_shards
from pyfastcal.io import FeatureSet, Shard

from .data import METHODS, SIZES, pair, write


@pytest.fixture
def one_thread(threads) -> None:
    """Shards of a few hundred rows are no work for several."""
    threads(1)


@pytest.fixture(scope="module")
def splits() -> tuple[FeatureSet, FeatureSet]:
    return pair(n=sum(SIZES))


@pytest.fixture
def shards(splits: tuple[FeatureSet, FeatureSet], tmp_path: Path) -> list[Shard]:
    return write(tmp_path / "shards", splits[0])


@pytest.fixture
def evaluate(splits: tuple[FeatureSet, FeatureSet]) -> Callable[..., Evaluation]:
    """``evaluate(shards)`` with the classes of ``splits``, all methods and the base split."""

    def run(shards: list[Shard], **options: object) -> Evaluation:
        return evaluate_shards(shards, splits[0].classes, splits[1], METHODS, **options)

    return run
