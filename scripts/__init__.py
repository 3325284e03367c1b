"""What the project is made and checked with; from its root, ``python -m scripts.ROOM.NAME``.

- ``figures``: the figures and tables of docs/, one module per page.
- ``clip``: the pre-training of the bundled small CLIPs.
- ``checks``: the CPU kernels under sanitizers, counters over a billion rows, builds on several torches.
- ``cuda``: the CUDA half without a GPU: what the compiler makes of it, and whether its tests notice seeded bugs.
- ``gpu``: everything that is to be done on a machine with a GPU, in one command.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
