"""The shards of a split, under the name that documents gave them first: :mod:`pyfastcal.io` has them."""

from .io import Shard, find_shards

__all__ = ["Shard", "find_shards"]
