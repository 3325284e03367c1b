"""What is shown image by image: the most confident mistakes, and the neighbours that gave a class its weight."""

import base64
import io
import json
import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from pyfastcal.evaluate import evaluate_split
from pyfastcal.report import Report, Run, mistakes, neighbours, render, write_json
from pyfastcal.report.mistakes import MOST, MOST_ALIKE, most_confident
from pyfastcal.report.neighbours import ENDS, weighed

from .test_page import Checker, splits

pil = pytest.importorskip("PIL.Image", reason="the extra 'demo' is not installed")

METHODS = ("zero-shot", "conf", "hb", "dac", "cac")


def made_up(c: int = 12) -> Run:
    """Classes to quote, more of them than are shown, and one that tuning made a base class."""
    g = torch.Generator().manual_seed(5)
    sets = splits(3, c=c)
    for features in sets.values():
        features.classnames = [f'"{name}"' for name in features.classnames]
    sets["new"].text_features[2] = sets["base"].text_features[7]
    done = tuple(evaluate_split(features, sets["base"], METHODS, split=name) for name, features in sets.items())
    sizes = {name: len(features.labels) for name, features in sets.items()} | {"validation": len(sets["base"].labels)}
    images = {name: torch.randint(0, 256, (n, 5, 7, 3), generator=g, dtype=torch.uint8) for name, n in sizes.items()}
    return Run("seed <3>", done, images)


@pytest.fixture(scope="module")
def run() -> Run:
    return made_up()


@pytest.fixture(scope="module")
def page(run: Run) -> str:
    """Its two sections."""
    report = Report("", [Run("without", run.evaluations), run, made_up(c=9)])
    return mistakes.cards(report) + neighbours.blocks(report)


def test_mistakes_are_the_most_confident_of_all(run: Run) -> None:
    found = most_confident(run, ("bms-mir", *METHODS))
    assert [one["split"] for one in found] == ["base"] * MOST + ["new"] * MOST
    for evaluation in run.evaluations:
        features, own = evaluation.features, [one for one in found if one["split"] == evaluation.split]
        sides = normalize(features.image_features.double(), dim=1), normalize(features.text_features.double(), dim=1)
        probs = (features.logit_scale * sides[0] @ sides[1].T).softmax(1)
        confidence, prediction = probs.max(1)
        confidence[prediction == features.labels] = 0
        highest, images = confidence.sort(descending=True)
        pairs = [(int(features.labels[i]), int(prediction[i])) for i in images]
        kept = [n for n, pair in enumerate(pairs) if highest[n] > 0 and pairs[:n].count(pair) < MOST_ALIKE][:MOST]
        assert [one["image"] for one in own] == images[kept].tolist()
        assert [one["methods"]["conf"]["confidence"] for one in own] == pytest.approx(highest[kept].tolist(), abs=1e-5)
        for one in own:
            of = features.labels[one["image"]], prediction[one["image"]]
            assert [one["class"], one["prediction"]] == [features.classnames[c] for c in of]
            assert one["methods"]["bms-mir"] is None  # not among the methods of the evaluation
            assert (one["methods"]["hb"] is None) == (evaluation.split == "new")  # has a map per base class only
            for method in ("zero-shot", "dac", "cac"):
                done, said = evaluation.calibrated[method], one["methods"][method]
                assert said["confidence"] == done.confidence[one["image"]].item()
                assert said["prediction"] == features.classnames[done.prediction[one["image"]]]


def distances(queries: Tensor, bank: Tensor) -> Tensor:
    return torch.cdist(normalize(queries.double(), dim=1), normalize(bank.double(), dim=1))


def test_neighbours_give_the_weight(run: Run) -> None:
    evaluation, found = run.split("new"), weighed(run)
    features, base = evaluation.features, evaluation.base
    gamma = evaluation.calibrated["dac"].class_weight
    order = gamma.argsort()
    assert [one.index for one in found] == [*order[:ENDS].tolist(), *order[-ENDS:].tolist()]
    for one in found:
        assert (one.split, one.name) == ("new", features.classnames[one.index])
        assert one.gamma == gamma[one.index].item()
        for near, what in ((one.tuned, "text_features"), (one.zeroshot, "zeroshot_text_features")):
            nearest, indices = distances(getattr(features, what), getattr(base, what))[one.index].sort()
            assert near.indices == indices[:5].tolist() and near.names == [base.classnames[i] for i in near.indices]
            assert near.distances == pytest.approx(nearest[:5].tolist(), abs=1e-6)
            assert near.proximity == pytest.approx(nearest[:5].mean().neg().exp().item(), rel=1e-6)
        quotient = one.tuned.proximity / one.zeroshot.proximity
        assert one.counts_as_base == (one.index == 2)
        assert one.gamma == (1 if one.counts_as_base else pytest.approx(quotient, rel=1e-6))
    assert any(one.counts_as_base for one in found)


