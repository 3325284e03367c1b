"""Results of benchmarks: added to work by work, and stamped with the commit that they are of."""

from pathlib import Path

import pytest

from benchmarks import results
from benchmarks.__main__ import Run
from benchmarks.harness import Row


def test_results_are_written_after_every_work_and_replaced_by_more(tmp_path: Path):
    stamp = {"commit": "c", "dirty": False, "cpu": "x", "quick": False, "only": [], "date": "2026-01-01"}
    path = tmp_path / "rows.json"
    run = Run(stamp, path)
    run.add([Row("knn", "small", "pyfastcal", "ours", 2.0)])
    assert [row.seconds for row in results.read(path)[1]] == [2.0]
    run = Run(stamp | {"date": "2026-01-02"}, path)
    run.add([Row("bins", "large", "pyfastcal", "ours", 5.0)])
    run.add([Row("knn", "small", "pyfastcal", "ours", 1.0), Row("knn", "small", "torch eager", "peer", 3.0)])
    run.add([Row("bins", "large", "pyfastcal", "ours", note="not measured: out of time")])
    kept, rows = results.read(path)
    assert [(row.work, row.seconds) for row in rows] == [("small", 1.0), ("small", 3.0), ("large", 5.0)]
    assert kept["date"] == "2026-01-01"
    with pytest.raises(ValueError, match="is of another commit: c"):
        Run(stamp | {"commit": "d"}, path)


def test_a_copied_tree_knows_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(results, "COMMIT", tmp_path / "commit.json")
    monkeypatch.setattr(results, "_git", lambda *arguments: "a" * 40 if arguments[0] == "rev-parse" else "")
    results.write_commit()
    monkeypatch.setattr(results, "_git", lambda *arguments: "b" * 40)  # the copy's history is another's
    assert results.commit() == {"commit": "a" * 40, "dirty": False}
    monkeypatch.setattr(results, "_digest", lambda: "of other files")
    assert results.commit() == {"commit": "b" * 40, "dirty": True}
    monkeypatch.setattr(results, "_git", lambda *arguments: None)
    assert results.commit() == {"commit": None, "dirty": None}
