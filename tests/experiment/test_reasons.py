"""Parts of what docs/experiments.md says of reasons, and that it says what was measured."""

import json

import pytest
import torch

from pyfastcal.experiment import BundledTask
from pyfastcal.experiment.sources import Part
from pyfastcal.io.features import FeatureSet
from scripts.figures import reasons
from scripts.figures.page import with_tables

FOUND = json.loads(reasons.FIGURES.read_text())


def test_the_page_tells_what_was_measured() -> None:
    assert list(FOUND) == list(reasons.cells())
    text = reasons.PAGE.read_text()
    assert with_tables(text, reasons.tables(FOUND)) == text


def test_the_tasks_are_those_with_most_classes() -> None:
    from pyfastcal.clip import tasks

    sizes = {name: len(tasks.drawings.drawings_of(name).classes) for name in tasks.DRAWINGS}
    assert set(reasons.TASKS) == set(sorted(sizes, key=sizes.__getitem__)[-3:])


def test_chosen_classes_keep_their_images_and_names() -> None:
    generator = torch.Generator().manual_seed(0)
    images, texts, before = (torch.randn(n, 4, generator=generator) for n in (12, 6, 6))
    labels = torch.arange(12) % 6
    found = reasons.chosen(FeatureSet(images, texts, labels, 30.0, before), torch.tensor([4, 1]))
    assert found.labels.tolist() == [1, 0, 1, 0]
    assert torch.equal(found.image_features, images[[1, 4, 7, 10]])
    assert torch.equal(found.text_features, texts[[4, 1]]) and torch.equal(found.zeroshot_text_features, before[[4, 1]])


def test_few_and_the_rest_are_the_whole() -> None:
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    part = Part(torch.arange(6), torch.arange(6), labels)
    assert part.few(1).images.tolist() == [0, 1] and part.of_each(slice(1, None)).images.tolist() == [2, 4, 3, 5]


def test_a_mean_is_of_what_has_a_number() -> None:
    assert reasons.mean([{"a": 1.0, "b": None}, {"a": 2.0, "b": None}, {"a": None, "b": None}]) == {"a": 1.5, "b": None}


@pytest.mark.parametrize("task", reasons.TASKS[:1])
def test_a_run(task: str) -> None:
    """Tolerance: tuning amplifies what other processors round differently."""
    found, told = reasons.by_epochs(task, 1), FOUND[f"{task}/1 epochs"]
    assert found.keys() == told.keys() == {"base", "new"}
    for split, row in told.items():
        for key, value in row.items():
            expected = None if value is None else pytest.approx(value, abs=2.0)
            assert (None if found[split][key] is None else 100 * found[split][key]) == expected, (split, key)
    assert BundledTask(task).most_steps is not None
