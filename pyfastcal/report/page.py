"""The report as one HTML page: no scripts, nothing fetched, all figures inline."""

from importlib.resources import files

from . import figures, mistakes, neighbours, panels, tables
from .markup import escape, section
from .summary import Report, findings

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{css}</style>
</head>
<body>
{body}
</body>
</html>
"""


def render(report: Report) -> str:
    """The whole page. ImportError that says what to install where matplotlib is missing."""
    figures.matplotlib()
    lead = "\n".join(f'<p class="lead">{escape(text)}</p>' for text in report.description)
    found = "\n".join(f"<li>{escape(text)}</li>" for text in findings(report))
    made = "\n".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in report.environment.items())
    parts = [
        f"<header>\n<h1>{escape(report.title)}</h1>\n{lead}\n</header>",
        section("What the numbers say", "", found and f"<ul>\n{found}\n</ul>"),
        tables.results(report),
        tables.run_by_run(report),
        panels.reliability(report),
        mistakes.cards(report),
        panels.proximities(report),
        panels.gammas(report),
        neighbours.blocks(report),
        tables.confidence_levels(report),
        section("How this was made", "", made and f"<dl>\n{made}\n</dl>"),
    ]
    css = files(__package__).joinpath("style.css").read_text(encoding="utf-8")
    return PAGE.format(title=escape(report.title), css=css, body="\n".join(part for part in parts if part))
