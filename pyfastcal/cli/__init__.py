"""The command line, a file for each command. Results go to stdout, progress and errors to stderr; an error is one line,
``--debug`` shows where it came from. Exit codes: 0 done, 1 failed, 2 wrong usage. Whatever files bring in is shown as
text. What a command needs, it imports when it runs, so that ``--help`` is quick.
"""

from . import demo, evaluate, experiment, extract, info
from .app import app, command, main

__all__ = ["app", "main"]

_IN_ORDER = demo.demo, evaluate.evaluate, extract.extract, experiment.experiment, info.info  # of --help
for _function in _IN_ORDER:
    command(_function)
