"""The CPU kernels without torch: this processor's, and those of 64-bit Arm where they can be compiled and run."""

import platform
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from scripts import ROOT

MACHINE = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())


def missing(*tools: str) -> list[str]:
    return [tool for tool in tools if shutil.which(tool) is None]


needs_compiler = pytest.mark.skipif(
    platform.system() != "Linux" or bool(missing("make", "g++")), reason="needs Linux, make and g++"
)
needs_arm = pytest.mark.skipif(
    bool(missing("aarch64-linux-gnu-g++", "qemu-aarch64")),
    reason="needs aarch64-linux-gnu-g++ and qemu-aarch64: apt-get install g++-aarch64-linux-gnu qemu-user",
)


@cache
def bits_of(target: str) -> dict[str, dict[str, str]]:
    """Builds and runs the program for a target; by variant and case what its kernels returned, to the bit."""
    # ARGS empty: a `make test ARGS=...` above hands its own on
    done = subprocess.run(
        ["make", "-C", ROOT / "tests/cpu_kernels", "-j", "2", target, "ARGS="],
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    found: dict[str, dict[str, str]] = {}
    for line in (ROOT / "build/cpu_kernels" / target / "bits.txt").read_text().splitlines():
        variant, _, rest = line.partition(" ")
        case, _, bits = rest.rpartition(" ")
        found.setdefault(variant, {})[case] = bits
    return found


VARIANTS = ("avx2", "avx512", "avx512_bf16", "amx_bf16", "neon", "neon_bf16")


@needs_compiler
def test_kernels_of_this_processor():
    found = bits_of("native")
    assert all(len(cases) > 1000 for cases in found.values())
    assert "scalar" in found and (MACHINE != "aarch64" or "neon" in found)


@needs_compiler
@needs_arm
def test_kernels_of_arm():
    arm, native = bits_of("aarch64"), bits_of("native")
    assert set(arm) == {"scalar", "neon", "neon_bf16"} and all(len(cases) > 1000 for cases in arm.values())
    # multiply-adds in one rounding, in the same order: NEON's bits are those of AVX2
    for variant in {"avx2", "neon"} & set(native):
        assert [case for case in native[variant] if native[variant][case] != arm["neon"].get(case)] == []


@needs_compiler
@needs_arm
def test_an_arm_processor_without_bf16():
    bits_of("aarch64")
    program = ROOT / "build/cpu_kernels/aarch64/test_kernels"
    done = subprocess.run(
        ["qemu-aarch64", "-cpu", "cortex-a72", program, "--filter", "similarity_confidence_is_nan"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "neon_bf16: not on this processor" in done.stdout
    assert re.search(r"^neon: [1-9]", done.stdout, re.MULTILINE)


def test_flags_are_those_of_the_package():
    makefile = (ROOT / "tests/cpu_kernels/Makefile").read_text()
    setup, cmake = (ROOT / "setup.py").read_text(), (ROOT / "CMakeLists.txt").read_text()
    for variant in VARIANTS:
        flags = re.search(rf"^{variant}_FLAGS := (.*)$", makefile, re.MULTILINE)[1]
        flags = re.sub(r"\$\(filter-out -D%,\$\((\w+)\)\)", lambda of: variable(makefile, of[1]), flags).split()
        wanted = flags_of(setup, variant)
        assert [flag for flag in flags if not flag.startswith("-D")] == wanted
        assert all(flag in cmake for flag in wanted)
    assert {p.stem for p in Path(ROOT, "csrc/cpu").glob("variant_*.cpp")} == {
        f"variant_{variant}" for variant in ("scalar", *VARIANTS)
    }


def variable(makefile: str, name: str) -> str:
    value = re.search(rf"^{name} := (.*)$", makefile, re.MULTILINE)[1]
    return re.sub(r"\$\(filter-out -D%,\$\((\w+)\)\)", lambda of: variable(makefile, of[1]), value)


def flags_of(setup: str, variant: str) -> list[str]:
    """With those of the variants that it says to begin with."""
    own = re.search(rf"^{variant.upper()} = \[(.*?)\]", setup, re.MULTILINE)[1]
    base = re.match(r"\*(\w+)", own)
    return (flags_of(setup, base[1]) if base else []) + re.findall(r'"(-[^"]+)"', own)
