"""Arguments that hold names, of which ``all`` stands for all."""

from collections.abc import Iterable


def chosen(
    name: str, value: Iterable[str], known: Iterable[str], every: Iterable[str] | None = None
) -> tuple[str, ...]:
    """Names of those ``known``, each once, in the order given; ``all`` stands for ``every`` (default: ``known``).
    ValueError, which names the argument ``name``, at an unknown one or none at all."""
    known = tuple(known)
    every = known if every is None else every
    names = tuple(dict.fromkeys(one for given in value for one in (every if given == "all" else (given,))))
    for one in names:
        if one not in known:
            raise ValueError(f"{name} must be among all, {', '.join(known)}, got {one!r}")
    if not names:
        raise ValueError(f"{name} must name at least one of {', '.join(known)}")
    return names
