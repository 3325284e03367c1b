"""The bundled small CLIPs: real open_clip models, pre-trained for this package.

``digits`` saw warped glyphs of computer fonts, ``shapes`` a rendered world (0.47 M parameters, ``python -m
scripts.clip.pretrain``), ``drawings`` emoji and icons that people drew (5.2 M parameters, ``python -m
scripts.drawings.pretrain``); ``drawings-small`` and ``drawings-resnet`` are other backbones on the same drawings.
docs/small_clips.md is their model card."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from .. import open_clip_import
from ..tokenizer import WordTokenizer

__all__ = ["NAMES", "SmallCLIP", "files_of", "load_from", "load_small"]

FOLDER = Path(__file__).parent
NAMES = ("digits", "shapes", "drawings", "drawings-small", "drawings-resnet")


@dataclass(frozen=True)
class SmallCLIP:
    """A bundled model with what belongs to it.

    ``model``: an ``open_clip.CLIP`` in evaluation mode, parameters frozen; ``tokenizer``: texts -> ids (N, L), L its
    context length, of whole words, or of sub-words where ``vocabulary.txt.gz`` has them (open_clip's
    ``SimpleTokenizer``), so that any English text can be given; ``preprocess``: PIL image -> normalised tensor
    (3, S, S); ``name``: one of ``NAMES``."""

    model: nn.Module
    tokenizer: Callable[..., Any]
    preprocess: Callable[[Any], Any]
    name: str

    @property
    def image_size(self) -> int:
        """S, the side of the images that the model takes, in pixels."""
        size = self.model.visual.image_size  # open_clip's transformers have two numbers, its ResNets one
        return size if isinstance(size, int) else size[0]


def files_of(name: str, folder: Path = FOLDER) -> tuple[Path, Path, Path]:
    """open_clip's configuration (its stem is the model's name there), the vocabulary, which those on drawings share,
    the weights."""
    inside = folder / name
    drawn = name.startswith("drawings")
    words = folder / "drawings" / "vocabulary.txt.gz" if drawn else inside / "vocabulary.json"
    return inside / f"pyfastcal-{name}.json", words, inside / "weights.safetensors"


def load_small(name: str) -> SmallCLIP:
    """Load a bundled model, through open_clip's own ``create_model_and_transforms(..., pretrained=path)``.

    After the call the configuration stays registered with open_clip as ``"pyfastcal-<name>"``. ValueError
    for an unknown name."""
    if name not in NAMES:
        raise ValueError(f"name must be one of {', '.join(map(repr, NAMES))}, got {name!r}")
    return load_from(name, FOLDER)


def load_from(name: str, folder: Path) -> SmallCLIP:
    """Load what the pre-training wrote into ``folder``."""
    open_clip = open_clip_import.import_open_clip()
    config, vocabulary, weights = files_of(name, folder)
    if open_clip.get_model_config(f"pyfastcal-{name}") != json.loads(config.read_text(encoding="utf-8")):
        open_clip.add_model_config(config)  # the last one of a name holds: also where another folder's was there
    model, _, preprocess = open_clip.create_model_and_transforms(f"pyfastcal-{name}", pretrained=str(weights))
    tokenizer: Callable[..., Any]
    if vocabulary.suffix == ".gz":
        tokenizer = open_clip.SimpleTokenizer(bpe_path=str(vocabulary), context_length=model.context_length)
    else:
        words = json.loads(vocabulary.read_text(encoding="utf-8"))["words"]
        tokenizer = WordTokenizer(words, model.context_length)
    return SmallCLIP(model.eval().requires_grad_(False), tokenizer, preprocess, name)
