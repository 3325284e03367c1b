"""Evaluate a split of any size: its shards one after the other, in one pass and constant memory, on one process or
many, and on from where a killed run was.

All that is kept of an image is what it adds to the integers of an :class:`~pyfastcal.metrics.accumulator.Accumulator`
per method, so that the result is the same bits whatever the order of the shards, their split over ranks and the
restarts in between.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from ..calibration.proximity import proximity
from ..installation.commands import package_version
from ..io.features import ClassSet, FeatureSet
from ..io.shards import Shard, check_distinct
from ..io.text import counted
from ..metrics.accumulator import Accumulator
from .checkpoint import Checkpoint, fingerprint
from .evaluation import Evaluation, empty_row, numbers, recorded
from .methods import DEFAULT_METHODS, METHODS, PROXIMITY_NEIGHBOURS, Apply, NotApplicable, check_base, check_methods
from .ranks import Ranks
from .read_ahead import ReadAhead
from .scores import proper_scores
from .sums import Progress, Told, together

MEANS = ("nll", "brier")


def evaluate_shards(
    shards: Sequence[Shard],
    classes: ClassSet,
    base: FeatureSet | None = None,
    methods: Sequence[str] = DEFAULT_METHODS,
    n_bins: int = 10,
    *,
    split: str = "new",
    skip_bad: bool = False,
    checkpoint: str | None = None,
    every: float = 10.0,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Calibrate and measure one split that is spread over ``shards``.

    In a process group (``torchrun``) every rank calls this with the same arguments, takes its part of the shards,
    and returns the whole result, the same to the bit for any number of ranks.

    Args:
        classes: of all the shards. ``base``: as in :func:`pyfastcal.evaluate.evaluate_split`; without it there
            is no PIECE, as proximity to the split's own images would need all of them at hand.
        skip_bad: go on without the shards that cannot be read, and say so in the result.
        checkpoint: a folder, the same for all ranks, to keep the sums in, and to go on from; another evaluation's
            is refused. ``every``: seconds from one writing to the next.
        device: where images are calibrated; the sums stay on the CPU. ``"cuda"``: a GPU for each local rank.
        progress: called with the shards done and in all, of this rank.

    Returns:
        Evaluation: rows as those of ``evaluate_split``, in which ``ace`` and ``piece`` are those of bins that keep
        fine cells whole, and ``bounds`` has the numbers between which the exact ones lie; the reliability
        ``cells`` by method; and the ``skipped`` shards with the reasons. No features.

    Raises:
        ValueError: naming the shard that cannot be read and why; a checkpoint of another evaluation; no shards.
    """
    methods, ranks = check_methods(methods), Ranks()
    if not shards:
        raise ValueError("shards must name at least one shard, got none")
    classes.validate("classes")
    if base is not None:
        check_base(base.validate("base"), classes)
    device = ranks.device(device)
    fitted = _Fitted(classes, base, methods, n_bins, len(shards), device)
    kept = None
    if checkpoint is not None:
        kept = Checkpoint(checkpoint, shards, _identity(classes, base, methods, n_bins, device))

    def start() -> tuple[str, Progress]:
        check_distinct(shards)
        before = kept.start(fitted.nothing()) if kept else fitted.nothing()
        return (kept.run if kept else ""), before

    run, before = ranks.from_first(start)
    if kept:
        kept.run = run
    new, bad = fitted.nothing(), dict[int, str]()
    mine = ranks.mine((~before.done).nonzero()[:, 0].tolist())
    written = time.monotonic()
    for done, (index, part) in enumerate(fitted.stream(shards, mine), 1):
        if isinstance(part, Progress):
            new.merge(part)
        else:
            bad[index] = part
        stop = index in bad and not skip_bad
        if kept and (stop or done == len(mine) or time.monotonic() - written >= every):
            kept.save(ranks.rank, new)
            written = time.monotonic()
        if stop:
            raise ValueError(bad[index])
        if progress:
            progress(done, len(mine))
    if ranks.rank == 0:
        new.merge(before)
    total, bad = together(new, bad, ranks)
    if not total.images:
        raise ValueError(f"shards must hold images, got none that can be read: {next(iter(bad.values()))}")
    rows = [fitted.row(split, method, total, len(shards)) for method in methods]
    skipped = {shards[index].name: reason for index, reason in bad.items()}
    cells = {method: total.sums[method].read().bins for method in fitted.apply if method not in total.failed}
    return Evaluation(split, None, base, rows, {}, cells, skipped)


