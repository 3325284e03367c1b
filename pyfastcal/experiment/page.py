"""The report of an experiment: one HTML page, no scripts, nothing fetched; and its main table for a terminal."""

import os
from importlib.resources import files
from pathlib import Path

from .. import report
from ..io.paths import write_text
from ..io.text import counted
from ..report import figures
from ..report.markup import coloured, escape, figure, key, section, table
from ..report.page import PAGE
from ..report.panels import POINTS, point_panels
from ..report.summary import label, signed
from ..report.terminal import Terminal
from .bundled_tasks import BUNDLED
from .cell import LEAST_EPOCHS
from .results import Results, average
from .tables import MAIN, SPLITS, Table, all_tables, gap

PRINTED = ("states", "table 1 base", "table 1 new", "backbones", "dac")


def write_report(path: str | os.PathLike, results: Results, about: list[str]) -> Path:
    """ImportError that says what to install where matplotlib is missing."""
    return write_text(path, render(results, about))


def render(results: Results, about: list[str]) -> str:
    """The whole page; ``about``: sentences on what was run."""
    figures.matplotlib()
    main = results.main()
    lead = "\n".join(f'<p class="lead">{escape(text)}</p>' for text in [*about, *what_was_run(results)])
    made = "\n".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in report.environment().items())
    drawn = {"states": before_and_after, "table 2 new": diagrams, "table 3 new": proximities}
    parts = [f"<header>\n<h1>Base-to-new calibration experiment</h1>\n{lead}\n</header>"]
    for one in all_tables(results):
        parts.append(section(one.title, escape(one.note), _table(one)))
        if one.name in drawn:
            parts.append(drawn[one.name](main))
    parts += [by_shots(main), section("How this was made", "", f"<dl>\n{made}\n</dl>")]
    css = files(report.__name__).joinpath("style.css").read_text(encoding="utf-8")
    return PAGE.format(title="Base-to-new calibration experiment", css=css, body="\n".join(filter(None, parts)))


def what_was_run(results: Results) -> list[str]:
    s = results.settings
    epochs = f", cut to {counted(s.epochs, 'epoch')} at most" if s.epochs else ""
    learners, runs = counted(len(results.learners), "learner"), counted(len(results.cells), "run")
    tasks, seeds = counted(len(results.tasks), "task"), counted(len(results.seeds), "seed")
    told = [
        f"{learners}, tuned on {counted(s.shots, 'image')} of each base class with the published settings{epochs}, on "
        f"{tasks} ({', '.join(results.tasks)}) with {seeds}: {runs}. Methods are fitted on held-out images of base "
        "classes; new classes are ones that neither the tuning nor a fit saw."
    ]
    told += where_learners_stop(results)
    if set(results.sources) != set(results.main().sources):
        names = ", ".join(results.models)
        told.append(f"Models: {names}. All tables and figures but that by backbone are of the first that a task has.")
    return told + left_out(results)


def where_learners_stop(results: Results) -> list[str]:
    """On which bundled tasks they do before the published number of epochs is over."""
    stops: dict[int, list[str]] = {}
    for task in results.tasks:
        models = {model for of, model in results.sources if of == task}
        if task in BUNDLED and models <= set(BUNDLED[task].models) and (most := BUNDLED[task].most_steps):
            stops.setdefault(most, []).append(task)
    return [
        f"On {'all tasks' if names == results.tasks else ', '.join(names)} a learner is tuned for {most:,} steps at "
        f"most, where its published epochs come to more, but for {LEAST_EPOCHS} epochs at least."
        for most, names in stops.items()
    ]


def left_out(results: Results) -> list[str]:
    """Which learners were not tuned on which model, and why."""
    return [f"{learner} on {model}: left out: {why}." for (model, learner), why in results.left_out.items()]


def _table(one: Table) -> str:
    rows = []
    for head, cells in one.rows:
        marked = (escape(cell).partition(" ± ") for cell in cells)
        html = "".join(
            f"<td>{mean}{f' <small>± {spread}</small>' if spread else ''}</td>" for mean, _, spread in marked
        )
        rows.append((head, html))
    return table("", ["", *one.heads], rows)


