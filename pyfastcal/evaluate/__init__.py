"""Methods on features, measured: a split in memory (``split``), or one in shards, in constant memory, by any number of
processes (``stream``)."""

from .evaluation import METRICS, Evaluation
from .methods import DEFAULT_METHODS, METHODS, Calibrated, NotApplicable, check_methods
from .scores import proper_scores
from .split import evaluate, evaluate_split
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
