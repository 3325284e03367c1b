"""A pytest plugin: writes a line of JSON for every test that ends, so that whatever ends the run, they are there; and
runs the tests that failed in such a file.

pytest -p scripts.gpu.outcomes --outcomes FILE [--failed-in FILE]
"""

import json
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--outcomes", type=Path, help="a line of JSON per test goes there")
    parser.addoption(
        "--failed-in", type=Path, help="only tests that failed there, with whatever parameters they have now"
    )


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--outcomes")
    if path is not None and not hasattr(config, "workerinput"):  # xdist's workers report to this process
        config.pluginmanager.register(Writer(path))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    path = config.getoption("--failed-in")
    if path is None:
        return
    wanted = {test.partition("[")[0] for test in failed(path)}  # tests, and files that could not be collected
    chosen = [item for item in items if {item.nodeid.partition("[")[0], item.nodeid.partition("::")[0]} & wanted]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen


class Writer:
    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            self._write(report, report.duration)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._write(report, 0.0)

    def _write(self, report: pytest.TestReport | pytest.CollectReport, seconds: float) -> None:
        said = report.longreprtext if report.failed else ""
        line = {"test": report.nodeid, "outcome": report.outcome, "seconds": round(seconds, 3), "said": said}
        print(json.dumps(line), file=self._file, flush=True)


def failed(path: Path) -> list[str]:
    """The tests of such a file that did not pass, each once."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return list(dict.fromkeys(line["test"] for line in lines if line["outcome"] == "failed"))
