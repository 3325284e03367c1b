"""Builds the kernels on LibTorch's stable ABI, one binary for every torch >= 2.11: pyfastcal._C, the CPU half and a
pybind11 module; and, where CUDA is, the library pyfastcal._cuda. No GPU is needed to build it.

Everything else about the package is in pyproject.toml. What became of each half, and why, is written into the package
(``_build.json``), since pip shows nothing of a build that it takes for a good one. Settings, by environment variable:

    PYFASTCAL_BUILD=auto|require|skip   auto (default): without a working compiler the package installs all the same and
                                        runs on its plain-torch reference path; require: fail instead; skip: do not try
    PYFASTCAL_CUDA=auto|0|1             the CUDA half. auto (default): where there is nvcc and torch has CUDA; 0: never;
                                        1: always, also beside a torch without CUDA, for use with another
    PYFASTCAL_CUDA_ARCHS                what to compile for: default "sm_80 sm_90a sm_100 sm_120 compute_100", the last
                                        being PTX, for 11.0 and later GPUs
    PYFASTCAL_CUDA_LIBRARY              a CUDA half built before, of these sources and for PYFASTCAL_CUDA_ARCHS, to take
                                        as it is, also where there is no nvcc: it is one for every Python, and its
                                        compilation takes minutes
    PYFASTCAL_TORCH                     the folder of a torch (its include and lib) to build against, where it is not
                                        the installed one
    PYFASTCAL_SANITIZE                  the CPU half with these sanitizers of GCC, as `make sanitize` builds it
    CUDA_HOME, CXX, CXXFLAGS            as usual
"""

import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import ExecError

ROOT = Path(__file__).parent.resolve()


