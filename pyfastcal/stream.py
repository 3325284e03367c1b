"""Evaluation in shards, under the name that documents gave it first: :mod:`pyfastcal.evaluate` has it."""

from .evaluate import evaluate_shards

__all__ = ["evaluate_shards"]