def test_page_holds_the_pixels(page: str, run: Run) -> None:
    checker = Checker()
    checker.feed(page)
    checker.close()
    tags = re.findall(r"<img[^>]*>", page)
    sources = [re.search(r'src="data:image/png;base64,([^"]*)"', tag)[1] for tag in tags]
    assert len(tags) == 2 * MOST + 2 * ENDS * (1 + 5 + 5)
    assert checker.open == [] and page.count("data:") == len(tags)
    drawn = [torch.from_numpy(np.array(pil.open(io.BytesIO(base64.b64decode(source))))) for source in sources]
    alternatives = [unescape(re.search(r'alt="([^"]*)"', tag)[1]) for tag in tags]
    wanted = []
    for one in most_confident(run, METHODS):
        wanted.append((one["class"], run.images[one["split"]][one["image"]]))
    new, base = run.evaluations[1].features, run.evaluations[1].base
    for one in weighed(run):
        first = {c: run.images["validation"][(base.labels == c).nonzero()[0, 0]] for c in range(12)}
        wanted.append((one.name, run.images["new"][(new.labels == one.index).nonzero()[0, 0]]))
        wanted += [(base.classnames[c], first[c]) for near in (one.tuned, one.zeroshot) for c in near.indices]
    assert alternatives == [f"An image of the class {name}" for name, _ in wanted]
    assert all(torch.equal(a, b) for a, (_, b) in zip(drawn, wanted, strict=True))
    assert all('width="126" height="90"' in tag for tag in tags[: 2 * MOST])  # 18 times 7 x 5


def test_page_has_the_numbers(page: str, run: Run) -> None:
    text = unescape(re.sub(r"<[^>]+>", "", page))
    assert "Of seed <3>: of each split the 12 wrong predictions with the highest confidence" in text
    for one in weighed(run):
        parts = f"{one.tuned.proximity:.4f} / {one.zeroshot.proximity:.4f}"
        why = f"so near to a tuned base class that it counts as one; S: {parts}" if one.counts_as_base else f"= {parts}"
        assert f"{one.name}γ {one.gamma:.3f} {why}" in text
    cards = text[text.index("New classes", text.index("The most confident mistakes")) :]
    for one in most_confident(run, METHODS)[MOST:]:
        rows = ""
        for method, name in zip(METHODS, ("Zero-shot", "Conf", "HB", "DAC", "CAC"), strict=True):
            said = one["methods"][method]
            rows += name + ("-" if said is None else f"{100 * said['confidence']:.1f}")
            if said and said["prediction"] != one["prediction"]:
                rows += f"in {said['prediction']}"
        assert f"{one['class']}taken for {one['prediction']}\n\n{rows}" in cards


def test_json_has_the_facts_of_the_run_that_is_shown(tmp_path: Path, run: Run) -> None:
    plain, other = Run("without", run.evaluations), Run("other", run.evaluations, run.images)
    runs = json.loads(write_json(tmp_path / "r.json", Report("", [plain, run, other])).read_text())["runs"]
    assert [("mistakes" in one, "neighbours" in one) for one in runs] == [(False,) * 2, (True,) * 2, (False,) * 2]
    assert runs[1]["mistakes"] == most_confident(run, METHODS)
    assert [one["gamma"] for one in runs[1]["neighbours"]] == [one.gamma for one in weighed(run)]
    (first, *_) = runs[1]["neighbours"]
    assert first["tuned"][0].keys() == {"class", "distance"} and len(first["zeroshot"]) == 5


def test_without_a_base_file_the_neighbours_are_the_split_itself() -> None:
    new = splits(4)["new"]
    images = torch.zeros(len(new.labels), 4, 4, 3, dtype=torch.uint8)
    run = Run("", (evaluate_split(new, None, ("dac",), split="mine"),), {"mine": images})
    found = weighed(run)
    assert len(found) == 6 and all(one.index not in (*one.tuned.indices, *one.zeroshot.indices) for one in found)
    page = render(Report("", [run]))
    assert "mine: all classes, by γ" in page and "most confident mistakes" not in page  # for want of Conf
    assert page.count("<img") == 6 * 11


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({"old": torch.zeros(240, 4, 4, 3, dtype=torch.uint8)}, "^images must be of splits .*, got 'old'$"),
        (
            {"new": torch.zeros(3, 4, 4, 3, dtype=torch.uint8)},
            r"^images\['new'\] must be uint8 of shape \(240, H, W, 3\)",
        ),
        ({"new": torch.zeros(240, 3, 4, 4, dtype=torch.uint8)}, r"^images\['new'\] must be .*\(240, 3, 4, 4\)$"),
        ({"validation": torch.zeros(240, 4, 4, 3)}, r"^images\['validation'\] must be uint8 .* float32"),
        ({"new": torch.zeros(240, 4, 3, dtype=torch.uint8)}, r"^images\['new'\] must have 4 dimensions"),
    ],
)
def test_images_that_do_not_fit(images: dict[str, Tensor], message: str) -> None:
    sets = splits(3)
    done = evaluate_split(sets["new"], sets["base"], ("conf",))
    with pytest.raises(ValueError, match=message):
        Run("", (done,), images)
