"""Shards read by a thread of their own, while those before them are calibrated."""

import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from ..io.features import ClassSet, FeatureSet
from ..io.shards import Shard, batches

AHEAD = 2  # batches that wait to be calibrated


class ReadAhead:
    """The batches of shards, read by a thread while those before them are calibrated. Gives ``(index, batch)``,
    then ``(index, None)`` once all of a shard was read, or ``(index, reason)`` if it could not be.

    The thread wakes none of torch's, which are for the calibration, and leaves their number alone: a number set in
    one thread is that of every thread that starts later."""

    def __init__(self, shards: Sequence[Shard], indices: Sequence[int], classes: ClassSet) -> None:
        self._shards, self._indices, self._classes = shards, indices, classes
        self._queue: queue.Queue[Any] = queue.Queue(AHEAD)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pyfastcal read-ahead", daemon=True)

    def __enter__(self) -> "ReadAhead":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def __iter__(self) -> Iterator[tuple[int, FeatureSet | str | None]]:
        while (item := self._queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def _run(self) -> None:
        try:
            for index in self._indices:
                for read in self._read(self._shards[index]):
                    if not self._put((index, read)):
                        return
            self._put(None)
        except BaseException as error:  # whatever it is, the one who waits must hear of it
            self._put(error)

    def _read(self, shard: Shard) -> Iterator[FeatureSet | str | None]:
        try:
            yield from batches(shard, shard.read(self._classes))
        except (ValueError, OSError) as error:
            yield str(error)
        else:
            yield None

    def _put(self, item: Any) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False
