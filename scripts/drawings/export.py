"""From a training's last state to a bundled CLIP: ``python -m scripts.drawings.export vit``.

The weights are half precision. The logit scale is the one of the least negative log-likelihood of held-out drawings of
concepts outside the tasks, painted as the tasks paint theirs, each among 39 others by chance: as many as a task has."""

import argparse
import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from pyfastcal.clip.small import FOLDER, files_of
from pyfastcal.clip.tasks.drawings import TARGET
from pyfastcal.io.paths import atomic_write

from .data import Pretraining
from .models import MODELS
from .pretrain import State, tokenizer_of, validation_scores

NAMES = {"vit": "drawings", "vit-small": "drawings-small", "resnet": "drawings-resnet"}
WAYS = 40
SCALES = torch.logspace(math.log10(5), math.log10(100), 200).tolist()


def fitted_scale(scores: torch.Tensor, labels: torch.Tensor) -> float:
    """Of cosines (N, C): the right class and 39 others, drawn five times for each row."""
    generator = torch.Generator().manual_seed(0)
    few = []
    for _ in range(5):
        noise = torch.rand(scores.shape, generator=generator).scatter(1, labels[:, None], 2.0)  # the right one first
        few.append(scores.gather(1, noise.topk(min(WAYS, scores.shape[1]), 1).indices))
    among = torch.cat(few)
    right = torch.zeros(len(among), dtype=torch.int64)
    return min(SCALES, key=lambda scale: F.cross_entropy(scale * among, right).item())


def export(kind: str, state: State, data: Pretraining, vocabulary: Path, folder: Path = FOLDER) -> float:
    """Write configuration, vocabulary and weights of the model into ``folder``; its logit scale. ValueError where the
    vocabulary there, which all models on drawings share, is another one."""
    tokenizer = tokenizer_of(vocabulary, MODELS[kind].context_length)
    scale = fitted_scale(*validation_scores(state, data, tokenizer, TARGET))
    state.model.logit_scale.data.fill_(math.log(scale))
    config, words, weights = files_of(NAMES[kind], folder)
    own = (vocabulary / words.name).read_bytes()
    if words.exists() and words.read_bytes() != own:
        raise ValueError(f"vocabulary must be that of {words}, got another one in {vocabulary}")
    for file in (config, words):
        file.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(json.dumps(MODELS[kind].architecture(tokenizer.vocab_size), indent=2) + "\n")
    words.write_bytes(own)
    tensors = {key: value.half().contiguous() for key, value in state.model.state_dict().items()}
    about = {"kind": kind, "steps": str(state.step), "seconds": str(round(state.seconds))}
    atomic_write(weights, lambda path: save_file(tensors, path, about))
    return scale


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a pre-trained CLIP into the package.")
    parser.add_argument("kind", choices=MODELS)
    parser.add_argument("--data", type=Path, default=Path("build/drawings"))
    parser.add_argument("--state", type=Path, help="default: DATA/KIND/last.pt")
    parser.add_argument("--out", type=Path, default=FOLDER)
    args = parser.parse_args()
    data = Pretraining(args.data, MODELS[args.kind].image_size)
    tokenizer = tokenizer_of(args.data, MODELS[args.kind].context_length)
    state = State(args.kind, tokenizer.vocab_size, "cpu")
    state.load(args.state or args.data / args.kind / "last.pt")
    scale = export(args.kind, state, data, args.data, args.out)
    print(f"{NAMES[args.kind]}: step {state.step}, logit scale {scale:.1f}")


if __name__ == "__main__":
    main()
