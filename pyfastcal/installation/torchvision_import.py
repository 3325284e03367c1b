"""Lets ``import torchvision`` work beside a torch that its compiled part was not built for.

The registry's torchvision for x86-64 Linux is built for CUDA. Beside a CPU build of torch its compiled part does not
load, and the import stops at "operator torchvision::nms does not exist", and with it those of open_clip, timm and
torchmetrics, although none of them needs that operator here. With the operators' schemas declared, which the compiled
part would have registered, the Python part loads; what needs the compiled part raises torchvision's own error.
A torchvision that fits its torch never meets any of this.

This file needs nothing of pyfastcal: run as a script, it lets every ``import torchvision`` of its Python's environment
work, if the present one does not (``make demo`` runs it on the environment that it makes).
"""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

OPERATORS = ("nms", "qnms")  # those whose schemas the Python part asks for when it is imported
_declared: list[object] = []  # keeps the library object, and with it the schemas, alive


def _lacks_operators(error: RuntimeError) -> bool:
    return "torchvision::" in str(error) and "does not exist" in str(error)


class Finder:
    """Finds torchvision as all others do, and runs its import once more where that is what it lacks."""

    mends_torchvision = True
    searching = False

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != "torchvision" or self.searching:
            return None
        import importlib.util

        self.searching = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self.searching = False
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            try:
                execute(module)
            except RuntimeError as error:
                if not _lacks_operators(error):
                    raise
                declare()
                execute(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def declare() -> None:
    """The schemas, and a clean slate for the modules that the failed import left half-made."""
    import torch

    for name in [name for name in sys.modules if name.startswith("torchvision.")]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in OPERATORS:
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(library)


def install() -> None:
    """For this process. ``import pyfastcal`` does it; it costs nothing until something imports torchvision."""
    if not any(getattr(finder, "mends_torchvision", False) for finder in sys.meta_path):
        sys.meta_path.insert(0, Finder())  # type: ignore[arg-type]


def install_for_all() -> None:
    """Copy this file into the environment, with a line that installs it at every start of its Python, if that helps."""
    import shutil
    import subprocess
    import sysconfig
    from pathlib import Path

    module, line = (Path(sysconfig.get_paths()["purelib"], f"_torchvision_without_cuda.{end}") for end in ("py", "pth"))
    for file in (module, line):
        file.unlink(missing_ok=True)
    done = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, text=True)
    if done.returncode and _lacks_operators(RuntimeError(done.stderr)):
        shutil.copy(__file__, module)
        line.write_text(f"import {module.stem}; {module.stem}.install()\n")


if __name__ == "__main__":
    install_for_all()
