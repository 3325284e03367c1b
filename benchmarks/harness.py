"""Measures contenders in turns.

All contenders of a case run in one process, one call each per round, so that whatever slows the machine down slows
them alike; the figure is the median over rounds of the ratio within a round. On a GPU a call's time is that between two
CUDA events; where a batch is so small that launching takes longest, calls are replays of CUDA graphs.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch

from .peaks import Cost
from .targets import TARGETS

Call = Callable[[], Any]


class Disagreement(RuntimeError):
    """Two contenders gave different answers."""


@dataclass
class Floor:
    """What no implementation of the work could beat: a call that moves ``1 / share`` times the bytes (or does as many
    times the FLOPs) that the work must."""

    call: Call
    share: float = 1.0


@dataclass
class Case:
    """Contenders for one piece of work.

    ``idiom(*inputs)`` is the plain torch way, run eagerly and under torch.compile. A peer that is a string is one
    that cannot run, and why. ``agree(ours, theirs)`` raises AssertionError where two answers differ by more than
    rounding.
    """

    ours: Call
    idiom: Callable[..., Any]
    inputs: tuple[Any, ...]
    agree: Callable[[Any, Any], None]
    peers: dict[str, Call | str] = field(default_factory=dict)
    floors: dict[str, Floor] = field(default_factory=dict)
    variants: dict[str, Call] = field(default_factory=dict)  # ours by each product: products.variants
    same: Callable[[Any, Any], None] | None = None  # as agree, of variants: they differ by fp32's rounding at most
    memory: bool = False  # whether to measure the peak memory of ours and of the idiom
    device: str = "cpu"
    compile: bool = True  # whether the idiom is worth compiling
    graph: bool = False  # on a GPU: captured in CUDA graphs, ours and the idiom
    cost: Cost | None = None  # on the CPU: what it takes at least, for the share of the processor's peaks


@dataclass
class Row:
    """One measurement. ``figure``: see ``targets``, and of a product its time over ours; None where there is none, and
    ``note`` says why. ``shares``: of ours and of a product, what share of each floor's rate it reaches."""

    op: str
    work: str
    contender: str
    role: str  # ours, product, peer, floor, memory
    seconds: float | None = None  # median of a call
    cpu_seconds: float | None = None  # median of a call, all threads together, their waiting in spin loops included
    figure: float | None = None
    ratio_of_medians: float | None = None
    cpu_figure: float | None = None  # the figure in CPU time: steadier on a busy machine
    rounds: int = 0
    note: str = ""
    shares: dict[str, float] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)  # what share of each of the processor's peaks it reaches

    @property
    def unit(self) -> str:
        return "MB" if self.role == "memory" else "x"

    @property
    def target(self):
        return TARGETS.get(self.work, {}).get(self.contender)

    @property
    def holds(self) -> bool | None:
        figure = self.seconds if self.target is not None and self.target.seconds else self.figure
        return None if self.target is None or figure is None else self.target.holds(figure)


@dataclass
class Settings:
    rounds: int = 9
    least_rounds: int = 3
    budget: float = 15.0  # seconds per contender, after which it leaves the rounds
    sample: float = 0.02  # seconds: shorter calls are repeated to fill it
    compile: bool = True
    peers: bool = True  # else only ours, by each product, and the floors
    products_only: bool = False  # only works that are measured by each product


GPU_SETTINGS = Settings(budget=4.0, sample=0.01)
QUICK_SETTINGS = Settings(rounds=2, least_rounds=2, budget=1.0, sample=0.001, compile=False)


@dataclass
class _Contender:
    role: str
    call: Call
    share: float = 1.0
    device: str = "cpu"
    repeats: int = 1
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)  # none on a GPU

    def measure(self) -> None:
        if self.device == "cuda":
            self.wall.append(device_seconds(self.call, self.repeats) * self.share / self.repeats)
            return
        time.sleep(0.005)  # let the previous contender's worker threads go to sleep
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(self.repeats):
            self.call()
        self.wall.append((time.perf_counter() - wall) * self.share / self.repeats)
        self.cpu.append((time.process_time() - cpu) * self.share / self.repeats)

    def spent(self) -> float:
        return sum(self.wall) * self.repeats / self.share

    def warm_up(self, sample: float) -> Any:
        """The call's result; decides how often a call is repeated to fill ``sample`` seconds."""
        start = time.perf_counter()
        result = self.call()
        if self.device == "cuda":
            torch.cuda.synchronize()
        took = time.perf_counter() - start
        if self.device == "cuda" and took < 1:  # what a first call loads and allocates does not count
            took = device_seconds(self.call, 1)
        self.repeats = max(1, int(sample / took))
        return result


