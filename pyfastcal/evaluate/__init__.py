"""Methods on features, measured: a split in memory (``split``), or one in shards, in constant memory, by any number of
processes (``stream``)."""

from .methods import DEFAULT_METHODS, METHODS, Calibrated, NotApplicable, check_methods
from .split import METRICS, Evaluation, evaluate, evaluate_split, proper_scores
from .stream import evaluate_shards

__all__ = [
    "DEFAULT_METHODS",
    "METHODS",
    "METRICS",
    "Calibrated",
    "Evaluation",
    "NotApplicable",
    "check_methods",
    "evaluate",
    "evaluate_shards",
    "evaluate_split",
    "proper_scores",
]
