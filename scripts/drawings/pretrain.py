"""Pre-train a CLIP on the drawings, from nothing: ``python -m scripts.drawings.pretrain vit --out build/drawings/vit``.

Contrastive learning as in CLIP (Radford et al. 2021, arXiv 2103.00020). Departures: the logit scale is scheduled, not
learned, and set after training by what calibrates held-out drawings outside the tasks; half of the patches are left out
(FLIP, Li et al. 2023, arXiv 2212.00794) until the learning rate, which stays the same, falls linearly to zero over the
last quarter; matrices within the transformers are learned by Muon (Liu et al. 2025, arXiv 2502.16982), which needs half
of AdamW's steps here, all else by AdamW. A longer training goes on from the state before that fall.

``--steps N`` trains up to step N; a killed run goes on from its last state. Each batch hangs on its number alone.
``--start`` goes on from a bundled model's weights, whose file tells their step, with optimizers that start anew."""

import argparse
import math
import os
import sys
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn

from pyfastcal.clip import import_open_clip
from pyfastcal.clip.tasks.canvas import Domain, paint
from pyfastcal.clip.tasks.drawings import TEMPLATE
from pyfastcal.clip.tasks.images import normalize
from pyfastcal.io.paths import atomic_write

from .data import PRETRAINING, VALIDATION, Batch, Pretraining
from .models import MODELS, image_features, text_features

BATCH = 256
LEARNING_RATE, WARM_UP, WEIGHT_DECAY = 1e-3, 500, 0.1
FALL = 0.25  # the last part of a training, in which the learning rate falls to zero
START_SCALE, SCALE, SCALE_STEPS = 1 / 0.07, 50.0, 3000
PATCHES_LEFT_OUT = 0.5


def tokenizer_of(folder: Path, length: int):  # type: ignore[no-untyped-def]
    import_open_clip()
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer(bpe_path=str(folder / "vocabulary.txt.gz"), context_length=length)


