"""The ops where the package was built without kernels: ``PYFASTCAL_TEST_REFERENCE=1`` with any tests shows the same."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_ops_keep_their_promises_without_kernels():
    command = [
        sys.executable,
        "-m",
        "pytest",
        "tests/ops",
        "tests/calibration/test_proximity.py",
        "-rs",
        "-p",
        "no:cacheprovider",
    ]
    command += ["--ignore=tests/ops/test_compile.py", "--hypothesis-profile=quick"]
    env = os.environ | {"PYFASTCAL_TEST_REFERENCE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "without kernels a row's last bits may depend on its batch" in done.stdout
