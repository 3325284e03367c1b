"""The tables that have the papers' published numbers beside ours, and say whether the direction agrees."""

from collections.abc import Iterable, Sequence
from typing import Any

from .ablations import CONSTANTS, PUBLISHED
from .agreement import agreement, change, direction, tally
from .published import published
from .results import Results, Row, average
from .table import MAIN, NOT_HAVE, SPLITS, Table, method_name, over, percent, plain

MEASURES = {"ece": "ECE", "ace": "ACE", "mce_weighted": "MCE (weighted)", "piece": "PIECE"}
COLUMNS = ("published", "agrees")  # behind every column of ours
CONF = {"method": "conf"}
SAID = (
    "Published: the papers' number, on their models and data, or in words the direction that an abstract claims; -: "
    "none that could be read. Agrees: whether the change {of} has the published direction; same: ours is too small to "
    "tell."
)


def three(
    table: str, metric: str, before: Sequence[Row], after: Sequence[Row], against: dict[str, Any] = CONF, **keys: Any
) -> list[str]:
    """The cells of one number: ours, mean over the rows ``after``, the published one of the row ``keys``, and the word
    of :func:`.agreement.agreement` on the change from the rows ``before`` and from the published row that ``against``
    tells; none for the row that all are compared with."""
    number = published().number(table, metric, **keys)
    ours = percent(average(after, metric))
    if keys | against == keys:
        return [ours, NOT_HAVE if number is None else percent((number, None)), ""]
    theirs = published().direction(table, metric, against, **keys)
    shown = theirs or NOT_HAVE if number is None else percent((number, None))
    return [ours, shown, agreement(direction(change(before, after, metric)), theirs)]


def heads(names: Iterable[str]) -> list[str]:
    return [head for name in names for head in (name, *(f"{name}, {column}" for column in COLUMNS))]


def note(table: str, of: str = "against Conf") -> str:
    """What the columns say, and where the table's numbers are from."""
    source = published().sources[table]
    found = f" The numbers are those of {source}." if source else " This table's numbers could not be read."
    return SAID.format(of=of) + found


def tuned(results: Results) -> Iterable[Table]:
    """ECE of tuned models against zero-shot: the figures in DAC's reliability diagrams."""
    before = {"learner": "zero-shot", "method": "zs"}
    rows: list[tuple[str, list[str]]] = []
    for learner in ("zero-shot", *results.learners):
        keys = before if learner == "zero-shot" else {"learner": learner, "method": "conf"}
        cells = []
        for split in SPLITS:
            of = {"split": split} if learner == "zero-shot" else {"split": split, "learner": learner}
            zs, after = results.select(method="zs", **of), results.select(method=keys["method"], **of)
            cells += three("tuned", "ece", zs, after, before, split=split, **keys)
        rows.append((learner, cells))
    if {"zs", "conf"} <= set(results.methods):
        text = f"ECE without calibration, in per cent. {note('tuned', 'against zero-shot')}"
        yield Table("tuned", "ECE of tuned models against zero-shot", text, heads(SPLITS), rows)


def errors(results: Results) -> Iterable[Table]:
    """Table 1, as far as there is something published: ECE by learner and method."""
    rows = []
    for learner in (*results.learners, "mean"):
        for method in results.methods:
            of = {"method": method} if learner == "mean" else {"method": method, "learner": learner}
            cells = []
            for split in SPLITS:
                after = results.select(split=split, **of)
                before = results.select(split=split, **(of | CONF))
                cells += three("table 1", "ece", before, after, split=split, learner=learner, method=method)
            if method != "zs" and any(cell != NOT_HAVE for cell in cells[1::3]):
                rows.append((f"{learner}, {method_name(method)}", cells))
    text = f"ECE in per cent, mean over {over(results)}; methods of which nothing is published are left out. "
    text += f"{note('table 1')} Claims: {'; '.join(published().claims)}."
    yield Table("table 1 published", "Table 1 beside the papers", text, heads(SPLITS), rows)


def measures(results: Results) -> Iterable[Table]:
    """Table 2: four metrics of the two methods of the papers, and beside them MCE as it is usually meant."""
    methods = [method for method in MAIN if method in results.methods]
    for split in SPLITS:
        rows = []
        for learner in (*results.learners, "mean"):
            of = {"split": split} if learner == "mean" else {"split": split, "learner": learner}
            before = results.select(method="conf", **of)
            for method in methods:
                after, keys = results.select(method=method, **of), {"learner": learner, "method": method}
                cells = [c for m in MEASURES for c in three("table 2", m, before, after, split=split, **keys)]
                rows.append((f"{learner}, {method_name(method)}", [*cells, percent(average(after, "mce"))]))
        text = "In per cent. The papers' MCE is the weighted one: the largest share of ECE that one bin has. "
        title = f"Table 2: {', '.join(map(method_name, methods))}, {split} classes"
        yield Table(f"table 2 {split}", title, text + note("table 2"), [*heads(MEASURES.values()), "MCE"], rows)


