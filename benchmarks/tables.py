"""The measurements as a table in the terminal and as the README's."""

import itertools
from typing import Any

from rich import box
from rich.table import Table

from . import products
from .harness import Row
from .targets import TARGETS

CAPTION = (
    "figure: the time of a peer, or of one product, over ours; ours over that of a floor; memory beyond the inputs. "
    "CPU figure: the same in CPU time, all threads together: steadier on a busy machine. Of the processor's peak: the "
    "least that the work must do, at the rate that this run does it, of what all threads can do together."
)
GEMM = "GEMM rate"


def seconds(x: float | None) -> str:
    if x is None:
        return ""
    for unit, scale in (("s", 1.0), ("ms", 1e3)):
        if x * scale >= 1:
            return f"{_three_digits(x * scale)} {unit}"
    return f"{_three_digits(x * 1e6)} µs"


def figure(row: Row, value: float | None) -> str:
    return "" if value is None else f"{_three_digits(value)} {row.unit}" if row.unit == "MB" else f"{value:.2f}x"


def _three_digits(x: float) -> str:
    return f"{x:.0f}" if x >= 100 else f"{x:.3g}"


def terminal(rows: list[Row]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, caption=CAPTION, caption_justify="left", show_edge=False, pad_edge=False)
    table.add_column("")
    for name in ("time", "figure", "CPU figure", "target"):
        table.add_column(name, justify="right", no_wrap=True)
    with_peaks = any(row.peaks for row in rows)
    if with_peaks:
        table.add_column("of the processor's peak", justify="right")
    table.add_column("holds")
    for work, group in itertools.groupby(rows, key=lambda row: row.work):
        table.add_section()
        table.add_row(f"[bold]{work}[/]")
        for row in group:
            table.add_row(
                f"  {row.contender}{' (floor)' if row.role == 'floor' else ''}",
                seconds(row.seconds),
                figure(row, row.figure),
                figure(row, row.cpu_figure),
                str(row.target or ""),
                *([peaks(row)] if with_peaks else []),
                {True: "[green]yes[/]", False: "[red]no[/]", None: row.note or shares(row)}[row.holds],
            )
    return table


def shares(row: Row) -> str:
    return "; ".join(f"{share:.0%} of {floor}" for floor, share in row.shares.items())


def peaks(row: Row) -> str:
    """Of fp32's, bf16's (AMX's, where there is one) and the memory's, those that the work needs."""
    return ", ".join(f"{name.removesuffix(' peak')} {share:.0%}" for name, share in row.peaks.items())


def short(rows: list[Row]) -> str:
    """Of one work: our time, and how it compares."""
    figures = [f"{figure(row, row.figure)} {row.contender}" for row in rows if row.figure]
    return ", ".join([seconds(rows[0].seconds) or rows[0].note, *figures])


def markdown(rows: list[Row], stamp: dict[str, Any]) -> str:
    """One line per work: how many times faster than each peer, and how far from the floor (on a GPU: the time, and what
    share of the floor's rate is reached). Times of a shared processor are no claim: the results file has them."""
    on_gpu = stamp.get("device") == "cuda"
    heads = ["work", *(["time"] if on_gpu else []), "vs torch", "vs torch.compile", "vs peer", "vs floor"]
    heads += [] if on_gpu else ["memory"]
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for work in dict.fromkeys(row.work for row in rows):
        mine = {row.contender: row for row in rows if row.work == work}
        peers = [r for r in mine.values() if r.role == "peer" and not r.contender.startswith("torch.") and r.figure]
        peers = [r for r in peers if r.contender not in ("torch eager", "torchmetrics, unchecked")]
        floors = [r for r in mine.values() if r.role == "floor" and r.figure]
        peak = mine.get("peak memory, ours")
        ours = mine.get("pyfastcal")
        if ours is None or ours.seconds is None:
            lines.append(f"| {work} | {ours.note if ours else 'not measured'} " + "| " * (len(heads) - 2) + "|")
            continue
        cells = [
            work,
            *([seconds(ours.seconds)] if on_gpu else []),
            *(_times(mine.get(name)) for name in ("torch eager", "torch.compile")),
            "; ".join(f"{_times(r)} {r.contender}" for r in peers),
            "; ".join(
                f"{1 / r.figure:.0%} of {r.contender}" if on_gpu else f"{r.figure:.2f}x {r.contender}" for r in floors
            ),
            *([] if on_gpu else [figure(peak, peak.figure) if peak else ""]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", headline(stamp) + "."])


def _times(row: Row | None) -> str:
    if row is None or row.figure is None:
        return ""
    return f"{row.figure:.2f}x" if row.figure < 10 else f"{row.figure:.0f}x"


def verdict(rows: list[Row]) -> str:
    """Of each work by both products: their times, what share they reach of the rate of torch's product, and whether
    that by warpgroups is the faster."""
    names = ("mma", "wgmma")
    heads = ("op", "work", *names, "mma / wgmma", *(f"{name} of {GEMM}" for name in names), "target", "wgmma faster")
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for work in dict.fromkeys(row.work for row in rows):
        mine = {row.contender: row for row in rows if row.work == work}
        both = [mine.get(products.contender(name)) for name in names]
        measured = [row if row and row.seconds else None for row in both]
        target = TARGETS.get(work, {}).get(GEMM)
        ratio = measured[0].figure / measured[1].figure if all(measured) else None
        why = "; ".join(row.note for row in mine.values() if row.role in ("ours", "product") and row.note)
        cells = [
            mine["pyfastcal"].op,
            work,
            *(seconds(row and row.seconds) for row in both),
            "" if ratio is None else f"{ratio:.2f}x",
            *(f"{row.shares[GEMM]:.0%}" if row else "" for row in measured),
            f"{1 / target.limit:.0%}" if target else "",
            why or ("" if ratio is None else "yes" if ratio > 1 else "no"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def headline(stamp: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {v}" for name, v in stamp["versions"].items() if v and v != "unknown")
    commit = (stamp["commit"] or "unknown")[:10] + (" with changes" if stamp["dirty"] else "")
    machine = f"{stamp['cpu']}, {stamp['threads']} threads, {stamp['capability'] or 'no kernels'}"
    if stamp.get("gpu"):
        machine = f"{stamp['gpu']}, driver {stamp['driver']}, CUDA {stamp['cuda']}"
    return f"{machine}; {versions}; commit {commit}, {stamp['date'][:10]}"
