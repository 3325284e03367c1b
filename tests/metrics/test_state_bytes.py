"""Any bytes give an accumulator or one line, in memory that neither what they claim nor what they inflate to decides.

``PYFASTCAL_FUZZ=20000 python -m pytest tests/metrics/test_state_bytes.py`` looks further than CI does.
"""

import json
import os
import resource
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyfastcal.metrics import Accumulator

MAGIC = b"pyfastcal.accumulator/1\n"
MEMORY = 1 << 27  # a hundred times the states here
SECONDS = 10
bounded = settings(
    max_examples=int(os.environ.get("PYFASTCAL_FUZZ", 100)), deadline=None, suppress_health_check=list(HealthCheck)
)
CONFIG = {"n_bins": 3, "closed": "left", "n_proximity_bins": None, "means": ["nll"]}


def filled() -> Accumulator:
    generator = torch.Generator().manual_seed(0)
    confidence = torch.rand(500, generator=generator)
    return Accumulator(**CONFIG).update(confidence, confidence > 0.5, nll=confidence)


BODY = filled().state.numpy().astype("<i8").tobytes()
WHOLE = filled().to_bytes()


@contextmanager
def limited() -> Iterator[None]:
    """No more address space than MEMORY beyond what is in use: a MemoryError is no ValueError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def packed(head: bytes, body: bytes = BODY, size: int | None = None) -> bytes:
    """As ``to_bytes`` packs; ``size``: another length than the head has."""
    length = (len(head) if size is None else size) % 2**64
    return MAGIC + zlib.compress(length.to_bytes(8, "little") + head + body, 1)


def read(data: bytes) -> Accumulator | None:
    """What the bytes hold, if anything: then all that an accumulator does works with it."""
    start = time.monotonic()
    try:
        with limited():
            found = Accumulator.from_bytes(data)
    except ValueError as error:
        line = str(error)
        assert line.startswith("data must be the bytes of an accumulator: ")
        assert len(line.splitlines()) == 1 and len(line) < 300, line
        return None
    finally:
        assert time.monotonic() - start < SECONDS
    again = Accumulator.from_bytes(found.to_bytes())
    assert torch.equal(again.state, found.state) and again.config == found.config
    try:
        assert all(torch.isfinite(x) | torch.isnan(x) | (x > 0) for x in found.compute().values())
        found.error_intervals()
    except ValueError as error:  # rows whose confidence could not be looked at
        assert str(error).startswith("confidence")
    return found


def test_what_was_written_is_read():
    assert torch.equal(read(WHOLE).state, filled().state)
    assert read(packed(json.dumps(CONFIG).encode())) is not None
    assert read(bytearray(WHOLE)) is not None and read(memoryview(WHOLE)) is not None


@given(content=st.binary(max_size=300))
@bounded
def test_anything(content):
    assert read(content) is None
    assert read(MAGIC + content) is None
    assert read(MAGIC + zlib.compress(content)) is None


@given(share=st.floats(0, 1, exclude_max=True), junk=st.binary(min_size=1, max_size=40))
@bounded
def test_truncated_and_followed_by_more(share, junk):
    assert read(WHOLE[: int(share * len(WHOLE))]) is None
    assert read(WHOLE + junk) is None
    assert read(WHOLE + WHOLE) is None
    assert read(packed(json.dumps(CONFIG).encode(), BODY + junk)) is None
    assert read(packed(json.dumps(CONFIG).encode(), BODY[: int(share * len(BODY))])) is None


@given(flips=st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 7)), min_size=1, max_size=6))
@bounded
def test_flipped_bits(flips):
    content = bytearray(WHOLE)
    for place, bit in flips:
        content[place] ^= 1 << bit
    found = read(bytes(content))
    assert found is None or torch.equal(found.state, filled().state)


INT64 = st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from([-1, 0, 1, 499, 500, 501, 2**62, 2**63 - 1]))


@given(edits=st.lists(st.tuples(st.integers(0, len(BODY) // 8 - 1), INT64), min_size=1, max_size=5))
@bounded
def test_other_numbers_with_a_right_checksum(edits):
    """Only sums that some rows have: counts that agree, no more correct ones, no more confidence than rows."""
    body = bytearray(BODY)
    for place, value in edits:
        body[8 * place : 8 * place + 8] = value.to_bytes(8, "little", signed=True)
    read(packed(json.dumps(CONFIG).encode(), bytes(body)))


@pytest.mark.parametrize(("place", "value"), [(0, -1), (0, 499), (3, 501), (-1, 2**32), (5, -1)])
def test_numbers_that_no_rows_have(place, value):
    state = filled().state
    state[place] = value
    body = state.numpy().astype("<i8").tobytes()
    if place == -1:  # of an uncarried state: as good as carried, but beyond the rows' confidence
        state[place] = value * 1000
        body = state.numpy().astype("<i8").tobytes()
    with pytest.raises(ValueError, match="numbers that no rows have"):
        Accumulator.from_bytes(packed(json.dumps(CONFIG).encode(), body))


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        [10**9, 2**63, 10**400, -1, 8184, 8185, 2**24, 2**24 + 1, "left", ["a"] * 2, ["x" * 101], {}, [[]]]
    ),
    st.lists(st.text(max_size=4), max_size=4),
)


@given(changes=st.dictionaries(st.sampled_from([*CONFIG, "fine", "device", "other"]), VALUES, max_size=4))
@bounded
def test_other_configurations(changes):
    config = CONFIG | changes
    found = read(packed(json.dumps(config).encode()))
    assert found is None or found.config == config


@pytest.mark.parametrize(
    "head",
    [
        b"[" * 100_000,
        b'{"n_bins": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' * 50_000,
        b"9" * 5000,
        b"NaN",
        b"null",
        b"\xff\xfe",
        b"",
        json.dumps(CONFIG | {"n_bins": "9" * 100_000}).encode(),
        b'{"n_bins": 1e400, "closed": "left", "n_proximity_bins": null, "means": []}',
        json.dumps(CONFIG).encode() + b" ",
        json.dumps(CONFIG | {"means": ["validate"]}).encode(),
        json.dumps(CONFIG | {"means": [str(i) for i in range(2000)]}).encode(),
    ],
    ids=range(13),
)
def test_heads_that_no_accumulator_has(head):
    assert read(packed(head)) is None


@pytest.mark.parametrize("size", [-1, -(2**63), 2**63 - 1, 2**40, 0, 1, 7, len(BODY)])
def test_heads_of_other_lengths(size):
    assert read(packed(json.dumps(CONFIG).encode(), size=size)) is None


@pytest.mark.parametrize("near", [None, 10])
def test_a_claim_of_many_cells_takes_no_memory(near):
    """The largest state there may be is half a gigabyte: it is not made before its numbers are seen."""
    most = 2**24 if near is None else 2**24 // 2050
    assert read(packed(json.dumps(CONFIG | {"n_bins": most, "n_proximity_bins": near}).encode())) is None
    for n_bins in (most + 1, 10**9, 2**62):
        config = json.dumps(CONFIG | {"n_bins": n_bins, "n_proximity_bins": near})
        with pytest.raises(ValueError, match="n_bins must be an integer of at least 1 and at most"):
            Accumulator.from_bytes(packed(config.encode()))


@pytest.mark.parametrize("size", [None, 2**40, 2**21])
def test_a_bomb_is_not_inflated(size):
    """A gigabyte of zeros in five megabytes: as the state's numbers, or as a configuration."""
    squeeze, zeros = zlib.compressobj(1), bytes(1 << 24)
    head = json.dumps(CONFIG).encode()
    parts = [squeeze.compress((len(head) if size is None else size).to_bytes(8, "little") + head)]
    parts += [squeeze.compress(zeros) for _ in range(64)]
    assert read(MAGIC + b"".join(parts) + squeeze.flush()) is None


@pytest.mark.parametrize("data", [None, "text", 5, [1], torch.zeros(3)])
def test_what_is_no_bytes(data):
    with pytest.raises(ValueError, match="^data must be bytes, got "):
        Accumulator.from_bytes(data)
