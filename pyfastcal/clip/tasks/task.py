"""What a task is made of."""

from typing import NamedTuple

from .images import Split


class Task(NamedTuple):
    """An open-vocabulary task. Labels of ``train``, ``validation`` and ``base_test`` count in
    ``base_classes``, those of ``new_test`` in ``new_classes``; ``template`` is the zero-shot prompt of
    the matching small CLIP."""

    name: str
    template: str
    base_classes: list[str]
    new_classes: list[str]
    train: Split
    validation: Split
    base_test: Split
    new_test: Split
