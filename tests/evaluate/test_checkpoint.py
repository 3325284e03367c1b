"""The checkpoint of an evaluation over shards: whatever ranks left it, any others go on from it; it is refused where it
is damaged or of something else."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pyfastcal.evaluate import evaluate_shards
from pyfastcal.evaluate.checkpoint import Checkpoint
from pyfastcal.evaluate.stream import _Fitted, _identity
from pyfastcal.io import Shard

from .data import METHODS, spoil

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_finished_run_is_not_done_again(shards: list[Shard], evaluate, tmp_path: Path) -> None:
    kept = str(tmp_path / "kept")
    rows = evaluate(shards, checkpoint=kept).rows
    seen: list[int] = []
    assert evaluate(shards, checkpoint=kept, progress=lambda *_: seen.append(1)).rows == rows == evaluate(shards).rows
    assert not seen and [p.name for p in Path(kept).iterdir()] == ["merged.safetensors"]
    assert Path(kept, "merged.safetensors").stat().st_size < len(METHODS) << 20


@pytest.mark.parametrize("names", [(0, 1, 2), (0,), (5, 7)])
def test_any_number_of_ranks_goes_on_from_any_other(
    splits: tuple, shards: list[Shard], evaluate, tmp_path: Path, names: tuple[int, ...]
) -> None:
    """Parts that ranks left behind, with gaps between them, and one of a run before that was merged already."""
    new, base = splits
    fitted = _Fitted(new.classes, base, METHODS, 10, len(shards))
    kept = Checkpoint(tmp_path / "kept", shards, _identity(new.classes, base, METHODS, 10, torch.device("cpu")))
    kept.start(fitted.nothing())
    for at, name in enumerate(names):
        progress = fitted.nothing()
        for _, part in fitted.stream(shards, [at]):
            progress.merge(part)
        kept.save(name, progress)
    parts = {path: path.read_bytes() for path in (tmp_path / "kept").glob("rank-*")}
    assert len(parts) == len(names)
    assert int(kept.start(fitted.nothing()).done.sum()) == len(names)
    for path, content in parts.items():
        path.write_bytes(content)  # killed between the merging and the deleting
    (tmp_path / "kept" / ".rank-0.safetensors.x8s1").write_bytes(b"half")
    assert int(kept.start(fitted.nothing()).done.sum()) == len(names)
    assert [p.name for p in (tmp_path / "kept").iterdir()] == ["merged.safetensors"]
    assert evaluate(shards, checkpoint=str(tmp_path / "kept")).rows == evaluate(shards).rows


def test_two_runs_in_one_folder_are_noticed(splits: tuple, shards: list[Shard], tmp_path: Path) -> None:
    new, base = splits
    fitted = _Fitted(new.classes, base, ("conf",), 10, len(shards))
    kept = Checkpoint(tmp_path / "kept", shards, {})
    kept.start(fitted.nothing())
    for rank in (0, 1):
        kept.save(rank, next(part for _, part in fitted.stream(shards, [0])))
    with pytest.raises(ValueError, match=r"rank-1\.safetensors: two parts have the same shards"):
        kept.start(fitted.nothing())


def test_a_shard_that_was_bad_can_be_put_right(splits: tuple, shards: list[Shard], evaluate, tmp_path: Path) -> None:
    kept = str(tmp_path / "kept")
    good = Path(shards[3].name).read_bytes()
    spoil(shards[3])
    with pytest.raises(ValueError, match=r"003\.safetensors"):
        evaluate(shards, checkpoint=kept)
    assert set(evaluate(shards, checkpoint=kept, skip_bad=True).skipped) == {shards[3].name}
    Path(shards[3].name).write_bytes(good)
    done = evaluate(shards, checkpoint=kept)
    assert done.rows == evaluate(shards).rows and not done.skipped


def test_another_evaluation_is_refused(splits: tuple, shards: list[Shard], tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    new, base = splits

    def run(shards: list[Shard] = shards, classes=new.classes, base=base, methods=("conf", "dac"), n_bins: int = 10):
        evaluate_shards(shards, classes, base, methods, n_bins, checkpoint=str(kept))

    run()
    changes = {
        r"methods changed \(\['conf', 'dac'\], now \['conf'\]\)": {"methods": ("conf",)},
        r"n_bins changed \(10, now 12\)": {"n_bins": 12},
        "classes changed$": {"classes": replace(new.classes, logit_scale=31.0)},
        "base changed": {"base": None},
        r"the number of shards changed \(6, now 5\)": {"shards": shards[1:]},
    }
    for message, changed in changes.items():
        with pytest.raises(ValueError, match=f"kept: is the checkpoint of another evaluation: {message}"):
            run(**changed)
    with pytest.raises(ValueError, match=r"shard 0 was done and has changed since, .*001\.safetensors"):
        run([shards[1], shards[0], *shards[2:]])
    os.utime(shards[2].name, (1, 1))
    with pytest.raises(ValueError, match=r"shard 2 was done and has changed since, .*002\.safetensors"):
        run()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="other: is neither a checkpoint nor empty"):
        evaluate_shards(shards, new.classes, methods=["conf"], checkpoint=str(tmp_path / "other"))


@pytest.mark.parametrize("name", ["merged", "rank-0"])
def test_a_damaged_checkpoint_is_named(splits: tuple, shards: list[Shard], tmp_path: Path, name: str) -> None:
    new, _ = splits
    fitted = _Fitted(new.classes, None, ("conf",), 10, len(shards))
    kept = Checkpoint(tmp_path / "kept", shards, {})
    kept.start(fitted.nothing())
    kept.save(0, fitted.nothing())
    file = tmp_path / "kept" / f"{name}.safetensors"
    whole = file.read_bytes()
    g = torch.Generator().manual_seed(0)
    places = torch.randint(0, len(whole), (60,), generator=g).tolist() + list(range(0, 600, 7))
    for damaged in [whole[:0], whole[:50], whole[:-1], b"{}", *(flipped(whole, place) for place in places)]:
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"{name}\.safetensors: not a complete checkpoint \(.+\)$"):
            kept.start(fitted.nothing())


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]
