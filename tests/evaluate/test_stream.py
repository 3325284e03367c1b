"""Evaluation over shards: the numbers of the in-memory evaluation, the same bits in any order; bad shards by name."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pyfastcal.evaluate import evaluate_shards, evaluate_split
from pyfastcal.io import Shard, find_shards
from tests.devices import needs_gpu

from .data import METHODS, SIZES, pair, spoil, write

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_numbers_are_those_in_memory(splits: tuple, shards: list[Shard], evaluate) -> None:
    streamed, whole = evaluate(shards), evaluate_split(*splits, METHODS)
    for one, other in zip(streamed.rows, whole.rows, strict=True):
        method = one["method"]
        for metric in ("images", "classes", "accuracy", "confidence", "ece", "mce", "mce_weighted", "gap"):
            assert one[metric] == other[metric], (method, metric)  # to the bit
        if other["ece"] is None:
            assert one["note"] == other["note"] != ""
            continue
        for metric in ("nll", "brier"):
            assert one[metric] == pytest.approx(other[metric], abs=2**-32), (method, metric)
        for metric in ("ace", "piece"):
            low, high = one["bounds"][metric]
            assert low <= other[metric] <= high and low <= one[metric] <= high and high - low < 0.05, (method, metric)
        assert all(torch.equal(*x) for x in zip(streamed.cells[method], whole.cells[method], strict=True))
    settings = [{k: v for k, v in row["settings"].items() if k != "median_z"} for row in whole.rows]
    assert [row["settings"] for row in streamed.rows] == settings


def test_no_order_and_no_split_changes_a_bit(splits: tuple, shards: list[Shard], evaluate, tmp_path: Path) -> None:
    other = write(tmp_path / "other", splits[0], (700, 400))
    results = [evaluate(found).rows for found in (shards, shards[::-1], other)]
    notes = [[row.pop("note") for row in rows] for rows in results]  # the only thing that shards may show in
    assert results[0] == results[1] == results[2]
    cac = METHODS.index("cac")
    assert "the median contrast weight" in notes[0][cac] and "of 6 shards)" in notes[0][cac]
    assert notes[2][cac].endswith("(in 2 of 2 shards)")


@needs_gpu
def test_on_a_gpu(splits: tuple, shards: list[Shard]) -> None:
    new, base = splits
    rows = [evaluate_shards(shards, new.classes, base, METHODS, device=name).rows for name in ("cpu", "cuda")]
    for one, other in zip(*rows, strict=True):
        for metric in ("accuracy", "confidence", "ece", "ace", "nll", "brier"):
            assert one[metric] == pytest.approx(other[metric], abs=2e-3), (one["method"], metric)


def test_without_a_base_file_there_is_no_piece(splits: tuple, shards: list[Shard]) -> None:
    (row,) = evaluate_shards(shards, splits[0].classes, methods=["conf"]).rows
    assert row["piece"] is None and row["ece"] is not None and set(row["bounds"]) == {"ace"}


def test_a_method_that_cannot_apply_says_why(splits: tuple, shards: list[Shard]) -> None:
    """At the fit, and at a shard: CAC's weights vanish where the zero-shot features are turned round."""
    new, base = splits
    bare = replace(new.classes, zeroshot_text_features=None)
    rows = {row["method"]: row for row in evaluate_shards(shards, bare, base, ["conf", "dac", "cac-fit"]).rows}
    assert "zeroshot_text_features" in rows["dac"]["note"] and rows["dac"]["ece"] is None
    assert rows["conf"]["ece"] is not None and rows["conf"]["note"] == ""
    far = replace(new.classes, zeroshot_text_features=-new.text_features)
    done = evaluate_shards(shards, far, methods=["cac", "conf"])
    assert done.rows[0]["ece"] is None and "got contrast weights below 0.001" in done.rows[0]["note"]
    assert "bounds" not in done.rows[0] and set(done.cells) == {"conf"} and done.rows[1]["images"] == sum(SIZES)


def test_a_bad_shard_is_named(shards: list[Shard], evaluate) -> None:
    spoil(shards[3])
    with pytest.raises(ValueError, match=r"003\.safetensors: image_features must be finite, got 32 NaN"):
        evaluate(shards)


def test_skipped_shards_leave_nothing_behind(
    splits: tuple, shards: list[Shard], evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The NaN is in the last batch of the shard: those before it must not count."""
    monkeypatch.setattr("pyfastcal.io.shards.ROWS", 50)
    spoil(shards[3])
    Path(shards[0].name).write_bytes(b"nothing")
    done = evaluate(shards, skip_bad=True)
    assert list(done.skipped) == [shards[0].name, shards[3].name]
    assert "not a complete safetensors file" in done.skipped[shards[0].name]
    for one, other in zip(done.rows, evaluate([shards[i] for i in (1, 2, 4, 5)]).rows, strict=True):
        assert one | {"note": ""} == other | {"note": ""} and one["images"] == sum(SIZES) - SIZES[0] - SIZES[3]
    with pytest.raises(ValueError, match=r"got none that can be read: .*000\.safetensors: not a complete"):
        evaluate(shards[:1], skip_bad=True)


def test_bad_arguments(splits: tuple, shards: list[Shard], evaluate) -> None:
    with pytest.raises(ValueError, match="shards must name at least one shard"):
        evaluate([])
    with pytest.raises(ValueError, match="device must be one that torch knows, got 'abacus'"):
        evaluate(shards, device="abacus")
    with pytest.raises(ValueError, match="device must be one of the .* GPUs here or the CPU, got 'cuda:99'"):
        evaluate(shards, device="cuda:99")
    with pytest.raises(ValueError, match="methods must be among"):
        evaluate_shards(shards, splits[0].classes, methods=["magic"])
    classes = replace(splits[0].classes, text_features=splits[0].text_features[:, :8])
    with pytest.raises(ValueError, match="base image_features must have 8 columns"):
        evaluate_shards(shards, classes, splits[1])


def test_progress_counts_shards(shards: list[Shard], evaluate) -> None:
    seen: list[tuple[int, int]] = []
    evaluate(shards, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i + 1, len(SIZES)) for i in range(len(SIZES))]


def test_memory_does_not_grow_with_the_shards(splits: tuple, tmp_path: Path) -> None:
    new, _ = pair(n=4000, d=256)
    write(tmp_path / "s", new, (4000,))
    for i in range(1, 60):
        shutil.copyfile(tmp_path / "s" / "000.safetensors", tmp_path / "s" / f"{i:03}.safetensors")
    seen: list[int] = []

    def look(done: int, total: int) -> None:
        status = Path("/proc/self/status").read_text()
        seen.append(int(status.split("RssAnon:")[1].split()[0]) + int(status.split("RssFile:")[1].split()[0]))

    done = evaluate_shards(find_shards([tmp_path / "s"]), new.classes, methods=["conf"], progress=look)
    assert done.rows[0]["images"] == 240_000
    assert max(seen[20:]) - max(seen[:20]) < 4096  # kB: one shard has 4 MB, all have 240
