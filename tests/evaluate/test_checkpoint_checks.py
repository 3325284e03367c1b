"""Checkpoints that no run wrote: a right checksum proves nothing, what is in a file must be what a run can come to."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from pyfastcal.evaluate import evaluate_shards
from pyfastcal.evaluate.checkpoint import MERGED, fingerprint
from pyfastcal.io import find_shards, load_features
from pyfastcal.metrics.fine import CONFIDENCE
from tests.command import error_of, feature_files, shards_of

METHODS = ("conf", "dac", "cac")
Content = dict[str, Any]


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A split in three shards, and a checkpoint of all of it."""
    root = tmp_path_factory.mktemp("material")
    new, _ = feature_files(root)
    shards_of(new, root / "shards")
    for _ in range(2):  # the second one merges what the first has done
        evaluate(root, root / "kept")
    return root


def evaluate(root: Path, kept: Path) -> list[dict]:
    new, base = (load_features(root / f"{name}.safetensors") for name in ("new", "base"))
    shards = find_shards([root / "shards"])
    return evaluate_shards(shards, new.classes, base, METHODS, checkpoint=str(kept)).rows


def read(file: Path) -> tuple[Content, Content]:
    with safe_open(file, framework="pt") as opened:
        tensors = {key: opened.get_tensor(key).clone() for key in opened.keys()}  # noqa: SIM118
        return json.loads(opened.metadata()["about"]), tensors


def forged(source: Path, target: Path, change: Callable[[Content, Content], object]) -> None:
    """What ``change`` makes of a checkpoint, under a checksum that is right."""
    about, tensors = read(source)
    change(about, tensors)
    metadata = {"about": json.dumps(about), "sha256": fingerprint(tensors | {"about": about})}
    target.parent.mkdir(exist_ok=True)
    save_file(tensors, target, metadata=metadata)


def set_sums(index: int, value: int, method: str = "conf") -> Callable[[Content, Content], None]:
    return lambda about, tensors: tensors[f"sums.{method}"].__setitem__(index, value)


def columns(tensors: Content) -> torch.Tensor:
    """The table of counts, right ones and confidences of ``conf``: see ``metrics/layout.py``."""
    return tensors["sums.conf"][7:].view(4, -1)


def moved(row: int) -> Callable[[Content, Content], None]:
    """Counts, or confidences, from a cell that has some to the next one that has none: all sums stay."""

    def change(about: Content, tensors: Content) -> None:
        table = columns(tensors)
        full = int(table[0].nonzero()[0, 0])
        empty = next(i for i in range(full, table.shape[1]) if not table[0, i])
        for at in (row,) if row else range(4):
            table[at, empty], table[at, full] = int(table[at, full]), int(table[at, empty])

    return change


