import pytest
import torch

from pyfastcal.clip import tasks
from pyfastcal.clip.tasks import world

NAMES = ("digits", "shapes", "clothing")  # one of each family; clothing has the fewest classes of the drawings
SIZES = {"digits": 32, "shapes": 32, "clothing": 48}


def make(name: str, seed: int = 0) -> tasks.Task:
    options = {"digits": {}, "shapes": {"n_classes": 8, "test_images": 5}, "clothing": {"test_images": 6}}
    return tasks.load(name, seed=seed, shots=4, **options[name])


@pytest.mark.parametrize("name", NAMES)
def test_splits(name):
    task = make(name)
    assert task.name == name and task.template.count("{}") == 1
    assert not set(task.base_classes) & set(task.new_classes)
    for split, classes in zip(task[4:], (task.base_classes,) * 3 + (task.new_classes,), strict=True):
        assert split.images.shape[1:] == (3, SIZES[name], SIZES[name]) and split.images.dtype == torch.float32
        assert len(split.images) == len(split.labels) and split.labels.dtype == torch.int64
        assert split.labels.unique().tolist() == list(range(len(classes)))
    for split in (task.train, task.validation):
        assert split.labels.bincount().tolist() == [4] * len(task.base_classes)


@pytest.mark.parametrize("name", NAMES)
def test_no_image_is_in_two_splits(name):
    images = torch.cat([split.images.flatten(1) for split in make(name)[4:]])
    assert len(images.unique(dim=0)) == len(images)


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides_everything(name):
    state = torch.random.get_rng_state()
    first, again, other = make(name), make(name), make(name, seed=1)
    assert torch.equal(state, torch.random.get_rng_state())
    assert first.base_classes == again.base_classes  # those of drawings are the papers' halves, with every seed
    assert (first.base_classes == other.base_classes) == (name in tasks.DRAWINGS)
    for split, same in zip(first[4:], again[4:], strict=True):
        assert torch.equal(split.images, same.images) and torch.equal(split.labels, same.labels)


def test_digits_are_all_of_scikit_learns():
    task = tasks.load("digits")
    assert sum(len(split.labels) for split in task[4:]) == 1797
    assert sorted(task.base_classes + task.new_classes) == sorted(tasks.digits.CLASS_NAMES)
    assert len(task.train.labels) == len(task.validation.labels) == 80


def test_shapes_count_and_name_what_is_asked_for():
    task = tasks.load("shapes", shots=1, n_classes=6, test_images=3, styles="clean")
    assert [len(split.labels) for split in task[4:]] == [3, 3, 9, 9]
    for name in task.base_classes + task.new_classes:
        colour, texture, shape = name.split()
        assert colour in world.COLOUR_NAMES and texture in world.TEXTURE_NAMES and shape in world.SHAPE_NAMES


def test_a_domain_changes_the_images_and_not_the_classes():
    clean, dark = (tasks.load("shapes", shots=2, n_classes=4, test_images=8, styles=[s]) for s in ("clean", "dark"))
    assert clean.base_classes == dark.base_classes
    assert dark.base_test.images.mean() < clean.base_test.images.mean() - 0.3


def test_a_scene_shows_its_colour_and_its_shape():
    generator = torch.Generator().manual_seed(0)
    n = 200
    red, blue = (torch.full((n,), world.COLOUR_NAMES.index(c)) for c in ("red", "blue"))
    square, plain = torch.full((n,), world.SHAPE_NAMES.index("square")), torch.zeros(n, dtype=torch.int64)
    centre = [
        world.render(square, colour, plain, plain, generator)[:, :, 14:18, 14:18].mean((0, 2, 3))
        for colour in (red, blue)
    ]
    assert centre[0].argmax() == 0 and centre[1].argmax() == 2
    images = world.render(square, red, plain, plain, generator)
    assert images.shape == (n, 3, 32, 32) and images.min() >= 0 and images.max() <= 1


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("letters", {}, "name must be one of 'digits', 'shapes', 'animals', .* 'flags', got 'letters'"),
        ("digits", {"shots": 0}, "shots must be an integer of at least 1"),
        ("digits", {"shots": 90}, "shots must be an integer of at least 1 and at most 64"),
        ("digits", {"seed": -1}, "seed must be an integer of at least 0"),
        ("shapes", {"styles": ("foggy",)}, "styles must be one of 'clean', .* got 'foggy'"),
        ("shapes", {"styles": ()}, "styles must name at least one style"),
        ("shapes", {"n_classes": 2}, "n_classes must be an integer of at least 4"),
        ("animals", {"test_images": 0}, "test_images must be an integer of at least 1"),
        ("animals", {"image_size": 4}, "image_size must be an integer of at least 8 and at most 1024"),
    ],
)
def test_bad_options_are_named(name, options, message):
    with pytest.raises(ValueError, match=rf"^{message}"):
        tasks.load(name, **options)
