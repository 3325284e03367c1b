"""What the prompt learners do on the bundled small CLIPs: ``python -m scripts.figures.learners`` measures
the figures of docs/learners.md.

They go to docs/learners.json, run by run, and as tables into docs/learners.md. Runs that the file has are
kept, so that a broken-off measurement goes on; delete the file to measure anew."""

import argparse
import json
import time

import torch

from pyfastcal import DistanceAwareCalibration
from pyfastcal.clip import SmallCLIP, load_small, tasks
from pyfastcal.clip.prompts import LEARNERS
from scripts.figures.page import DOCS, with_tables
from scripts.figures.zero_shot import Figures, classified, figures, parts, zero_shot

CARD, FIGURES = DOCS / "learners.md", DOCS / "learners.json"
TASKS, SEEDS = ("digits", "shapes"), (0, 1, 2)
OWN_LOGITS = ("CoCoOp", "ProDA")  # whose logits are not those of their text features
Runs = dict[str, dict]  # "task/seed/learner": what was measured


def tuned(clip: SmallCLIP, task: tasks.Task, name: str, seed: int) -> dict:
    """Figures of a learner at its published settings: by its own logits, by its text features, and the ECE that
    DAC leaves of its own; the first and last epoch's loss; processor seconds of the fit."""
    start = time.process_time()
    learner = LEARNERS[name](clip, template=task.template).fit(*task.train, task.base_classes, seed=seed)
    found: dict = {"seconds": round(time.process_time() - start, 1)}
    found["losses"] = [round(learner.losses[i], 3) for i in (0, -1)]
    base = task.base_classes
    bank = dict(base_tuned=learner.text_features(base), base_zeroshot=learner.zeroshot_text_features(base))
    for part, (classnames, split) in parts(task).items():
        texts, logits = learner.text_features(classnames), learner.logits(split.images, classnames)
        zeroshot = learner.zeroshot_text_features(classnames)
        dac = DistanceAwareCalibration().fit(tuned=texts, zeroshot=zeroshot, **bank)
        found[part] = own = figures(*logits.softmax(1).max(1), split.labels)
        own["DAC ece"] = figures(*dac(logits).softmax(1).max(1), split.labels)["ece"]
        if name in OWN_LOGITS:
            by_text = classified(learner.features(split.images), texts, split.labels, learner.logit_scale)
            found[f"{part} by text features"] = by_text
    return found


def measure(runs: Runs) -> Runs:
    """All that ``runs`` lacks; the file is written after each run."""
    for task_name in TASKS:
        clip = load_small(task_name)
        for seed in SEEDS:
            task = tasks.load(task_name, seed=seed)
            for name in ("zero-shot", *LEARNERS):
                key = f"{task_name}/{seed}/{name}"
                if key not in runs:
                    runs[key] = zero_shot(clip, task) if name == "zero-shot" else tuned(clip, task, name, seed)
                    FIGURES.write_text(json.dumps(runs, indent=1) + "\n")
    return runs


def tables(runs: Runs) -> dict[str, str]:
    """The document's tables, by their markers."""
    three = "accuracy / confidence / ECE"
    head = [f"| | base: {three} | new: {three} | new: ECE with DAC | loss, first and last epoch | fit, s |"]
    found = {}
    for task in TASKS:
        rows = [*head, "| --- | --- | --- | --- | --- | --- |"]
        for name in ("zero-shot", *LEARNERS):
            own = [runs[f"{task}/{seed}/{name}"] for seed in SEEDS]
            if name != "zero-shot":
                losses = " → ".join(f"{_mean([run['losses'][i] for run in own]):.2f}" for i in (0, 1))
                lower = sum(run["new"]["DAC ece"] < run["new"]["ece"] for run in own)
                with_dac = f"{_mean([run['new']['DAC ece'] for run in own]):.1f} (lower in {lower} of {len(own)})"
                rest = f"{with_dac} | {losses} | {_mean([run['seconds'] for run in own]):.1f}"
            else:
                rest = "- | - | -"
            rows.append(f"| {name} | {_three(own, 'base')} | {_three(own, 'new')} | {rest} |")
        found[task] = "\n".join(rows)
    rows = ["| | | base: own logits | base: text features | new: own logits | new: text features |", "| --- " * 6 + "|"]
    for task in TASKS:
        for name in OWN_LOGITS:
            own = [runs[f"{task}/{seed}/{name}"] for seed in SEEDS]
            cells = [_three(own, f"{part}{by}") for part in ("base", "new") for by in ("", " by text features")]
            rows.append(f"| {task} | {name} | {' | '.join(cells)} |")
    return found | {"own logits": "\n".join(rows)}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _three(runs: list[dict[str, Figures]], part: str) -> str:
    return " / ".join(f"{_mean([run[part][key] for run in runs]):.1f}" for key in ("accuracy", "confidence", "ece"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Measure the prompt learners and write the tables of docs/learners.md."
    )
    parser.add_argument("--tables-only", action="store_true", help="write the tables of the figures that are there")
    args = parser.parse_args()
    torch.set_num_threads(1)
    runs = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    if not args.tables_only:
        runs = measure(runs)
    CARD.write_text(with_tables(CARD.read_text(), tables(runs)))


if __name__ == "__main__":
    main()