def contrastive_loss(images: Tensor, texts: Tensor, scale: float) -> Tensor:
    """CLIP's symmetric loss; every image has its own text, and no two the same concept."""
    logits = scale * images @ texts.T
    own = torch.arange(len(images), device=images.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


class State:
    """A training between two steps: model, optimizer, number of the next step, seconds of processor time so far, the
    step that its optimizers began at."""

    def __init__(self, kind: str, vocab_size: int, device: str) -> None:
        torch.manual_seed(2026)
        self.kind, self.step, self.seconds, self.began, self.device = kind, 0, 0.0, 0, device
        self.model = import_open_clip().CLIP(**MODELS[kind].architecture(vocab_size)).to(device)
        self.model.logit_scale.requires_grad_(False)
        if not hasattr(self.model.visual, "transformer"):
            self.model.visual.to(memory_format=torch.channels_last)
        hidden = [p for name, p in self.model.named_parameters() if p.ndim == 2 and "resblocks" in name]
        inner = {id(p) for p in hidden}
        rest = [p for p in self.model.parameters() if p.requires_grad and id(p) not in inner]
        groups = [
            {"params": [p for p in rest if p.ndim >= 2], "weight_decay": WEIGHT_DECAY},
            {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.98), fused=True)
        ]
        if hidden:
            kind_of = {"adjust_lr_fn": "match_rms_adamw", "weight_decay": WEIGHT_DECAY}
            self.optimizers.append(torch.optim.Muon(hidden, lr=LEARNING_RATE, **kind_of))

    def save(self, file: Path) -> None:
        found = {
            "step": self.step,
            "seconds": self.seconds,
            "began": self.began,
            "kind": self.kind,
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        atomic_write(file, lambda path: torch.save(found, path))

    def load(self, file: Path) -> None:
        found = torch.load(file, map_location=self.device, weights_only=True)
        if found["kind"] != self.kind:
            raise ValueError(f"{file}: is of {found['kind']}, not of {self.kind}")
        self.step, self.seconds, self.began = found["step"], found["seconds"], found["began"]
        self.model.load_state_dict(found["model"])
        for optimizer, own in zip(self.optimizers, found["optimizers"], strict=True):
            optimizer.load_state_dict(own)

    def load_weights(self, file: Path) -> None:
        """Of a bundled model, as ``export`` wrote them."""
        with safe_open(file, "pt") as found:
            about = found.metadata()
            if about["kind"] != self.kind:
                raise ValueError(f"{file}: is of {about['kind']}, not of {self.kind}")
            self.model.load_state_dict({key: found.get_tensor(key).float() for key in found.keys()})  # noqa: SIM118
        self.step = self.began = int(about["steps"])
        self.seconds = float(about["seconds"])


class _Ahead:
    """Batches, of which the next are made while the model works on one: on CPUs one, beside a GPU as many as there are
    cores."""

    def __init__(self, data: Pretraining, size: int, device: str) -> None:
        self.data, self.size, self.made = data, size, deque()
        self.most = 1 if device == "cpu" else max(1, (os.cpu_count() or 1) - 2)
        self.pool = ThreadPoolExecutor(self.most, initializer=torch.set_num_threads, initargs=(1,))

    def batch(self, step: int) -> Batch:
        while len(self.made) <= self.most:
            self.made.append(self.pool.submit(self.data.batch, self.size, step + len(self.made)))
        return self.made.popleft().result()


def rate_at(step: int, steps: int, began: int = 0) -> float:
    """The learning rate: a warm-up, a plateau, a straight fall over the last quarter of ``steps``."""
    left, warm_up = (steps - step) / (FALL * steps), min(WARM_UP, steps // 8)
    return LEARNING_RATE * min(1.0, (step - began + 1) / max(warm_up, 1), left)


def scale_at(step: int) -> float:
    share = min(1.0, step / SCALE_STEPS)
    return math.exp((1 - share) * math.log(START_SCALE) + share * math.log(SCALE))


def train(
    state: State, data: Pretraining, tokenizer, steps: int, folder: Path, *, batch: int = BATCH, keep_every: int = 500
) -> None:  # type: ignore[no-untyped-def]
    """Up to step ``steps``. ``last.pt``: the state every ``keep_every`` steps; ``plateau.pt``: that before the fall."""
    start, first, losses, hits = time.monotonic(), state.step, [], []
    plateau, clock = int((1 - FALL) * steps), time.process_time() - state.seconds
    state.model.train()
    ahead = _Ahead(data, batch, state.device)
    while state.step < steps:
        if state.step == plateau:
            state.save(folder / "plateau.pt")
        for optimizer in state.optimizers:
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = rate_at(state.step, steps, state.began)
        images, captions, _ = ahead.batch(state.step)
        ids = tokenizer(captions).to(state.device)
        with torch.autocast(torch.device(state.device).type, torch.bfloat16):
            generator = torch.Generator().manual_seed(state.step)
            left_out = PATCHES_LEFT_OUT if state.step < plateau else 0.0
            seen = image_features(state.model, images.to(state.device), left_out, generator)
            said = text_features(state.model, ids)
        loss = contrastive_loss(seen.float(), said.float(), scale_at(state.step))
        loss.backward()
        nn.utils.clip_grad_norm_(state.model.parameters(), 1.0)
        for optimizer in state.optimizers:
            optimizer.step()
        state.step += 1
        state.seconds = time.process_time() - clock
        losses.append(loss.item())
        hits.append(((seen @ said.T).argmax(1).cpu() == torch.arange(len(seen))).float().mean().item())
        if state.step % 100 == 0 or state.step == steps:
            seconds = time.monotonic() - start
            pace = (state.step - first) / seconds
            mean, right = (sum(x[-100:]) / len(x[-100:]) for x in (losses, hits))
            line = f"step {state.step}/{steps}  loss {mean:.3f}  right {right:.3f}"
            if state.step % 1000 == 0 or state.step == steps:
                line += f"  held out {validate(state, data, tokenizer)}"
                state.model.train()
            print(f"{line}  {pace:.2f} steps/s  {(steps - state.step) / pace:.0f} s left", file=sys.stderr, flush=True)
        if state.step % keep_every == 0 or state.step == steps:
            state.save(folder / "last.pt")


@torch.no_grad()
def validation_scores(  # type: ignore[no-untyped-def]
    state: State, data: Pretraining, tokenizer, domain: Domain = PRETRAINING
) -> tuple[Tensor, Tensor]:
    """Cosines (N, C) of held-out drawings of concepts outside the tasks, painted as in ``domain``, with those concepts'
    names; labels (N,)."""
    state.model.eval()
    rows = torch.nonzero(data.role == VALIDATION)[:, 0]
    concepts, labels = data.concept[rows].unique(return_inverse=True)
    generator, device = torch.Generator().manual_seed(1), torch.device(state.device)
    canvas = paint(data.images[rows], data.coloured[rows], domain, generator, size=data.size)
    texts = tokenizer([TEMPLATE.format(data.captions.names[c]) for c in concepts.tolist()]).to(device)
    images = normalize(canvas.images).to(device).split(512)
    with torch.autocast(device.type, torch.bfloat16):
        said = text_features(state.model, texts).float()
        seen = torch.cat([image_features(state.model, x).float() for x in images])
    return (seen @ said.T).cpu(), labels


def validate(state: State, data: Pretraining, tokenizer) -> str:  # type: ignore[no-untyped-def]
    """Accuracy among the held-out concepts, and the logit scale that fits them best."""
    scores, labels = validation_scores(state, data, tokenizer)
    right = (scores.argmax(1) == labels).float().mean().item()
    scales = torch.logspace(1, 2.3, 40)
    best = min(scales.tolist(), key=lambda s: F.cross_entropy(s * scores, labels).item())
    return f"{100 * right:.1f} % of {scores.shape[1]}, scale {best:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Pre-train a CLIP on the drawings.")
    parser.add_argument("kind", choices=MODELS)
    parser.add_argument("--data", type=Path, default=Path("build/drawings"))
    parser.add_argument("--out", type=Path, help="folder of states and the model (default: DATA/KIND)")
    parser.add_argument("--steps", type=int, default=12000)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--start", type=Path, help="weights to go on from; --out must have no state")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    out = args.out or args.data / args.kind
    out.mkdir(parents=True, exist_ok=True)
    data = Pretraining(args.data, MODELS[args.kind].image_size)
    tokenizer = tokenizer_of(args.data, MODELS[args.kind].context_length)
    state = State(args.kind, tokenizer.vocab_size, args.device)
    if (out / "last.pt").exists():
        if args.start is not None:
            parser.error(f"--start: {out} has a state already, from which a training goes on without it")
        state.load(out / "last.pt")
    elif args.start is not None:
        state.load_weights(args.start)
    print(f"{args.kind} from step {state.step} to {args.steps}", file=sys.stderr)
    train(state, data, tokenizer, args.steps, out, batch=args.batch)


if __name__ == "__main__":
    main()