def backbones(results: Results) -> Iterable[Table]:
    """ECE by model, on the tasks and with the learners that all models have."""
    tasks = [task for task in results.tasks if {(task, model) for model in results.models} <= set(results.sources)]
    ran = {(cell["model"], cell["learner"]) for cell in results.cells}
    learners = [name for name in results.learners if {(model, name) for model in results.models} <= ran]
    if len(results.models) < 2 or not tasks or not learners:
        return
    kept = [row for row in results.rows if row["task"] in tasks and row["learner"] in learners]
    rows = []
    for model in results.models:
        for method in (m for m in ("zs", *MAIN) if m in results.methods):
            cells = []
            for split in SPLITS:
                own = [row for row in kept if row["model"] == model and row["split"] == split]
                before, after = ([r for r in own if r["method"] == m] for m in ("conf", method))
                cells.append(percent(average(after, "accuracy")))
                cells += three("backbones", "ece", before, after, split=split, model=model, method=method)
            rows.append((f"{model}, {method_name(method)}", cells))
    titles = [head for split in SPLITS for head in (f"{split}: accuracy", *heads([f"{split}: ECE"]))]
    text = f"In per cent, mean over {', '.join(learners)} and {', '.join(tasks)}. {note('backbones')}"
    yield Table("backbones", "By backbone", text, titles, rows)


def constants(results: Results) -> Iterable[Table]:
    """CAC's ablation of k, alpha and lambda."""
    before = {split: results.select(split=split, method="conf") for split in SPLITS}
    for name, values in CONSTANTS.items():
        rows = []
        for value in values:
            found = [r for r in results.ablations if r["ablation"] == name and r["value"] == value]
            of = {split: [r for r in found if r["split"] == split] for split in SPLITS}
            cells = []
            for split, after in of.items():
                keys = {"split": split, "method": "cac", "at": value}
                cells += three(name, "ece", before[split], after, CONF | {"at": None}, **keys)
            cells += [plain(average(after, "median_weight")) for after in of.values()]
            if found:
                rows.append((f"{value:g}" + (" (published)" if value == PUBLISHED[name] else ""), cells))
        others = ", ".join(f"{other} {PUBLISHED[other]:g}" for other in CONSTANTS if other != name)
        text = f"Mean over all learners, tasks and seeds; ECE in per cent; the others as published: {others}. "
        titles = [*heads(f"ECE, {split}" for split in SPLITS), *(f"median weight, {split}" for split in SPLITS)]
        yield Table(f"cac {name}", f"CAC's {name}", text + note(name), titles, rows)


def shots(results: Results) -> Iterable[Table]:
    """ECE against the number of training images per class."""
    found = [r for r in results.ablations if r["ablation"] == "shots"]
    counts = sorted({r["value"] for r in found})
    methods = [m for m in ("conf", "ts", "dac", "cac", "cac-fit") if m in results.methods]
    for learner in [name for name in results.learners if any(r["learner"] == name for r in found)]:
        rows = []
        for split in SPLITS:
            own = [r for r in found if r["learner"] == learner and r["split"] == split]
            of = {m: [[r for r in own if r["method"] == m and r["value"] == n] for n in counts] for m in methods}
            plain_rows = of.get("conf", [[] for _ in counts])
            for what in ("accuracy", "confidence"):
                rows.append((f"{split}, {what}", [*(percent(average(part, what)) for part in plain_rows), "", ""]))
            for method in methods:
                keys = {"split": split, "learner": learner, "method": method}
                parts = zip(counts, plain_rows, of[method], strict=True)
                cells = [three("shots", "ece", before, after, **keys, at=n) for n, before, after in parts]
                ours, theirs, words = zip(*cells, strict=True)
                shown = " / ".join(theirs) if set(theirs) != {NOT_HAVE} else NOT_HAVE
                agrees = "" if method == "conf" else tally(words)
                rows.append((f"{split}, ECE {method_name(method)}", [*ours, shown, agrees]))
        text = "In per cent. Fewer shots are the first of more; validation and test images are the same for all. "
        titles = [*map(str, counts), *COLUMNS]
        yield Table(f"shots {learner}", f"{learner} by shots", text + note("shots"), titles, rows)
