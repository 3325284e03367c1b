"""The few pieces of HTML that the sections share. Arguments are texts, but where it says markup."""

import html
from collections.abc import Iterable

from ..io.text import printable


def escape(text: str) -> str:
    """Any text as markup that shows it."""
    return html.escape(printable(text))


def section(title: str, note: str, content: str) -> str:
    """A heading, a paragraph of explanation and the content (both markup); nothing without content."""
    if not content:
        return ""
    note = f'<p class="note">{note}</p>\n' if note else ""
    return f"<section>\n<h2>{escape(title)}</h2>\n{note}{content}\n</section>"


def table(caption: str, heads: Iterable[str], rows: Iterable[tuple[str, str]], kind: str = "") -> str:
    """``caption``: markup; ``heads``: texts of the columns; ``rows``: (heading text, cells' markup)."""
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body = "\n".join(f'<tr><th scope="row">{escape(text)}</th>{cells}</tr>' for text, cells in rows)
    kind = f' class="{kind}"' if kind else ""
    return (
        f'<div class="scroll" tabindex="0"><table{kind}>\n<caption>{caption}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>\n"
    )


def figure(svg: str, caption: str = "", kind: str = "") -> str:
    """``caption``: markup, set above the drawing."""
    caption = f"<figcaption>{caption}</figcaption>" if caption else ""
    kind = f' class="{kind}"' if kind else ""
    return f"<figure{kind}>{caption}\n{svg}\n</figure>\n"


def key(*entries: tuple[str, str]) -> str:
    """A legend of (CSS class of the swatch, text); no swatch where the class is empty."""
    swatches = (f'<i class="swatch {kind}"></i>' if kind else "" for kind, _ in entries)
    items = "".join(f"<span>{s}{escape(text)}</span>" for s, (_, text) in zip(swatches, entries, strict=True))
    return f'<div class="key-line">{items}</div>\n'


def coloured(gap: float, text: str) -> str:
    """``text`` in the colour of over- or under-confidence."""
    return f'<span class="{"over" if gap > 0 else "under"}">{escape(text)}</span>'
