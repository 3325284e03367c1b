"""Builds pyfastcal._C: the ops on LibTorch's stable ABI (one binary for every torch >= 2.11) and a pybind11 module.

Everything else about the package is in pyproject.toml. Settings, by environment variable:

    PYFASTCAL_BUILD=auto|require|skip   auto (default): without a working compiler the package installs all the same and
                                        runs on its plain-torch reference path; require: fail instead; skip: do not try
    CXX, CXXFLAGS                       as usual
"""

import importlib.util
import os
import platform
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
WISH = os.environ.get("PYFASTCAL_BUILD", "auto")
TORCH_TARGET = "2.11"
FLAGS = [
    "-std=c++20",
    "-O3",
    "-g0",
    "-ffp-contract=off",
    "-fvisibility=hidden",
    "-fvisibility-inlines-hidden",
]
FLAGS += ["-Wno-maybe-uninitialized", "-Wno-uninitialized"]  # what GCC 12 says of its own AVX-512 header
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq"]


def find_torch() -> Path | None:
    """The installed torch, also from within pip's build isolation, which hides the environment's packages."""
    for path in (None, sysconfig.get_paths()["platlib"]):
        if path is not None:
            sys.path.append(path)
        spec = importlib.util.find_spec("torch")
        if spec is not None and spec.origin is not None:
            return Path(spec.origin).parent
    return None


TORCH = find_torch()


def cpu_sources() -> dict[str, list[str]]:
    """Each source with the flags that it alone needs. CMakeLists.txt builds the same ones."""
    sources: dict[str, list[str]] = {str(p.relative_to(ROOT)): [] for p in sorted(ROOT.glob("csrc/*.cpp"))}
    for path in sorted(ROOT.glob("csrc/cpu/*.cpp")):
        variant = path.stem.removeprefix("variant_")
        if variant in ("avx2", "avx512") and platform.machine().lower() not in ("x86_64", "amd64"):
            continue
        sources[str(path.relative_to(ROOT))] = {"avx2": AVX2, "avx512": AVX512}.get(variant, [])
    return sources


class BuildExtension(build_ext):
    def build_extension(self, ext: Extension) -> None:
        if WISH == "skip":
            return
        try:
            self.compile_and_link(ext)
        except Exception as error:
            if WISH == "require":
                raise
            print(f"pyfastcal: building the kernels failed ({error}).", file=sys.stderr)
            print("pyfastcal: installing without them, on the plain-torch reference path.", file=sys.stderr)

    def compile_and_link(self, ext: Extension) -> None:
        import pybind11

        if TORCH is None:
            raise RuntimeError("torch was not found")
        major, minor = TORCH_TARGET.split(".")
        include = [str(TORCH / "include"), pybind11.get_include(), sysconfig.get_paths()["include"]]
        macros = [
            ("TORCH_TARGET_VERSION", f"0x{int(major):02x}{int(minor):02x}000000000000"),
            ("PYFASTCAL_TORCH_TARGET", f'"{TORCH_TARGET}"'),
            ("PYFASTCAL_COMPILER", f'"{self.compiler_name()}"'),
        ]

        def compile_one(item: tuple[str, list[str]]) -> list[str]:
            source, flags = item
            return self.compiler.compile(
                [source], self.build_temp, macros, include, extra_postargs=[*FLAGS, *flags], depends=headers
            )

        headers = [str(p) for p in ROOT.glob("csrc/**/*.h")]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = [o for out in pool.map(compile_one, cpu_sources().items()) for o in out]
        target = self.get_ext_fullpath(ext.name)
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        # libtorch is loaded by `import torch`, before this is: no run path to it is wanted
        self.compiler.link_shared_object(
            objects,
            target,
            libraries=["torch_cpu", "c10"],
            library_dirs=[str(TORCH / "lib")],
            extra_postargs=[],
            target_lang="c++",
        )

    def compiler_name(self) -> str:
        command = self.compiler.compiler_so[0]
        version = subprocess.run([command, "-dumpfullversion", "-dumpversion"], capture_output=True, text=True)
        return f"{Path(command).name} {version.stdout.strip()}"


setup(
    ext_modules=[Extension("pyfastcal._C", list(cpu_sources()), optional=WISH != "require")],
    cmdclass={"build_ext": BuildExtension},
    setup_requires=[] if TORCH or WISH == "skip" else ["torch>=" + TORCH_TARGET],
)