def before_and_after(results: Results) -> str:
    """Accuracy and confidence of zero-shot and tuned models."""
    html = ""
    for split in SPLITS:
        lines = []
        for learner in ("zs", *results.learners):
            of = {"method": "zs"} if learner == "zs" else {"method": "conf", "learner": learner}
            found = results.select(split=split, **of)
            values = [average(found, what) for what in ("accuracy", "confidence")]
            if all(values):
                lines.append((label("zero-shot") if learner == "zs" else learner, *(100 * v[0] for v in values)))
        if lines:
            svg = figures.svg(figures.accuracy_and_confidence, lines, size=(3.8, 0.8 + 0.24 * len(lines)))
            html += figure(svg, f"<b>{split.capitalize()} classes</b>")
    legend = key(("over-fill", "confidence above accuracy"), ("under-fill", "confidence below it"))
    note = "After the papers' figure 2. The bar reaches from accuracy (dot) to mean confidence, before calibration."
    return section("Accuracy and confidence", note, html and f'{legend}<div class="panels">\n{html}</div>')


def proximities(results: Results) -> str:
    """The papers' figure 3."""
    html = point_panels({(method, what): results.points(method, what) for method, what in POINTS})
    note = (
        "After the papers' figure 3. Each point is a class in one run: the images predicted as it. Proximity is "
        "exp(−mean distance) of its tuned text feature to the nearest 5 of the base classes'."
    )
    legend = key(("diamond", "New classes"), ("ring", "Base classes"))
    return section(
        "Proximity, confidence and gap per class", note, html and f'{legend}<div class="panels">\n{html}</div>'
    )


def diagrams(results: Results) -> str:
    """Reliability of new classes, a row per learner."""
    html = ""
    for learner in results.learners:
        drawn = ""
        for method in (m for m in MAIN if m in results.methods):
            cells = results.pooled(learner, "new", method)
            found = results.select(learner=learner, split="new", method=method)
            values = {what: average(found, what) for what in ("accuracy", "confidence", "ece")} | {
                "gap": average(found, gap)
            }
            if cells is None or not all(values.values()):
                continue
            numbers = {what: 100 * value[0] for what, value in values.items() if value}
            told = coloured(numbers["gap"], f"gap {signed(numbers['gap'])}")
            caption = f"<b>{escape(label(method))}</b> ECE {numbers['ece']:.1f} % · {told}"
            drawn += figure(figures.svg(figures.reliability, cells, numbers, size=(2.6, 2.6)), caption)
        if drawn:
            html += f'<h3>{escape(learner)}</h3>\n<div class="panels">\n{drawn}</div>\n'
    note = "After the papers' figure 6. The bars pool all runs; the numbers are their means."
    legend = key(
        ("bar", "accuracy"),
        ("over-fill", "over-confident: confidence above accuracy"),
        ("under-fill", "under-confident: below it"),
    )
    return section("Reliability of new classes", note, html and legend + html)


def by_shots(results: Results) -> str:
    """ECE against the number of training images per class."""
    found = [r for r in results.ablations if r["ablation"] == "shots"]
    html = ""
    for learner in (name for name in results.learners if any(r["learner"] == name for r in found)):
        for split in SPLITS:
            lines: dict[str, list[tuple[int, float]]] = {}
            for method in (m for m in ("conf", "dac", "cac-fit") if m in results.methods):
                own = [r for r in found if (r["learner"], r["split"], r["method"]) == (learner, split, method)]
                at = sorted({r["value"] for r in own})
                values = [average([r for r in own if r["value"] == n], "ece") for n in at]
                points = [(n, 100 * v[0]) for n, v in zip(at, values, strict=True) if v]
                lines |= {label(method): points} if points else {}
            if lines:
                svg = figures.svg(figures.against_shots, lines, size=(3.6, 2.8))
                html += figure(svg, f"<b>{escape(learner)}, {split} classes</b>")
    return section("ECE by shots", "", html and f'<div class="panels">\n{html}</div>')


def print_tables(results: Results) -> None:
    """The main tables on stdout."""
    terminal = Terminal(200)
    for one in all_tables(results):
        if one.name in PRINTED:
            terminal.table(one.title, ["", *one.heads], one.rows, wrap=True)
            terminal.say(one.note, "dim")
    for sentence in left_out(results):
        terminal.say(sentence)
