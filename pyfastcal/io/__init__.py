"""Files: features in and out, whole or in shards. What may be read and written is in ``paths``, how words from outside
are shown in ``text``."""

from .features import ClassSet, FeatureSet, load_classes, load_features, save_features
from .shards import Shard, find_shards

__all__ = ["ClassSet", "FeatureSet", "Shard", "find_shards", "load_classes", "load_features", "save_features"]
