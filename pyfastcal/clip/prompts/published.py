"""Checkpoints of the published trainers, as they lie in ``<output>/<model name>/model.pth.tar-<epoch>``.

A file is a dictionary with the ``state_dict`` of what was trained, beside the state of its optimizer and
scheduler. What of it is read, by the names it has there:

=========== ========================= ================================================================
learner     model name                keys
=========== ========================= ================================================================
CoOp        prompt_learner            ctx (M, width)
KgCoOp      prompt_learner            the same (the published one has an unused meta_net, too)
ProGrad     prompt_learner            the same
CoCoOp      prompt_learner            ctx, meta_net.linear1 and .linear2 .weight and .bias
ProDA       prompt_learner            ctx (K, M, width)
MaPLe       MultiModalPromptLearner   prompt_learner. ctx, proj, compound_prompts_text.k,
                                      compound_prompt_projections.k
PromptSRC   VLPromptLearner           prompt_learner.ctx, image_encoder.VPT,
                                      {text,image}_encoder.transformer.resblocks.k.VPT_shallow
=========== ========================= ================================================================

``token_prefix`` and ``token_suffix`` are embeddings of the classes that were tuned on: they are dropped, so
that features of any classes can be had, but for words of the template that stand before every name. MaPLe's
and PromptSRC's files hold the whole CLIP; it is compared with the one given, and dropped."""

import os
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...arguments import checks
from ...io.paths import regular
from .cocoop import CoCoOp
from .coop import CoOp
from .learner import PromptLearner
from .maple import MaPLe
from .placement import before_name
from .proda import ProDA
from .promptsrc import PromptSRC

State = dict[str, Tensor]
# Of the CLIP in whole models: the file's name, open_clip's, an end of each tower.
_ENDS = {"text_encoder.positional_embedding": "positional_embedding", "image_encoder.proj": "visual.proj"}


def load_published(
    path: str | os.PathLike,
    clip: Any,
    tokenizer: Callable[..., Tensor] | None = None,
    template: str = "a photo of a {}.",
    *,
    learner: type[PromptLearner] | None = None,
    **options: Any,
) -> PromptLearner:
    """The learner in a checkpoint of its published trainer, over ``clip``, which must be the CLIP it tuned.

    ``template``: the one it was trained with; words of it that stand before every class name in the file are kept.
    ``learner``: its class; by default what the keys tell, CoOp for the three whose files look alike and whose
    features are made alike. ``options``: settings that the file does not hold. The class name is taken to
    stand at the end. Read with ``torch.load(weights_only=True)``: nothing in the file is run.

    Warns where all names in the file begin with the same token and nothing given explains it.
    ValueError, naming the file, where it is none, is of another learner, of contexts for single classes, or
    does not fit the CLIP."""
    where = os.fspath(path)
    state = read(where)
    kind = learner or kind_of(state, where)
    parameters = next((found for known, found in _PARAMETERS.items() if issubclass(kind, known)), None)
    if parameters is None:
        raise ValueError(f"learner must be one of pyfastcal.clip.prompts, got {kind.__name__}")
    try:
        values, found = parameters(state)
    except KeyError as error:
        raise ValueError(f"{where}: {error.args[0]} is missing, not a checkpoint of {kind.__name__}") from None
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    tuned = kind(clip, tokenizer, template, **(found | options))
    _check_clip(state, tuned, where)
    if "context_init" not in options:
        _find_words(state, tuned, where)
    own = tuned.state_dict()
    for name in {**dict(tuned.named_parameters()), **values}:
        got, wanted = (tuple(x[name].shape) if name in x else "nothing" for x in (values, own))
        if got != wanted:
            raise ValueError(f"{where}: {name} must have the shape {wanted} that the model takes, got {got}")
        checks.finite(f"{where}: {name}", checks.floating(f"{where}: {name}", values[name], values[name].ndim))
    tuned.load_state_dict({name: value.to(own[name].dtype) for name, value in values.items()}, strict=False)
    return tuned


