"""Scripts as they are run: in a process of their own."""

import subprocess
import sys

from scripts import ROOT


def python(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)
