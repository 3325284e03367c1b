"""Each op is whole: an entry with a definition, a schema, a fake kernel of the same parameters, and calls to try."""

import ast
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest
import torch

from pyfastcal import calibration, ops, reference
from pyfastcal.ops.entry import defined_by

from .test_compile import CALLS, FUNCTIONS, needs_kernels

ROOT = Path(__file__).resolve().parents[2]
INNER = {"fixed_point_bin_counts", "bin_totals"}  # bin_counts in integers
OPS = sorted(set(ops.__all__) - INNER)


def schemas() -> dict[str, list[str]]:
    """The parameters of each op, as csrc/library.cpp has them."""
    text = (ROOT / "csrc/library.cpp").read_text()
    found = re.findall(r"(\w+)\(([^()]*)\) *->", text.replace('"\n', "").replace("(a!)", ""))
    return {name: re.findall(r"(\w+)(?:,|$)", re.sub(r'["\s]+', " ", parameters)) for name, parameters in found}


def fakes() -> dict[str, list[str]]:
    """The parameters of each fake kernel, as the files of the ops have them."""
    found = {}
    for path in Path(ops.__file__).parent.glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            for decorator in getattr(node, "decorator_list", []):
                if isinstance(decorator, ast.Call) and getattr(decorator.func, "id", "") == "fake":
                    found[decorator.args[0].value] = [argument.arg for argument in node.args.args]
    return found


def test_each_has_all_its_parts():
    checked = {name for name in schemas() if name.startswith("checked_")}
    inner = {
        "add_rows",
        "scale_logits",
        "divide_logits",
        "scale_by_contrast",
        "predict_by_contrast",
    }  # of metrics and of calibrators, which have the definitions
    assert set(schemas()) == set(fakes()) == set(CALLS) == {*OPS, *checked, *inner}
    assert set(FUNCTIONS) == set(OPS)
    assert schemas() == fakes()
    for name in checked:  # what its entry tries first
        assert schemas()[name] == schemas()[name.removeprefix("checked_")]


@needs_kernels
def test_the_schemas_are_those_that_torch_knows():
    for name, parameters in schemas().items():
        schema = getattr(torch.ops.pyfastcal, name).default._schema
        assert [argument.name for argument in schema.arguments] == parameters


@pytest.mark.parametrize(
    "function",
    [getattr(ops, name) for name in OPS]
    + [calibration.proximity, calibration.textual_deviation, calibration.contrast_weight],
    ids=lambda function: function.__name__,
)
def test_says_what_its_definition_says(function):
    definition = function.definition
    assert definition is getattr(reference, function.__name__)
    assert inspect.getdoc(definition) in inspect.getdoc(function)
    own, of_definition = (list(inspect.signature(f).parameters) for f in (function, definition))
    assert [name for name in own if name in of_definition] == of_definition
    assert set(own) <= {*of_definition, "group"}  # of processes, of which a definition knows nothing


def test_a_definition_is_named_in_the_docstring_or_refused():
    def entry():
        """No word of it."""

    with pytest.raises(AssertionError, match="must have the line Definition: ``reference.knn``"):
        defined_by(reference.knn)(entry)


def test_a_file_does_not_take_the_name_of_its_op():
    """``ops/knn.py`` has ``knn``, which is what ``ops.knn`` is, whatever was imported."""
    for module in pkgutil.iter_modules(ops.__path__):
        importlib.import_module(f"pyfastcal.ops.{module.name}")
    assert all(inspect.isfunction(getattr(ops, name)) for name in ops.__all__)
