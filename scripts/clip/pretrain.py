"""Pre-train a bundled small CLIP from nothing: ``python -m scripts.clip.pretrain digits|shapes``.

Contrastive learning as in CLIP (Radford et al. 2021, arXiv 2103.00020) on images drawn afresh for every
batch, with two departures. The logit scale is not learned but scheduled, from CLIP's start 1/0.07 to its
cap 100: learned freely it stays near the start in so short a training, and zero-shot confidences come out
too low. And captions that are equal within a batch count as one text, with all their images as its
positives.

One thread and one seed: the same machine with the same versions gives the same weights, bit for bit.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from pyfastcal.clip import import_open_clip
from pyfastcal.clip.small import FOLDER, files_of
from pyfastcal.clip.tasks.images import IMAGE_SIZE
from pyfastcal.clip.tokenizer import WordTokenizer
from pyfastcal.io.paths import atomic_write
from scripts.clip.glyphs import Glyphs
from scripts.clip.shape_scenes import ShapeScenes

DATA = {"digits": Glyphs, "shapes": ShapeScenes}
SEEDS = {"digits": 2024, "shapes": 2025}
STEPS = {"digits": 1200, "shapes": 1200}
BATCH_SIZE = 128
CONTEXT_LENGTH = 26  # start, at most 18 words before the name, a name of 3 words, full stop, end: 24
LEARNING_RATE, WARM_UP, WEIGHT_DECAY = 2e-3, 50, 0.05
START_SCALE, FINAL_SCALE, SCALE_RAMP = 1 / 0.07, 100.0, 0.7  # the ramp takes 70 % of the steps


def architecture(vocab_size: int) -> dict:
    """The configuration in open_clip's terms: 0.47 M parameters."""
    text = {"context_length": CONTEXT_LENGTH, "vocab_size": vocab_size, "width": 64, "heads": 2, "layers": 2}
    vision = {"image_size": IMAGE_SIZE, "patch_size": 8, "width": 96, "layers": 3, "head_width": 32}
    return {"embed_dim": 64, "vision_cfg": vision, "text_cfg": text}


def contrastive_loss(images: Tensor, texts: Tensor, caption: Tensor, scale: Tensor) -> Tensor:
    """CLIP's symmetric loss between images (N, D) and the M different captions (M, D); ``caption`` (N,)
    int64 says which is each image's. From text to image, all images of a caption are right, with equal
    shares."""
    logits = scale * images @ texts.T
    right = F.one_hot(caption, len(texts)).float()
    shares = right / right.sum(0)
    to_image = -(shares * logits.log_softmax(0)).sum(0)
    return (F.cross_entropy(logits, caption) + (to_image * right.sum(0)).sum() / len(images)) / 2


def encode_text(model: torch.nn.Module, ids: Tensor) -> Tensor:
    """``model.encode_text`` without the padding behind the longest text, to which a causal tower is blind."""
    length = int(ids.argmax(1).max()) + 1
    x = model.token_embedding(ids[:, :length]) + model.positional_embedding[:length]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
    return F.normalize(x[torch.arange(len(ids)), ids.argmax(1)] @ model.text_projection, dim=-1)


def pretrain(name: str, *, steps: int, seed: int, log_every: int = 100) -> tuple[torch.nn.Module, WordTokenizer]:
    """Train and return the model, in evaluation mode, and its tokenizer."""
    torch.manual_seed(seed)
    data = DATA[name](seed)
    tokenizer = WordTokenizer(data.words, CONTEXT_LENGTH)
    model = import_open_clip().CLIP(**architecture(tokenizer.vocab_size))
    model.logit_scale.requires_grad_(False)
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2 and p.requires_grad]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.98), fused=True)
    start, losses = time.monotonic(), []
    for step in range(steps):
        done = step / steps
        rate = LEARNING_RATE * min(1.0, (step + 1) / WARM_UP) * (0.5 + 0.5 * math.cos(math.pi * done))
        for group in optimizer.param_groups:
            group["lr"] = rate
        ramp = min(1.0, done / SCALE_RAMP)
        model.logit_scale.fill_((1 - ramp) * math.log(START_SCALE) + ramp * math.log(FINAL_SCALE))

        images, captions = data.batch(BATCH_SIZE)
        different = list(dict.fromkeys(captions))
        place = {text: i for i, text in enumerate(different)}
        caption = torch.tensor([place[text] for text in captions])
        image_features = model.encode_image(images, normalize=True)
        text_features = encode_text(model, tokenizer(different))
        loss = contrastive_loss(image_features, text_features, caption, model.logit_scale.exp())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

        losses.append(loss.item())
        if (step + 1) % log_every == 0 or step + 1 == steps:
            seconds = time.monotonic() - start
            left = seconds / (step + 1) * (steps - step - 1)
            mean = sum(losses[-log_every:]) / len(losses[-log_every:])
            print(
                f"step {step + 1}/{steps}  loss {mean:.3f}  logit scale {model.logit_scale.exp():.0f}  "
                f"{(step + 1) / seconds:.1f} steps/s  {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )
    return model.eval(), tokenizer


def save(name: str, model: torch.nn.Module, tokenizer: WordTokenizer, folder: Path) -> None:
    """Write the configuration, the vocabulary and the weights."""
    config, vocabulary, weights = files_of(name, folder)
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(json.dumps(architecture(tokenizer.vocab_size), indent=2) + "\n")
    vocabulary.write_text(json.dumps({"words": tokenizer.words}, indent=0) + "\n")
    tensors = {key: value.contiguous() for key, value in model.state_dict().items()}
    atomic_write(weights, lambda path: save_file(tensors, path))


def main() -> None:
    parser = argparse.ArgumentParser(description="Pre-train a bundled small CLIP from nothing.")
    parser.add_argument("name", choices=DATA)
    parser.add_argument("--out", type=Path, default=FOLDER, help="where to write (default: into the package)")
    parser.add_argument("--steps", type=int, help="fewer or more steps than the recipe's")
    parser.add_argument("--seed", type=int, help="another seed than the recipe's")
    args = parser.parse_args()
    torch.set_num_threads(1)  # part of the recipe: sums over threads differ in their last bits
    wall, cpu = time.monotonic(), time.process_time()
    seed = SEEDS[args.name] if args.seed is None else args.seed
    model, tokenizer = pretrain(args.name, steps=args.steps or STEPS[args.name], seed=seed)
    save(args.name, model, tokenizer, args.out)
    print(
        f"{args.name}: written to {files_of(args.name, args.out)[2].parent}, "
        f"{time.monotonic() - wall:.0f} s, {time.process_time() - cpu:.0f} s of processor time"
    )


if __name__ == "__main__":
    main()
