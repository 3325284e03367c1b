"""Evaluation over shards: the numbers of the in-memory evaluation, the same bits whatever the order, the ranks and the
restarts; bad shards by name; the checkpoint refused where it is of something else."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pyfastcal.evaluate import Evaluation, evaluate_shards, evaluate_split, methods
from pyfastcal.evaluate import checkpoint as checkpoints
from pyfastcal.evaluate.checkpoint import Checkpoint
from pyfastcal.evaluate.read_ahead import ReadAhead
from pyfastcal.evaluate.stream import _Fitted, _identity
from pyfastcal.io import FeatureSet, Shard, find_shards, load_features, save_features
from tests.devices import needs_gpu
from tests.evaluate.test_split import pair

METHODS = tuple(methods.METHODS)
SIZES = (1, 400, 37, 255, 256, 151)


@pytest.fixture(autouse=True)
def one_thread(threads) -> None:
    """Shards of a few hundred rows are no work for several."""
    threads(1)


@pytest.fixture(scope="module")
def splits() -> tuple[FeatureSet, FeatureSet]:
    return pair(n=sum(SIZES))


def write(folder: Path, features: FeatureSet, sizes: tuple[int, ...] = SIZES) -> list[Shard]:
    """``features`` in shards of these sizes, without the classes."""
    folder.mkdir(exist_ok=True)
    for index, (images, labels) in enumerate(
        zip(features.image_features.split(sizes), features.labels.split(sizes), strict=True)
    ):
        tensors = {"image_features": images.contiguous(), "labels": labels.contiguous()}
        save_file(tensors, folder / f"{index:03}.safetensors")
    return find_shards([folder])


@pytest.fixture
def shards(splits: tuple[FeatureSet, FeatureSet], tmp_path: Path) -> list[Shard]:
    return write(tmp_path / "shards", splits[0])


@pytest.fixture
def evaluate(splits: tuple[FeatureSet, FeatureSet]):
    def run(shards: list[Shard], **options: object) -> Evaluation:
        return evaluate_shards(shards, splits[0].classes, splits[1], METHODS, **options)

    return run


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


def spoil(shard: Shard, row: int = -1) -> None:
    tensors = load_file(shard.name)
    tensors["image_features"][row] = torch.nan
    save_file(tensors, shard.name)


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


# the checkpoint


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


# real processes

CHILD = """
import os, sys, json, torch
torch.set_num_threads(1)  # no threads of torch's own, so that it can be forked
from tests.evaluate.test_stream import rerun
print("ready", flush=True)
for line in sys.stdin:
    arguments = json.loads(line)
    child = os.fork()
    if not child:
        rerun(*arguments)
        os._exit(0)
    print(child, flush=True)
    sys.stdin.readline()  # reaped when told to: until then the number is no other process's
    print(os.waitpid(child, 0)[1], flush=True)
"""


def rerun(shards: str, new: str, base: str, checkpoint: str, out: str) -> None:
    """What the child does, killed or not."""
    found = find_shards([shards])
    done = evaluate_shards(
        found, load_features(new).classes, load_features(base), ("conf", "dac"), checkpoint=checkpoint, every=0.0
    )
    Path(out).write_text(json.dumps(done.rows))


class Child:
    """A process that has imported everything, and forks one that evaluates whenever it is told to."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", CHILD]
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1, env=environment)
        assert self.process.stdout.readline() == "ready\n"

    def __call__(self, *arguments: str, kill_after: float | None = None) -> int:
        """The status the evaluation ended with."""
        self.process.stdin.write(json.dumps(arguments) + "\n")
        pid = int(self.process.stdout.readline())
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(pid, signal.SIGKILL)
        self.process.stdin.write("\n")
        return int(self.process.stdout.readline())


@pytest.fixture
def child():
    child = Child()
    yield child
    child.process.stdin.close()
    child.process.wait(timeout=20)


def test_killed_twenty_times_it_ends_with_the_same_bits(splits: tuple, tmp_path: Path, child: Child) -> None:
    new, base = splits
    write(tmp_path / "shards", new, (10,) * 110)
    files = [str(tmp_path / "shards")]
    files += [str(save_features(tmp_path / f"{n}.safetensors", f)) for n, f in (("new", new), ("base", base))]
    out = [str(tmp_path / f"{name}.json") for name in ("whole", "killed")]
    start = time.monotonic()
    assert child(*files, str(tmp_path / "whole"), out[0]) == 0
    longest = (time.monotonic() - start) / 8
    generator = torch.Generator().manual_seed(0)
    killed = 0
    for _ in range(100):
        delay = longest * float(torch.rand((), generator=generator))
        killed += child(*files, str(tmp_path / "kept"), out[1], kill_after=delay) == signal.SIGKILL
        if killed == 20:
            break
    assert killed == 20
    merged = tmp_path / "kept" / checkpoints.MERGED
    assert int(load_file(merged)["done"].sum()) > 0
    assert child(*files, str(tmp_path / "kept"), out[1]) == 0
    assert Path(out[1]).read_text() == Path(out[0]).read_text()
    assert child(*files, str(tmp_path / "kept"), out[1]) == 0
    assert [p.name for p in (tmp_path / "kept").iterdir()] == [checkpoints.MERGED]


def test_torchrun_gives_the_same_bits(splits: tuple, shards: list[Shard], tmp_path: Path) -> None:
    new, base = splits
    spoil(shards[2])
    for name, features in (("new", new), ("base", base)):
        save_features(tmp_path / f"{name}.safetensors", features)
    options = ["evaluate", str(tmp_path / "shards" / "*.safetensors"), "--base", str(tmp_path / "base.safetensors")]
    options += ["--classes", str(tmp_path / "new.safetensors"), "--methods", "all", "--skip-bad", "--json"]
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node"]
    results = []
    for ranks in ("1", "2"):
        out = tmp_path / f"{ranks}.json"
        more = ["--checkpoint", str(tmp_path / "kept")] if ranks == "2" else []
        done = subprocess.run(
            [*run, ranks, "-m", "pyfastcal", *options, str(out), *more], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("Written:") == 1 and "without 1 shard that could not be read" in done.stdout
        assert done.stderr.count("shards calibrated and measured: ") == 1
        results.append(json.loads(out.read_text()))
        del results[-1]["environment"]  # it tells the number of threads
    assert results[0] == results[1]
    assert results[0]["runs"][0]["skipped"][0]["shard"] == shards[2].name
    assert sum(load_file(tmp_path / "kept" / f"rank-{rank}.safetensors")["done"].sum() for rank in (0, 1)) == 5
