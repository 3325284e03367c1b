"""Words for people. What files and shells bring in, names of files and classes first of all, is shown as text and never
obeyed, on any terminal, page or figure; and what a terminal's encoding lacks is put in other words.
"""

import codecs
import re
import sys

# Controls, which terminals obey and XML has no place for, as it has none for the last two; lone surrogates, which no
# encoding has; separators of lines; and what turns the direction of all that follows.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")

PLAIN = {"±": "+-", "−": "-", "–": "-", "→": "->", "•": "*", "·": ".", "…": "...", "■": "#", "γ": "gamma"}


def printable(text: object) -> str:
    """``str(text)`` with its control characters and whatever else cannot be shown as escapes, such as ``\\x1b``."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def counted(n: int, noun: str) -> str:
    """``1 task``, ``2 tasks``, ``1,000 classes``."""
    return f"{n:,} {noun}{'' if n == 1 else 'es' if noun.endswith('s') else 's'}"


def _plainly(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in lacking), error.end


codecs.register_error("pyfastcal.plain", _plainly)


def show_anything() -> None:
    """Let stdout and stderr take what their encoding lacks: in ``PLAIN`` words, or as an escape."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="pyfastcal.plain")
