"""What the assembler made of kernels, by cuobjdump; and what it must have made of the warpgroups' product."""

import os
import re
import shutil
import subprocess
from pathlib import Path

WARPGROUPS = "by_warpgroups"  # in the name of every kernel of that product
HOPPER = "sm_90a"
NEEDED = {"HGMMA": "wgmma", "UTMALDG": "tensor copies", "USETMAXREG": "registers handed over"}
MOST_OF_A_STUB = 64  # instructions: what may stand before the trap


def find_cuobjdump(nvcc: str | None) -> str | None:
    beside = Path(nvcc).with_name("cuobjdump") if nvcc else None
    return str(beside) if beside and os.access(beside, os.X_OK) else shutil.which("cuobjdump")


def dump(cuobjdump: str, cubin: Path, names: list[str] | None = None) -> dict[str, str]:
    """The machine code of these functions of a cubin, or of all."""
    command = [cuobjdump, "--dump-sass", *(["--function", ",".join(names)] if names else []), str(cubin)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {part.partition("\n")[0]: part for part in shown.split("Function : ")[1:]}


def opcodes(code: str) -> list[str]:
    """``HGMMA.64x128x16.F32.BF16``, ... in order, without the padding at the end."""
    found = re.findall(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)", code, re.MULTILINE)
    return [opcode for opcode in found if opcode != "NOP"]


def faults(code: str, arch: str) -> list[str]:
    """What is wrong with a kernel of the warpgroups' product: on Hopper it stands on Hopper's instructions, elsewhere
    it is there in name only."""
    there = opcodes(code)
    kinds = {opcode.partition(".")[0] for opcode in there}
    wrong = ["HMMA in its machine code: mma.sync"] if "HMMA" in kinds else []
    if arch == HOPPER:
        return wrong + [f"no {kind} in its machine code: {what}" for kind, what in NEEDED.items() if kind not in kinds]
    if "BPT.TRAP" not in there:
        wrong.append("no BPT.TRAP in its machine code: it is not to run there")
    if len(there) > MOST_OF_A_STUB:
        wrong.append(f"{len(there)} instructions of machine code: it is not to run there")
    return wrong