class _Fitted:
    """The methods, fitted, and what they make of shards."""

    def __init__(
        self,
        classes: ClassSet,
        base: FeatureSet | None,
        methods: Sequence[str],
        n_bins: int,
        shards: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.classes, self.device, self.shards = classes, device, shards
        self.there = classes = classes.to(device)
        base = base and base.to(device)
        based = base is not None and len(base.labels) >= PROXIMITY_NEIGHBOURS
        self.bank = base.image_features if based else None
        self.config = {"n_bins": n_bins, "n_proximity_bins": 10 if based else None, "means": MEANS}
        self.apply: dict[str, Apply] = {}
        self.notes: dict[str, str] = {}
        for method in methods:
            with recorded() as notes:
                try:
                    self.apply[method] = METHODS[method](classes, base)
                except (NotApplicable, ValueError) as error:
                    notes.append(str(error))
            self.notes[method] = "; ".join(dict.fromkeys(notes))

    def nothing(self) -> Progress:
        sums = {method: Accumulator(**self.config) for method in self.apply}
        return Progress(torch.zeros(self.shards, dtype=torch.bool), sums)

    def stream(self, shards: Sequence[Shard], indices: Sequence[int]) -> Iterator[tuple[int, Progress | str]]:
        """For each of ``indices`` what its shard adds, or why it cannot be read: all of a shard or nothing."""
        part, failed = self.nothing(), set[str]()
        with ReadAhead(shards, indices, self.classes) as ahead:
            for index, read in ahead:
                if isinstance(read, FeatureSet):
                    self._add(part, index, read, failed)
                    continue
                if read is None:
                    part.done[index] = True
                    failed |= part.failed.keys()  # no numbers will come of them
                yield index, part if read is None else read
                part = self.nothing()

    def _add(self, part: Progress, index: int, features: FeatureSet, failed: set[str]) -> None:
        features = replace(features, **vars(self.there), **features.images_on(self.device))
        near = None if self.bank is None else proximity(features.image_features, self.bank, PROXIMITY_NEIGHBOURS)
        part.images += len(features.labels)
        for method, apply in self.apply.items():
            if method in failed or method in part.failed:
                continue
            with recorded() as notes:
                try:
                    result = apply(features, near)
                except (NotApplicable, ValueError) as error:  # the features were checked: the method cannot use them
                    part.failed[method] = Told(index, str(error))
                    continue
            if notes:
                part.warned.setdefault(method, Told(index, "; ".join(dict.fromkeys(notes))))
            part.settings[method] = result.settings
            scores = {name: score.cpu() for name, score in proper_scores(result, features).items()}
            correct = (result.prediction == features.labels).cpu()
            part.sums[method].update(result.confidence.cpu(), correct, near if near is None else near.cpu(), **scores)

    def row(self, split: str, method: str, total: Progress, shards: int) -> dict[str, Any]:
        """The row of a method, once all shards are in ``total``."""
        row = empty_row(split, method, total.images, len(self.classes.text_features))
        notes = [self.notes[method]] if self.notes[method] else []
        if method in total.failed:
            return row | {"note": total.failed[method].text}
        if method in self.apply:
            sums = total.sums[method]
            row |= numbers(sums.compute()) | {"settings": total.settings.get(method, {})}
            row["bounds"] = {metric: list(interval) for metric, interval in sums.error_intervals().items()}
            if told := total.warned.get(method):
                notes.append(f"{told.text} (in {told.shards:,} of {counted(shards, 'shard')})")
        return row | {"note": "; ".join(notes)}


def _identity(
    classes: ClassSet, base: FeatureSet | None, methods: Sequence[str], n_bins: int, device: torch.device
) -> dict[str, Any]:
    """What of an evaluation must stay as it is while it goes on; the shards aside."""
    return {
        "version": package_version(),
        "methods": list(methods),
        "n_bins": n_bins,
        "device": device.type,
        "classes": fingerprint(vars(classes)),
        "base": fingerprint(vars(base)) if base is not None else "",
    }
