"""Seeded bugs, one module per kernel: each has TESTS, the test programs that should notice, and MUTATIONS."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    name: str
    file: str  # from csrc/cuda
    old: str  # occurs exactly once in it
    new: str
    survives: str = ""  # why no test can notice it, where that is so
    tests: tuple[str, ...] = ()  # where not the module's TESTS
