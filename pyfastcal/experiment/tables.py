"""The papers' tables, and a few of our own, of an experiment's results. A :class:`Table` is text: the page, the
terminal and the documentation show the same."""

from collections.abc import Callable, Iterable

from ..io.text import counted
from ..report.summary import NOTABLE_GAP, SAME, label, signed
from . import beside
from .ablations import NORMALISATIONS
from .results import Results, Row, average
from .table import MAIN, NOT_HAVE, SPLITS, Table, gap, method_name, over, percent, plain, points

__all__ = ["MAIN", "SPLITS", "Table", "all_tables", "gap"]


def all_tables(results: Results) -> list[Table]:
    """Those there are rows for."""
    main = results.main()
    makers: tuple[Callable[[Results], Iterable[Table]], ...] = (
        states, beside.tuned, errors, beside.errors, beside.measures, gaps, lambda _: beside.backbones(results),
        dac_run_by_run, by_task, beside.constants, beside.shots, normalisations, contrasts, proximities
    )  # fmt: skip
    return [table for make in makers for table in make(main) if table.rows]


def states(results: Results) -> Iterable[Table]:
    """Accuracy, confidence and their gap without calibration: what the papers' figure 2 shows."""
    heads = [f"{split}: {what}" for split in SPLITS for what in ("accuracy", "confidence", "gap")]
    rows = []
    for learner in ("zs", *results.learners):
        method, of = ("zs", {}) if learner == "zs" else ("conf", {"learner": learner})
        found = [results.select(method=method, split=split, **of) for split in SPLITS]
        if all(found):
            cells = []
            for part in found:
                cells += [percent(average(part, "accuracy")), percent(average(part, "confidence"))]
                cells.append(points(average(part, gap)))
            rows.append((label("zero-shot") if learner == "zs" else learner, cells))
    note = "Without calibration, in per cent; gap: mean confidence minus accuracy, in points."
    yield Table("states", "Before calibration", note, heads, rows)


def errors(results: Results) -> Iterable[Table]:
    """Table 1: ECE by learner and method."""
    for split in SPLITS:
        heads = [method_name(method) for method in results.methods]
        rows = []
        for learner in results.learners:
            of = {m: average(results.select(learner=learner, split=split, method=m), "ece") for m in results.methods}
            rows.append((learner, [percent(of[m]) for m in results.methods]))
        every = [average(results.select(split=split, method=m), "ece") for m in results.methods]
        rows.append(("mean", [percent(value) for value in every]))
        note = f"ECE in per cent, mean over {over(results)}.{_reasons(results, split)}"
        yield Table(f"table 1 {split}", f"Table 1: ECE by calibration method, {split} classes", note, heads, rows)


def _reasons(results: Results, split: str) -> str:
    """Why methods have no numbers, where they never have any."""
    said: dict[str, list[str]] = {}
    for method in results.methods:
        found = results.select(split=split, method=method)
        if found and all(row["ece"] is None for row in found):
            said.setdefault(found[0]["note"], []).append(method_name(method))
    return "".join(f" {NOT_HAVE}: {', '.join(methods)}: {why}." for why, methods in said.items())


def gaps(results: Results) -> Iterable[Table]:
    """Table 3: signed gap per level of confidence."""
    n = results.settings.n_bins
    heads = [f"{100 * b / n:.4g}–{100 * (b + 1) / n:.4g}" for b in range(n)]
    for split in SPLITS:
        rows = []
        for learner in results.learners:
            for method in (m for m in MAIN if m in results.methods):
                cells = results.pooled(learner, split, method)
                if cells is not None:
                    values = zip(cells.gap.tolist(), cells.count.tolist(), strict=True)
                    row = [f"{signed(100 * gap, 0)} ({count:,})" if count else "·" for gap, count in values]
                    rows.append((f"{learner}, {method_name(method)}", row))
        note = "Mean confidence minus accuracy in points, number of images in brackets; all runs pooled."
        title = f"Table 3: signed gap per level of confidence in per cent, {split} classes"
        yield Table(f"table 3 {split}", title, note, heads, rows)


def dac_run_by_run(results: Results) -> Iterable[Table]:
    """Where DAC lowers ECE on new classes, told apart by whether there was over-confidence."""
    if not {"conf", "dac"} <= set(results.methods):
        return
    rows = []
    for learner in (*results.learners, None):
        of = {} if learner is None else {"learner": learner}
        plain, after = (results.select(split="new", method=m, **of) for m in ("conf", "dac"))
        pairs = [(a, b) for a, b in zip(plain, after, strict=True) if a["ece"] is not None and b["ece"] is not None]
        over = [(a, b) for a, b in pairs if gap(a) > NOTABLE_GAP]
        rest = [(a, b) for a, b in pairs if gap(a) <= NOTABLE_GAP]
        rows.append((learner or "all", [cell for part in (over, rest) for cell in _outcome(part)]))
    heads = [
        f"{which}: {what}"
        for which in ("over-confident runs", "other runs")
        for what in ("lower / same / higher", "mean change")
    ]
    note = (
        f"A run is over-confident where confidence exceeds accuracy by more than {100 * NOTABLE_GAP:.0f} points; the "
        "same: ECE changed by less than a quarter of a point; changes in points."
    )
    yield Table("dac", "DAC against no calibration, new classes, run by run", note, heads, rows)