def read(path: str | os.PathLike) -> State:
    """The ``state_dict`` of a checkpoint, on the CPU. ValueError, naming the file, where there is none."""
    where = os.fspath(path)
    regular(where)
    try:
        with torch.serialization.safe_globals(_harmless()):
            checkpoint = torch.load(where, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can raise anything
        raise ValueError(
            f"{where}: not a checkpoint that torch.load(weights_only=True) takes ({_why(error)})"
        ) from error
    state = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict):
        raise ValueError(f"{where}: state_dict must be in the file, a dictionary of tensors")
    for name, value in state.items():
        if not isinstance(name, str):
            raise ValueError(f"{where}: state_dict must have texts as keys, got {checks.describe(name)}")
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.device.type != "cpu":
            raise ValueError(
                f"{where}: state_dict must be in the file, a dictionary of tensors, got {name} that is none"
            )
    return {name.removeprefix("module."): value for name, value in state.items()}


class _Ignored:
    """Stands in the place of an object beside the weights; takes its arguments and state and forgets them."""

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _no_default(*factory: Any) -> OrderedDict:
    """Stands in the place of a defaultdict, which the weights-only loader does not fill."""
    return OrderedDict()


def _harmless() -> list[Any]:
    """What the names of the objects beside the weights stand for: the scheduler's state holds the scheduler
    that it wraps, and that the optimizer; the best validation result is a NumPy scalar, of NumPy 1 or 2."""
    kinds = ("sgd.SGD", "adam.Adam", "adamw.AdamW", "lr_scheduler.CosineAnnealingLR")
    scalars = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype")
    ignored = [(_Ignored, name) for name in (*(f"torch.optim.{kind}" for kind in kinds), *scalars)]
    return [*ignored, (_no_default, "collections.defaultdict"), (dict, "builtins.dict")]


def _why(error: Exception) -> str:
    """The line of torch's long message that says it."""
    lines = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    line = next((line.strip() for line in lines.splitlines() if line.strip()), type(error).__name__)
    return line.partition(" was not an allowed global")[0]


def kind_of(state: State, where: str = "checkpoint") -> type[PromptLearner]:
    """The learner whose keys they are."""
    if "prompt_learner.proj.weight" in state:
        return MaPLe
    if "image_encoder.VPT" in state:
        return PromptSRC
    if "meta_net.linear2.weight" in state:
        return CoCoOp
    if "ctx" in state:
        return ProDA if "nc_token_prefix" in state else CoOp
    raise ValueError(
        f"{where}: must have the keys of a published trainer, such as ctx, got {', '.join(state) or 'none'}"
    )


def _context(state: State, key: str, wanted: str = "one context (M, width)", ndim: int = 2, hint: str = "") -> Tensor:
    context = state[key]
    if context.ndim != ndim or not context.numel():
        raise ValueError(f"{key} must be {wanted}, got {checks.describe(context)}{hint}")
    return context


def _coop(state: State) -> tuple[State, dict[str, Any]]:
    hint = ": those of single classes (CSC) give no features of others, ProDA's need learner=ProDA"
    context = _context(state, "ctx", hint=hint)
    return {"context": context}, {"n_context": len(context)}


def _cocoop(state: State) -> tuple[State, dict[str, Any]]:
    values, found = _coop(state)
    names = [f"meta_net.{layer}.{part}" for layer in ("linear1", "linear2") for part in ("weight", "bias")]
    return values | {name: state[name] for name in names}, found


def _proda(state: State) -> tuple[State, dict[str, Any]]:
    context = _context(state, "ctx", "contexts (K, M, width)", 3)
    found = {"n_prompts": len(context), "n_context": context.shape[1]}
    if len(context) % ProDA.prompt_batch:
        found["prompt_batch"] = 1
    return {"context": context}, found


def _maple(state: State) -> tuple[State, dict[str, Any]]:
    p = "prompt_learner."
    values = {"context": _context(state, f"{p}ctx")}
    for part in ("weight", "bias"):
        values[f"coupling.0.{part}"] = state[f"{p}proj.{part}"]
    deep = _numbered(state, rf"{p}compound_prompts_text\.(\d+)")
    for i, prompt in enumerate(deep):
        values[f"deep_context.{i}"] = prompt
        for part in ("weight", "bias"):
            values[f"coupling.{i + 1}.{part}"] = state[f"{p}compound_prompt_projections.{i}.{part}"]
    return values, {"n_context": len(values["context"]), "depth": len(deep) + 1}


