"""The CPU kernels under sanitizers: a small part of what ``make sanitize`` runs."""

import pytest

from scripts.checks import sanitize

pytestmark = pytest.mark.skipif(bool(sanitize.why_not()), reason=sanitize.why_not() or "runs")


def test_the_kernels_touch_no_memory_but_their_own(capfd):
    sanitize.build()
    assert sanitize.notices(sanitize.variants()[0])
    fewer = ["--hypothesis-profile=quick", "--ignore=tests/ops/test_compile.py", "-k", "not same_bits and not average"]
    assert sanitize.run_tests("tests/ops", *fewer), "".join(capfd.readouterr())
