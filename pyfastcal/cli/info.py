"""``pyfastcal info``."""

import json
from typing import Annotated

import typer

from .app import Debug


def info(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    debug: Debug = False,
) -> None:
    """Show versions, which kernels run, and which optional parts are installed."""
    from ..report.environment import describe

    found = describe()
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for section, items in found.items():
        print(section)
        for key, value in items.items():
            value = ", ".join(map(str, value)) if isinstance(value, list) else value
            if value not in (None, ""):
                print(f"  {key:<22} {value}")
