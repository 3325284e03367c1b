"""``pyfastcal info``: what is installed, in words and as JSON."""

import json

import torch

from tests.command import invoke


def test_info() -> None:
    import pyfastcal

    text = invoke("info").stdout
    build = pyfastcal.build_info()
    assert torch.__version__ in text and build["pyfastcal"] in text
    assert ("compiled CPU kernels" in text) == build["kernels"] and ("reference path" in text) != build["kernels"]
    found = json.loads(invoke("info", "--json").stdout)
    assert found["build"]["torch"] == torch.__version__ and "matplotlib" in found["optional packages"]