def setting(name: str, *allowed: str) -> str:
    value = os.environ.get(name) or allowed[0]
    if value not in allowed:
        raise SystemExit(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    return value


WISH = setting("PYFASTCAL_BUILD", "auto", "require", "skip")
CUDA_WISH = setting("PYFASTCAL_CUDA", "auto", "0", "1")
CUDA_ARCHS = os.environ.get("PYFASTCAL_CUDA_ARCHS", "sm_80 sm_90a sm_100 sm_120 compute_100").replace(",", " ").split()
CUDA_LIBRARY = os.environ.get("PYFASTCAL_CUDA_LIBRARY", "")
SANITIZE = os.environ.get("PYFASTCAL_SANITIZE", "")
TORCH_TARGET = "2.11"
HALVES = {"pyfastcal._C": "cpu", "pyfastcal._cuda": "cuda"}
FLAGS = ["-std=c++20", "-ffp-contract=off", "-fvisibility=hidden", "-fvisibility-inlines-hidden"]
if SANITIZE:  # Python's own -fwrapv would hide overflow
    FLAGS += [
        f"-fsanitize={SANITIZE}",
        "-fno-sanitize-recover=all",
        "-fno-wrapv",
        "-D_GLIBCXX_ASSERTIONS",
        "-O1",
        "-g1",
    ]
else:
    FLAGS += ["-O3", "-g0"]
FLAGS += ["-Wno-maybe-uninitialized", "-Wno-uninitialized"]  # what GCC 12 says of its own AVX-512 header
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq"]
AVX512_BF16 = [*AVX512, "-mavx512bf16"]
AMX_BF16 = [*AVX512_BF16, "-mamx-tile", "-mamx-int8", "-mamx-bf16"]
NEON = ["-fno-schedule-insns"]  # GCC would move a tile's loads up until its 32 registers do not suffice
NEON_BF16 = [*NEON, "-march=armv8.2-a+bf16"]
VARIANTS = {
    "avx2": ("x86_64", AVX2),
    "avx512": ("x86_64", AVX512),
    "avx512_bf16": ("x86_64", AVX512_BF16),
    "amx_bf16": ("x86_64", AMX_BF16),
    "neon": ("aarch64", NEON),
    "neon_bf16": ("aarch64", NEON_BF16),
}
MACHINE = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
if sys.platform == "darwin":  # not for both processors of a universal Python: torch is for this one
    os.environ.setdefault("ARCHFLAGS", f"-arch {platform.machine()}")
NVCC_FLAGS = ["-std=c++20", "-O3", "-Xcompiler=-fPIC,-fvisibility=hidden,-fvisibility-inlines-hidden"]


def find_torch() -> Path | None:
    """The installed torch, also from within pip's build isolation, which hides the environment's packages."""
    if os.environ.get("PYFASTCAL_TORCH"):
        return Path(os.environ["PYFASTCAL_TORCH"]).resolve()
    for path in (None, sysconfig.get_paths()["platlib"]):
        if path is not None:
            sys.path.append(path)
        spec = importlib.util.find_spec("torch")
        if spec is not None and spec.origin is not None:
            return Path(spec.origin).parent
    return None


def find_cuda() -> Path | None:
    """The folder with bin/nvcc and the headers; the nvcc on the path may be a script that lies elsewhere."""
    homes = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    if not homes:
        nvcc = shutil.which("nvcc")
        homes = ["/usr/local/cuda"] + ([str(Path(nvcc).resolve().parents[1])] if nvcc else [])
    for home in map(Path, homes):
        if (home / "bin/nvcc").exists() and (home / "include/cuda_runtime.h").exists():
            return home
    return None


TORCH = find_torch()
CUDA = find_cuda()


def why_no_cuda() -> str:
    """Why the CUDA half is not built, or nothing where it is to be."""
    if CUDA_WISH == "0":
        return "PYFASTCAL_CUDA was 0"
    if CUDA is None and not CUDA_LIBRARY:
        return "no nvcc was found"
    if CUDA_WISH != "1" and not (TORCH and (TORCH / "lib/libtorch_cuda.so").exists()):
        return "torch was one without CUDA"
    return ""


def cpu_sources() -> dict[str, list[str]]:
    """Each source with the flags that it alone needs. CMakeLists.txt builds the same ones."""
    sources: dict[str, list[str]] = {str(p.relative_to(ROOT)): [] for p in sorted(ROOT.glob("csrc/*.cpp"))}
    for path in sorted(ROOT.glob("csrc/cpu/*.cpp")):
        machine, flags = VARIANTS.get(path.stem.removeprefix("variant_"), (MACHINE, []))
        if machine == MACHINE:
            sources[str(path.relative_to(ROOT))] = flags
    return sources


def cuda_sources() -> list[str]:
    return [str(p.relative_to(ROOT)) for p in sorted(ROOT.glob("csrc/cuda/*.cu"))]


def gencode(archs: Iterable[str]) -> list[str]:
    return [f"-gencode=arch={arch.replace('sm_', 'compute_')},code={arch}" for arch in archs]


def run_compiler(command: list[str]) -> None:
    """Runs it, shows what it says, and raises an error with the line of that which says what is wrong."""
    name = Path(command[0]).name
    try:
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace")
    except OSError as error:
        raise ExecError(f"{name}: {error.strerror}") from error
    sys.stderr.write(done.stderr)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        first = next((line for line in lines if re.search(r"\berror\b", line, re.IGNORECASE)), "".join(lines[-1:]))
        raise ExecError(f"{name}: {first[:300] or f'exit code {done.returncode}'}")


class BuildExtension(build_ext):
    """The CUDA half first: the CPU half says what became of it. ``problems``: why each half is missing, or nothing."""

    no_cuda = why_no_cuda()

    def build_extensions(self) -> None:
        self.problems = {"cpu": "", "cuda": self.no_cuda}
        for name in HALVES:
            Path(self.get_ext_fullpath(name)).unlink(missing_ok=True)  # of an earlier build
        self.compiler.call = self.compiler.spawn = run_compiler  # (spawn: of setuptools before 81 or so)
        super().build_extensions()
        self.record = Path(self.build_lib, "pyfastcal/_build.json")
        self.record.parent.mkdir(parents=True, exist_ok=True)
        self.record.write_text(json.dumps(self.problems, indent=2) + "\n")

    def build_extension(self, ext: Extension) -> None:
        half = HALVES[ext.name]
        if WISH == "skip":
            self.problems[half] = "PYFASTCAL_BUILD was skip"
            return
        try:
            self.build_cuda(ext) if half == "cuda" else self.build_cpu(ext)
        except Exception as error:
            if WISH == "require" or (half == "cuda" and CUDA_WISH == "1"):
                raise
            if half == "cuda":
                self.no_cuda = "building it failed"
            self.problems[half] = f"building it failed: {' '.join(str(error).split())}"
            print(f"pyfastcal: the {half.upper()} half is missing: {self.problems[half]}", file=sys.stderr)

    def copy_extensions_to_source(self) -> None:
        super().copy_extensions_to_source()
        for name in HALVES:
            built = Path(self.build_lib, self.get_ext_filename(name))
            if not built.exists() and WISH != "skip":
                self.in_place(built).unlink(missing_ok=True)  # kernels of earlier sources would be worse than none
        self.copy_file(str(self.record), str(self.in_place(self.record)))

    def get_output_mapping(self) -> dict[str, str]:
        mapping = {built: place for built, place in super().get_output_mapping().items() if Path(built).exists()}
        return mapping | ({str(self.record): str(self.in_place(self.record))} if self.inplace else {})

    def in_place(self, built: Path) -> Path:
        return Path(self.get_finalized_command("build_py").get_package_dir("pyfastcal"), built.name)

    def build_cpu(self, ext: Extension) -> None:
        import pybind11

        if TORCH is None:
            raise RuntimeError("torch was not found")
        # pybind11's own first: torch 2.11 bundles one in its folder, which refuses TORCH_TARGET_VERSION
        include = [pybind11.get_include(), str(TORCH / "include"), sysconfig.get_paths()["include"]]
        macros = [
            self.torch_target(),
            ("PYFASTCAL_TORCH_TARGET", f'"{TORCH_TARGET}"'),
            ("PYFASTCAL_COMPILER", f'"{self.compiler_name()}"'),
            ("PYFASTCAL_CUDA_ARCHS", f'"{"" if self.no_cuda else " ".join(CUDA_ARCHS)}"'),
            ("PYFASTCAL_CUDA_TOOLKIT", f'"{"" if self.no_cuda else self.cuda_version()}"'),
            ("PYFASTCAL_NO_CUDA", f'"{self.no_cuda}"'),
        ]

        def compile_one(item: tuple[str, list[str]]) -> list[str]:
            source, flags = item
            return self.compiler.compile(
                [source], self.build_temp, macros, include, extra_postargs=[*FLAGS, *flags], depends=headers
            )

        headers = [str(p) for p in ROOT.glob("csrc/**/*.h")]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = [o for out in pool.map(compile_one, cpu_sources().items()) for o in out]
        extra = [f"-fsanitize={SANITIZE}"] if SANITIZE else []
        self.link(ext, objects, libraries=["torch_cpu", "c10"], library_dirs=[str(TORCH / "lib")], extra=extra)

    def build_cuda(self, ext: Extension) -> None:
        if CUDA_LIBRARY:
            target = Path(self.get_ext_fullpath(ext.name))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(CUDA_LIBRARY, target)
            return
        if TORCH is None:
            raise RuntimeError("torch was not found")
        if CUDA is None:
            raise RuntimeError("no nvcc was found; CUDA_HOME says where it is")
        objects = Path(self.build_temp) / "csrc/cuda"
        objects.mkdir(parents=True, exist_ok=True)
        sources = cuda_sources()
        name, value = self.torch_target()
        command = [str(CUDA / "bin/nvcc"), *NVCC_FLAGS, *gencode(CUDA_ARCHS), f"-D{name}={value}", "-c"]
        command += ["-isystem", str(TORCH / "include"), f"--threads={max(1, (os.cpu_count() or 1) // len(sources))}"]
        if os.environ.get("CXX"):
            command += ["-ccbin", os.environ["CXX"].split()[0]]

        def compile_one(source: str) -> str:
            target = str(objects / (Path(source).stem + ".o"))
            print(f"nvcc {source}", flush=True)
            run_compiler([*command, source, "-o", target])
            return target

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            compiled = list(pool.map(compile_one, sources))
        self.link(
            ext,
            compiled,
            libraries=["torch_cpu", "c10", "cudart_static", "dl", "rt", "pthread"],
            # (lib: a toolkit of the nvidia wheels)
            library_dirs=[str(p) for p in (TORCH / "lib", CUDA / "lib64", CUDA / "lib", *CUDA.glob("targets/*/lib"))],
            extra=["-Wl,--no-as-needed", str(self.torch_cuda(objects)), "-Wl,--exclude-libs,ALL"],
        )

    def torch_cuda(self, folder: Path) -> Path:
        """The library to be found loaded when ours is: torch's own or, where this torch has none, an empty one of that
        name, which serves the linker as well."""
        library = TORCH / "lib/libtorch_cuda.so"
        if not library.exists():
            library = folder / "libtorch_cuda.so"
            source = folder / "nothing.cpp"
            source.write_text("")
            name = "-Wl,-soname,libtorch_cuda.so"
            run_compiler([*self.compiler.linker_so_cxx, str(source), name, "-o", str(library)])
        return library

    def link(self, ext: Extension, objects: list[str], *, extra: Iterable[str] = (), **options: list[str]) -> None:
        target = self.get_ext_fullpath(ext.name)
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        # libtorch is loaded by `import torch`, before this is: no run path to it is wanted
        self.compiler.link_shared_object(objects, target, extra_postargs=list(extra), target_lang="c++", **options)

    def torch_target(self) -> tuple[str, str]:
        major, minor = TORCH_TARGET.split(".")
        return "TORCH_TARGET_VERSION", f"0x{int(major):02x}{int(minor):02x}000000000000"

    def compiler_name(self) -> str:
        command = self.compiler.compiler_so[0]
        version = subprocess.run([command, "-dumpfullversion", "-dumpversion"], capture_output=True, text=True)
        return f"{Path(command).name} {version.stdout.strip()}"

    def cuda_version(self) -> str:
        if CUDA_LIBRARY or CUDA is None:
            return "of unknown version"
        out = subprocess.run([str(CUDA / "bin/nvcc"), "--version"], capture_output=True, text=True).stdout
        found = re.search(r"release ([\d.]+)", out)
        return found[1] if found else "of unknown version"


class BuildWheel(bdist_wheel):
    """A wheel without kernels is one for any platform and Python, and must not pass for one that has them."""

    def get_tag(self) -> tuple[str, str, str]:
        built = self.get_finalized_command("build_ext")
        if self.distribution.have_run.get("build_ext") and built.problems["cpu"] and built.problems["cuda"]:
            self.root_is_pure = True
        return super().get_tag()


extensions = [Extension("pyfastcal._C", list(cpu_sources()), optional=WISH != "require")]
if not why_no_cuda() or CUDA_WISH == "1":
    extensions.insert(0, Extension("pyfastcal._cuda", cuda_sources(), optional=CUDA_WISH != "1"))

setup(
    ext_modules=extensions,
    cmdclass={"build_ext": BuildExtension, "bdist_wheel": BuildWheel},
    setup_requires=[] if TORCH or WISH == "skip" else ["torch>=" + TORCH_TARGET],
)
