"""The eleven tasks of drawings: their classes, whose drawings each split has, how they are painted."""

import json

import pytest
import torch

from pyfastcal.clip import tasks
from pyfastcal.clip.tasks import canvas, drawings
from scripts.drawings import sets, sheets
from scripts.drawings import tasks as chosen
from scripts.figures import drawings as page
from scripts.figures.page import with_tables


@pytest.mark.parametrize("name", tasks.DRAWINGS)
def test_a_task_has_its_classes_and_each_class_the_drawings_of_several_hands(name):
    found = drawings.drawings_of(name)
    assert 20 <= len(found.classes) <= 120 and found.classes == sorted(set(found.classes))
    assert found.images.shape == (len(found.labels), 4, 64, 64) and found.images.dtype == torch.uint8
    for label in range(len(found.classes)):
        rows = torch.nonzero(found.labels == label)[:, 0].tolist()
        assert 3 <= len({found.hands[row] for row in rows}) <= 6
    seen = found.images[:, 3].flatten(1).float().mean(1) / 255
    assert seen.min() > 0.005, "a drawing cannot be seen"


def test_the_sheets_hold_what_the_scripts_chose_and_nothing_share_alike():
    assert tuple(chosen.TASKS) == tasks.DRAWINGS
    index = json.loads((drawings.FOLDER / "index.json").read_text())
    known = {s.name: s for s in sets.SETS}
    notice = (drawings.FOLDER / "NOTICE.md").read_text()
    assert notice.startswith(sheets.NOTICE)
    for name, about in index["sets"].items():
        assert about == {"hand": known[name].hand, "coloured": known[name].coloured}
        assert f"(`{name}`) | {known[name].version} |" in notice
    assert {s.licence for s in sets.SETS} <= {"Apache-2.0", "MIT", "ISC", "CC0-1.0", "CC-BY-3.0", "CC-BY-4.0"}
    for name, task in chosen.TASKS.items():
        assert not {entry["name"] for entry in index["tasks"][name]} & set(task.without)


def test_the_page_lists_the_classes_that_there_are():
    text = page.PAGE.read_text(encoding="utf-8")
    assert with_tables(text, page.lists()) == text and page.PICTURE.exists()


def test_no_hand_of_a_base_class_is_in_two_splits():
    found = drawings.drawings_of("clothing")
    generator = torch.Generator().manual_seed(3)
    for label in range(len(found.classes)):
        hands = drawings._by_hands(found, label, generator)
        shares = drawings._shares(hands)
        rows = [{row for hand in share for row in hand} for share in shares]
        assert all(rows) and len(set.union(*rows)) == sum(map(len, rows)) == (found.labels == label).sum()
        held = [{found.hands[row] for row in part} for part in rows]
        assert not (held[0] & held[1] or held[0] & held[2] or held[1] & held[2])


def test_hands_and_their_drawings_take_turns():
    assert [drawings._turn([[1, 2, 3], [7]], i) for i in range(6)] == [1, 7, 2, 7, 3, 7]


def test_a_larger_image_shows_the_same_picture():
    small, large = (tasks.load("clothing", shots=1, test_images=1, image_size=size).base_test for size in (48, 96))
    assert torch.equal(small.labels, large.labels)
    halved = torch.nn.functional.avg_pool2d(large.images, 2)
    same = torch.nn.functional.cosine_similarity(halved.flatten(1), small.images.flatten(1)).mean()
    other = torch.nn.functional.cosine_similarity(halved.flatten(1).roll(1, 0), small.images.flatten(1)).mean()
    assert same > 0.9 > other + 0.2


def painted(domain: canvas.Domain, **options) -> canvas.Canvas:
    cut_out = torch.zeros(64, 4, 64, 64, dtype=torch.uint8)
    cut_out[:, 0, 16:48, 16:48] = cut_out[:, 3, 16:48, 16:48] = 255  # a red square
    return canvas.paint(cut_out, torch.ones(64, dtype=torch.bool), domain, torch.Generator().manual_seed(0), **options)


STILL = canvas.Domain(0, (1, 1), 0, 0, 1, 0, 0, 6, 0, 0, 0, 0, 0, 0)


def test_a_domain_that_changes_nothing_shows_the_drawing_as_it_is():
    images = painted(STILL).images
    red, white = torch.tensor([1.0, 0, 0]), torch.ones(3)
    torch.testing.assert_close(images[:, :, 24, 24], red.expand(64, 3), rtol=0, atol=1e-5)
    torch.testing.assert_close(images[:, :, 2, 2], white.expand(64, 3), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "measured"),
    [
        ({"gray": 1.0}, lambda x: -(x.amax(1) - x.amin(1)).mean()),  # colours are lost
        ({"noise": 0.3}, lambda x: x[:, :, :6, :6].std((2, 3)).mean()),
        ({"lines": 1.0}, lambda x: x[:, 1, 20:28, 20:28].mean()),  # the middle is as bright as the ground
        ({"white": 0.0}, lambda x: -x[:, :, 2, 2].mean()),
        ({"texture": 1.0, "unevenness": 1.0}, lambda x: x[:, :, :6].std((2, 3)).mean()),
        ({"occlusion": 1.0}, lambda x: (x - x[:, :, :1, :1]).abs().mean((1, 2, 3)).std()),
        ({"angle": 1.0}, lambda x: x.std(0).mean()),
        ({"scale": (0.5, 0.6)}, lambda x: x[:, 1].mean()),  # less of the image is red
        ({"shift": 0.5}, lambda x: x.std(0).mean()),
        ({"warp": 0.3}, lambda x: x.std(0).mean()),
        ({"hue": 1.0}, lambda x: x[:, :, 24, 24].std(0).mean()),
        ({"light": 1.0}, lambda x: -x[:, :, 2, 2].mean()),
    ],
    ids=lambda x: "-".join(x) if isinstance(x, dict) else "",
)
def test_each_part_of_a_domain_changes_images_its_own_way(change, measured):
    before, after = painted(STILL).images, painted(STILL._replace(**change)).images
    assert measured(after) > measured(before) + 0.02
    assert after.min() >= 0 and after.max() <= 1


def test_colours_that_are_asked_for_are_painted():
    ink, ground = torch.tensor([[0.2, 0.4, 0.6]]).expand(64, 3), torch.tensor([[0.9, 0.8, 0.1]]).expand(64, 3)
    cut_out = torch.zeros(64, 4, 64, 64, dtype=torch.uint8)
    cut_out[:, 3, 16:48, 16:48] = 255
    plain = torch.zeros(64, dtype=torch.bool)
    found = canvas.paint(cut_out, plain, STILL, torch.Generator().manual_seed(0), ink=ink, background=ground)
    torch.testing.assert_close(found.images[:, :, 24, 24], ink, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.images[:, :, 2, 2], ground, rtol=0, atol=1e-5)