FORGERIES: dict[str, Callable[[Content, Content], object]] = {
    "no sums of a method": lambda about, tensors: tensors.pop("sums.dac"),
    "no sums at all": lambda about, tensors: [tensors.pop(f"sums.{m}") for m in METHODS],
    "sums of another method": lambda about, tensors: tensors.update({"sums.ts": tensors["sums.conf"].clone()}),
    "another tensor": lambda about, tensors: tensors.update(more=torch.ones(3)),
    "no shards done": lambda about, tensors: tensors.pop("done"),
    "no digests": lambda about, tensors: tensors.pop("shards"),
    "digests of another kind": lambda about, tensors: tensors.update(shards=tensors["shards"].double()),
    "done as numbers": lambda about, tensors: tensors.update(done=tensors["done"].long()),
    "done twice": lambda about, tensors: tensors["done"].view(torch.uint8).fill_(2),
    "nothing done": lambda about, tensors: tensors["done"].fill_(False),
    "short sums": lambda about, tensors: tensors.update({"sums.conf": tensors["sums.conf"][:-1].clone()}),
    "sums as floats": lambda about, tensors: tensors.update({"sums.conf": tensors["sums.conf"].double()}),
    "sums of nothing": lambda about, tensors: tensors["sums.conf"].zero_(),
    "more rows than images": set_sums(0, 151),
    "fewer rows than images": set_sums(0, 149),
    "negative rows": set_sums(0, -150),
    "negative count": set_sums(40, -1),
    "a count too many": lambda about, tensors: columns(tensors)[0].__setitem__(5, 7),
    "huge counts": lambda about, tensors: columns(tensors)[0].fill_(2**62),
    "more right than there are": lambda about, tensors: columns(tensors)[1].copy_(columns(tensors)[0] + 1),
    "right in one table only": lambda about, tensors: columns(tensors)[1, : CONFIDENCE.size].zero_(),
    "low limbs too high": lambda about, tensors: columns(tensors)[3].fill_(2**40),
    "confidence above its count": lambda about, tensors: columns(tensors)[2].copy_(columns(tensors)[0] + 1),
    "no confidence": lambda about, tensors: columns(tensors)[2:].zero_(),
    "a cell moved": moved(0),
    "right ones moved": moved(1),
    "confidences moved": moved(3),
    "infinite NLL of more than there are": set_sums(5, 10**6),
    "mean out of reach": set_sums(1, 2**62),
    "no images": lambda about, tensors: about.update(images=0),
    "negative images": lambda about, tensors: about.update(images=-1),
    "too many images": lambda about, tensors: about.update(images=2**62),
    "images no number": lambda about, tensors: about.update(images="150"),
    "images true": lambda about, tensors: about.update(images=True),
    "run no name": lambda about, tensors: about.update(run=3),
    "no run": lambda about, tensors: about.pop("run"),
    "identity a list": lambda about, tensors: about.update(identity=[]),
    "identity without methods": lambda about, tensors: about["identity"].pop("methods"),
    "no settings": lambda about, tensors: about.pop("settings"),
    "settings of another method": lambda about, tensors: about["settings"].update(magic={}),
    "settings no numbers": lambda about, tensors: about["settings"].update(dac={"k": "5"}),
    "settings infinite": lambda about, tensors: about["settings"].update(dac={"k": float("inf")}),
    "settings beyond floats": lambda about, tensors: about["settings"].update(dac={"k": 10**400}),
    "failed of another method": lambda about, tensors: about["failed"].update(magic={}),
    "warned of no shard": lambda about, tensors: about["warned"].update(dac={"shard": 9, "text": "x", "shards": 1}),
    "warned of too many": lambda about, tensors: about["warned"].update(dac={"shard": 0, "text": "x", "shards": 9}),
    "warned without words": lambda about, tensors: about["warned"].update(dac={"shard": 0, "text": 3, "shards": 1}),
    "warned with more": lambda about, tensors: about["warned"].update(
        dac={"shard": 0, "text": "x", "shards": 1, "more": 1}
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_what_no_run_wrote(material: Path, tmp_path: Path, name: str) -> None:
    forged(material / "kept" / MERGED, tmp_path / "kept" / MERGED, FORGERIES[name])
    with pytest.raises(ValueError, match=r"merged\.safetensors: not a complete checkpoint \(.+\)$") as caught:
        evaluate(material, tmp_path / "kept")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize("name", [None, "no sums of a method", "fewer rows than images", "another tensor", "no run"])
def test_parts_that_no_run_wrote(material: Path, tmp_path: Path, name: str | None) -> None:
    """The part of a rank beside an empty merged file; as it was written it is taken."""
    kept, part = tmp_path / "kept", tmp_path / "kept" / "rank-0.safetensors"

    def emptied(about: Content, tensors: Content) -> None:
        about.update(images=0, settings={}, warned={}, failed={})
        for tensor in tensors:
            if tensor != "shards":
                tensors[tensor].zero_()

    def apart(about: Content, tensors: Content) -> None:
        about.update(identity={})
        tensors.pop("shards")
        if name:
            FORGERIES[name](about, tensors)

    forged(material / "kept" / MERGED, kept / MERGED, emptied)
    forged(material / "kept" / MERGED, part, apart)
    if name is None:
        assert evaluate(material, kept) == evaluate(material, material / "kept")
        return
    with pytest.raises(ValueError, match=r"rank-0\.safetensors: not a complete checkpoint \(.+\)$"):
        evaluate(material, kept)


def test_unchanged_it_goes_on(material: Path, tmp_path: Path) -> None:
    forged(material / "kept" / MERGED, tmp_path / "kept" / MERGED, lambda about, tensors: None)
    assert evaluate(material, tmp_path / "kept") == evaluate(material, material / "kept")


def test_a_method_that_failed_has_what_there_was(material: Path, tmp_path: Path) -> None:
    def failed(about: Content, tensors: Content) -> None:
        about["failed"]["cac"] = {"shard": 1, "text": "cannot", "shards": 1}
        tensors["sums.cac"].zero_()

    forged(material / "kept" / MERGED, tmp_path / "kept" / MERGED, failed)
    assert evaluate(material, tmp_path / "kept")[2]["note"] == "cannot"


def test_the_command_line_says_so_in_one_line(material: Path, tmp_path: Path) -> None:
    forged(material / "kept" / MERGED, tmp_path / "kept" / MERGED, FORGERIES["no sums of a method"])
    arguments = [material / "shards", "--base", material / "base.safetensors", "--methods", ",".join(METHODS)]
    arguments += ["--classes", material / "new.safetensors", "--checkpoint", tmp_path / "kept"]
    assert "merged.safetensors: not a complete checkpoint (must hold " in error_of("evaluate", *arguments)
