"""Progress off a terminal: a plain line per finished step, and one now and then."""

import pytest

from pyfastcal.io.progress import ProgressReport


def test_progress_off_a_terminal(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("pyfastcal.io.progress.time.monotonic", lambda: clock[0])
    with ProgressReport() as progress:
        for done in range(11):
            clock[0] = 7.0 * done
            progress("shards", done, 10)
    with ProgressReport(shown=False) as progress:
        progress("nothing", 1, 1)
    assert capsys.readouterr().err.splitlines() == [
        "shards: 5 of 10, 0.143/s, 0:00:35 left",
        "shards: 10 in 70.0 s",
    ]