def _outcome(pairs: list[tuple[Row, Row]]) -> list[str]:
    changes = [after["ece"] - before["ece"] for before, after in pairs]
    if not changes:
        return ["0 / 0 / 0", NOT_HAVE]
    same = sum(abs(change) < SAME for change in changes)
    lower = sum(change <= -SAME for change in changes)
    counts = f"{lower} / {same} / {len(changes) - lower - same}"
    return [counts, signed(100 * sum(changes) / len(changes))]


def by_task(results: Results) -> Iterable[Table]:
    """The tasks, the learners together."""
    methods = [m for m in ("zs", "conf", "ts", "dac", "ts+dac", "cac", "cac-fit") if m in results.methods]
    for split in SPLITS:
        rows = []
        for task in results.tasks:
            of = {method: results.select(task=task, split=split, method=method) for method in methods}
            plain = of.get("conf", [])
            cells = [percent(average(plain, "accuracy")), percent(average(plain, "confidence"))]
            rows.append((task, cells + [percent(average(of[method], "ece")) for method in methods]))
        heads = ["accuracy", "confidence", *(f"ECE {method_name(method)}" for method in methods)]
        mean = f"Mean over {counted(len(results.learners), 'learner')}, in per cent"
        note = f"{mean}; accuracy and confidence without calibration."
        yield Table(f"tasks {split}", f"By task, {split} classes", note, heads, rows)


def normalisations(results: Results) -> Iterable[Table]:
    """What the weights are normalised by: over all learners, then by learner."""
    columns = ("ece", percent), ("median_weight", plain)

    def of(value: str, split: str, learner: str | None = None) -> list[Row]:
        rows = (r for r in results.ablations if r["ablation"] == "normalisation" and r["value"] == value)
        return [r for r in rows if r["split"] == split and learner in (None, r["learner"])]

    rows = []
    for value, text in NORMALISATIONS.items():
        cells = [write(average(of(value, split), key)) for key, write in columns for split in SPLITS]
        rows += [(f"{label(value.split()[0])}: {text}", cells)] if of(value, SPLITS[0]) else []
    heads = [f"{what}, {split}" for what in ("ECE", "median weight") for split in SPLITS]
    note = "Mean over all learners, tasks and seeds; ECE in per cent; CAC with the published constants."
    yield Table("normalisation", "What the weights are normalised by", note, heads, rows)
    for split in SPLITS:
        there = [value for value in NORMALISATIONS if of(value, split)]
        heads = ["Conf: ECE"]
        for value in there:
            method, by = value.split()
            heads += [f"{label(method)}, {by}: {what}" for what in ("ECE", "weight")]
        rows = []
        for learner in results.learners if there else ():
            cells = [percent(average(results.select(learner=learner, split=split, method="conf"), "ece"))]
            cells += [write(average(of(value, split, learner), key)) for value in there for key, write in columns]
            rows.append((learner, cells))
        note = (
            "Mean over tasks and seeds; ECE in per cent; weight: the median. The table before says what the names mean."
        )
        title = f"What the weights are normalised by, by learner, {split} classes"
        yield Table(f"normalisation {split}", title, note, heads, rows)


def contrasts(results: Results) -> Iterable[Table]:
    """CAC's contrast metric."""
    heads = [f"{split}: {which}" for split in SPLITS for which in ("zero-shot", "tuned")]
    rows = []
    for learner in results.learners:
        of = [results.contrasts(learner, split, which) for split in SPLITS for which in ("zs", "tuned")]
        rows.append((learner, [plain(value, 3) for value in of]))
    note = "Mean similarity to the true class minus that to the most similar other one."
    yield Table("contrast", "Contrast before and after tuning", note, heads, rows)


def proximities(results: Results) -> Iterable[Table]:
    """The papers' figure 3 in numbers: whether confidence and gap follow a class's proximity to the base classes."""
    told = ("conf confidence", "conf gap")
    heads = [f"{split}: {what.split()[1]}" for split in SPLITS for what in told]
    rows = []
    for learner in results.learners:
        cells = [plain(results.correlations(learner, split, what)) for split in SPLITS for what in told]
        rows += [(learner, cells)] if set(cells) != {NOT_HAVE} else []
    note = (
        "Rank correlation of a class's tuned proximity with its confidence or gap, without calibration; mean over runs."
    )
    yield Table("proximity", "Proximity, confidence and gap", note, heads, rows)