_SHALLOW = {"context": "prompt_learner.ctx", "vision_context": "image_encoder.VPT"}


def _promptsrc(state: State) -> tuple[State, dict[str, Any]]:
    values = {name: _context(state, key) for name, key in _SHALLOW.items()}
    found = {"n_context": len(values["context"]), "n_context_vision": len(values["vision_context"])}
    for tower, name, depth in (
        ("text", "deep_context", "depth_text"),
        ("image", "deep_vision_context", "depth_vision"),
    ):
        deep = _numbered(state, rf"{tower}_encoder\.transformer\.resblocks\.(\d+)\.VPT_shallow")
        values |= {f"{name}.{i}": prompt for i, prompt in enumerate(deep)}
        found[depth] = len(deep) + 1
    return values, found


_PARAMETERS: dict[type[PromptLearner], Callable[[State], tuple[State, dict[str, Any]]]] = {
    CoCoOp: _cocoop,  # a CoOp, too: the first that fits counts
    CoOp: _coop,
    ProDA: _proda,
    MaPLe: _maple,
    PromptSRC: _promptsrc,
}


def _numbered(state: State, pattern: str) -> list[Tensor]:
    """The values whose names match, in the order of the number in them."""
    found = {int(match[1]): value for name, value in state.items() if (match := re.fullmatch(pattern, name))}
    return [found[i] for i in sorted(found)]


def _check_clip(state: State, tuned: PromptLearner, where: str) -> None:
    """Prompts mean nothing to another CLIP: where the file holds its own, it must be the one given. In half
    precision, and PromptSRC's averaged over the epochs in it: within five per cent."""
    parts = dict(tuned.clip.named_parameters())
    for name, own in _ENDS.items():
        if name not in state:
            continue
        ours = parts[own if own in parts else f"text.{own}"].detach().float().cpu()
        theirs = state[name].float()
        if theirs.shape != ours.shape or (theirs - ours).norm() > 0.05 * ours.norm():
            raise ValueError(f"{where}: clip must be the model that was tuned, but {name} in the file is another")


def _find_words(state: State, tuned: PromptLearner, where: str) -> None:
    """Which words stand between the context and the names is seen by the suffix of the classes that were tuned on:
    those that ``context_init`` leaves, as in MaPLe's official trainer, those that the template leaves, as in
    ProGrad's, or none. ``context_init`` is set so that the learner puts them there."""
    suffix = next((state[key] for key in ("token_suffix", "prompt_learner.token_suffix") if key in state), None)
    if suffix is None or "context_init" not in tuned.hyperparameters:
        return
    if suffix.ndim != 3 or suffix.shape[2] != tuned.towers.width:
        wanted = f"(C, L, {tuned.towers.width})"
        raise ValueError(f"{where}: token_suffix must be embeddings {wanted}, got {checks.describe(suffix)}")
    own = tuned.context_init
    for words in (own, tuned.check_option("context_init", before_name(tuned.template))):
        tuned.context_init = words
        try:
            fixed = tuned.init_ids()[1]
        except ValueError:  # a tokenizer of few words, which the template is not made of
            continue
        if len(fixed) and _begins(suffix, tuned.towers.embed(fixed)):
            return
    tuned.context_init = own
    if len(tuned.init_ids()[1]):
        tuned.context_init = ""
    if len(suffix) > 1 and _begins(suffix, suffix[0, :1]):
        warnings.warn(
            f"{where}: the names of all {len(suffix)} classes that it was tuned on begin with the same token, which is "
            "taken for a part of them; if it is the end of the trainer's template, give that as template",
            stacklevel=3,
        )


def _begins(suffix: Tensor, words: Tensor) -> bool:
    """Whether all rows of ``suffix`` (C, L, width) begin with the embeddings ``words`` (n, width)."""
    if not suffix.numel() or suffix.shape[1] < len(words):
        return False
    difference = suffix[:, : len(words)].float() - words.detach().float().cpu()
    return bool(difference.norm(dim=-1).amax() <= 1e-2)
