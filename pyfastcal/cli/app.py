"""The program: how a command is run and its errors are shown, and the options that several commands have."""

import errno
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ..io.text import printable, show_anything

app = typer.Typer(
    name="pyfastcal",
    help="Confidences one can trust, for CLIP: calibrate, measure, report.",
    epilog="Start with: pyfastcal demo",
    no_args_is_help=True,
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", is_eager=True, help="Show the version.")] = False,
) -> None:
    if version:
        from ..installation.commands import package_version

        print(f"pyfastcal {package_version()}")
        raise typer.Exit


def command(function: Callable[..., None]) -> None:
    """Make a command of ``function``, whose expected errors become one line on stderr and exit code 1."""

    @functools.wraps(function)
    def wrapper(*args: Any, debug: bool, **kwargs: Any) -> None:
        try:
            function(*args, debug=debug, **kwargs)
        except (ValueError, ImportError, OSError, RuntimeError) as error:
            gone = isinstance(error, BrokenPipeError) and error.filename is None  # who read what is printed
            if debug or gone or isinstance(error, typer.Exit):
                raise
            rank = os.environ.get("RANK", "0")  # of torchrun
            print(f"pyfastcal{f', rank {rank}' if rank != '0' else ''}: {_one_line(error)}", file=sys.stderr)
            raise typer.Exit(1) from None

    app.command()(wrapper)


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # files have names: it is what is printed
        where = f"{error.filename}: " if error.filename else "stdout: " if full else ""
        return printable(f"{where}{error.strerror}")
    return printable(" ".join(str(error).split())) or type(error).__name__


Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Bins = Annotated[int, typer.Option("--n-bins", min=1, max=1000, help="Bins of confidence.")]
ReportFile = Annotated[
    Path | None,
    typer.Option("--report", metavar="FILE", help="Write the report, one HTML file. Needs matplotlib."),
]
Pretrained = Annotated[str | None, typer.Option(metavar="TAG|FILE", help="Weights: a tag of open_clip, or a file.")]
Workers = Annotated[int, typer.Option(min=0, help="Processes that read images.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...")]
Precision = Annotated[str, typer.Option(help="fp32, fp16 or bf16.")]


def names_in(value: str) -> list[str]:
    """What an option names, with commas."""
    return [part.strip() for part in value.split(",") if part.strip()]


def say_written(*paths: object) -> None:
    print("Written:", ", ".join(map(printable, paths)))


def main() -> None:
    """The ``pyfastcal`` program."""
    show_anything()
    try:
        app(prog_name="pyfastcal")
    except SystemExit as done:
        sys.exit(_flushed(done.code))


def _flushed(code: Any) -> Any:
    """The exit code, once all that was printed is out: 1 where it does not come out, without a word where nobody reads
    it any more (``pyfastcal info | head``)."""
    try:
        if sys.stdout is not None:  # as it is where it was closed
            sys.stdout.flush()
        return code
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            print(f"pyfastcal: stdout: {error.strerror}", file=sys.stderr)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python flushes once more at the end
    return 1