def device_seconds(call: Call, repeats: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def graphed(call: Call) -> Call:
    """``call`` as the replay of a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()

    def replay() -> Any:
        graph.replay()
        return result

    return replay


def graphed_peer(call: Call) -> Call | str:
    try:
        return graphed(call)
    except RuntimeError as error:  # it waits for the GPU, say
        return f"no CUDA graph: {_first_line(error)}"


def compiled(function: Callable[..., Any], inputs: tuple[Any, ...]) -> Call | str:
    """``function`` under torch.compile, already compiled for ``inputs``; or why it cannot be."""
    torch._dynamo.reset()
    fast = torch.compile(function, dynamic=False)
    try:
        fast(*inputs)
    except Exception as error:
        return f"torch.compile failed: {type(error).__name__}"
    return lambda: fast(*inputs)


def measure(op: str, work: str, case: Case, settings: Settings) -> Iterator[Row]:
    """Checks that the contenders agree, then times them. A product that fails or gives something else is a row that
    says so: the others are still worth measuring."""
    ours: Call = case.ours
    peers: dict[str, Call | str] = {}
    variants: dict[str, Call | str] = {**case.variants}
    if settings.peers:
        peers["torch eager"] = lambda: case.idiom(*case.inputs)
        if settings.compile and case.compile:
            peers["torch.compile"] = compiled(case.idiom, case.inputs)
    if case.graph and case.device == "cuda":
        ours = graphed(ours)
        peers = {name: call if isinstance(call, str) else graphed_peer(call) for name, call in peers.items()}
        variants = {name: graphed_peer(call) for name, call in case.variants.items()}
    if settings.peers:
        peers |= case.peers
    contenders = {"pyfastcal": _Contender("ours", ours, device=case.device)}
    contenders |= {
        name: _Contender("product", call, device=case.device)
        for name, call in variants.items()
        if not isinstance(call, str)
    }
    contenders |= {
        name: _Contender("peer", call, device=case.device) for name, call in peers.items() if not isinstance(call, str)
    }
    contenders |= {name: _Contender("floor", f.call, f.share, case.device) for name, f in case.floors.items()}
    wrong = {name: why for name, why in variants.items() if isinstance(why, str)}
    wrong |= _warm_up(work, contenders, case, settings)
    contenders = {name: contender for name, contender in contenders.items() if name not in wrong}
    for number in range(settings.rounds):
        for contender in contenders.values():
            if number < settings.least_rounds or contender.spent() < settings.budget:
                contender.measure()
    ours = contenders["pyfastcal"]
    floors = {name: contender for name, contender in contenders.items() if contender.role == "floor"}
    for name, contender in contenders.items():
        row = _row(op, work, name, contender, ours)
        if contender.role in ("ours", "product"):
            row.shares = {floor: _ratio(of, contender) for floor, of in floors.items()}
        if case.cost and case.device == "cpu" and row.seconds:
            row.peaks = case.cost.shares(row.seconds)
        yield row
    for name, why in wrong.items():
        yield Row(op, work, name, "product", note=why)
    for name, why in peers.items():
        if isinstance(why, str):
            yield Row(op, work, name, "peer", note=why)


def _warm_up(work: str, contenders: dict[str, _Contender], case: Case, settings: Settings) -> dict[str, str]:
    """Gives the products that cannot be timed, and why."""
    answer = contenders["pyfastcal"].call()
    wrong: dict[str, str] = {}
    for name, contender in contenders.items():
        of_product = contender.role == "product"
        agree = case.same if of_product and case.same else case.agree
        try:
            result = contender.warm_up(settings.sample)
            if contender.role != "floor":
                agree(answer, result)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if not of_product:
                raise
            wrong[name] = f"failed: {_first_line(error)}"
        except AssertionError as error:
            if not of_product:
                raise Disagreement(f"{work}: {name} disagrees with pyfastcal: {error}") from error
            wrong[name] = f"disagrees with pyfastcal: {' '.join(str(error).split())}"
    return wrong


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _ratio(a: _Contender, b: _Contender) -> float:
    return median(x / y for x, y in zip(a.wall, b.wall, strict=False))


def _row(op: str, work: str, name: str, contender: _Contender, ours: _Contender) -> Row:
    row = Row(op, work, name, contender.role, median(contender.wall), rounds=len(contender.wall))
    if contender.cpu:
        row.cpu_seconds = median(contender.cpu)
    if contender is ours:
        return row
    over, under = (ours, contender) if contender.role == "floor" else (contender, ours)
    row.figure = _ratio(over, under)
    row.ratio_of_medians = median(over.wall) / median(under.wall)
    if contender.cpu:
        row.cpu_figure = median(over.cpu) / max(median(under.cpu), 1e-9)
    return row
