"""Reading ahead: its thread ends with its reader, and neither wakes torch's threads nor changes their number."""

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pyfastcal.evaluate.read_ahead import ReadAhead
from pyfastcal.io import FeatureSet, Shard

from .data import SIZES, pair

pytestmark = pytest.mark.usefixtures("one_thread")


def test_reading_ahead_stops_with_its_reader(splits: tuple, shards: list[Shard]) -> None:
    before = threading.active_count()
    with ReadAhead(shards, range(len(shards)), splits[0].classes) as ahead:
        index, batch = next(iter(ahead))
        assert index == 0 and isinstance(batch, FeatureSet)
    assert threading.active_count() == before
    with ReadAhead(shards, [0, 99], splits[0].classes) as ahead, pytest.raises(IndexError):
        list(ahead)


def test_threads_that_start_later_keep_their_number(splits: tuple, shards: list[Shard], evaluate, threads) -> None:
    """A number of threads that is set in one thread is that of all that start after it."""
    threads(3)
    during: list[int] = []

    def look(*_: object) -> None:
        later = threading.Thread(target=lambda: during.append(torch.get_num_threads()))
        later.start()
        later.join()

    evaluate(shards, progress=look)
    look()
    assert during == [3] * (len(SIZES) + 1) and torch.get_num_threads() == 3


def test_reading_ahead_wakes_no_threads(tmp_path: Path, threads) -> None:
    """They are for the calibration."""
    threads(4)
    new, _ = pair(n=70_000, c=40_000)
    shard = Shard(str(tmp_path / "a.safetensors"))
    new.labels = new.labels.int()
    tensors = {key: getattr(new, key) for key in ("image_features", "labels", "text_features")}
    save_file(tensors, shard.name)
    before = len(os.listdir("/proc/self/task"))
    classes = replace(new.classes, zeroshot_text_features=None)
    with ReadAhead([shard], [0], classes) as ahead:
        seen = [(type(read), len(os.listdir("/proc/self/task"))) for _, read in ahead]
    assert [kind for kind, _ in seen] == [FeatureSet] * 3 + [type(None)]
    assert max(count for _, count in seen) <= before + 1
