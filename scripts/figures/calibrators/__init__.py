"""The figures and the table of docs/calibrators.md.

``python -m scripts.figures.calibrators`` draws the figures and puts what they show under each; with ``--measure`` it
first runs every method on the bundled small CLIPs, some minutes, and writes docs/calibrators.json, which the table is
made of."""

from scripts.figures.calibrators import drawings
from scripts.figures.page import DOCS, by_name

PAGE, RESULTS = DOCS / "calibrators.md", DOCS / "calibrators.json"
FIGURES = by_name(
    *(drawings.temperature, drawings.no_minimum, drawings.density_ratio, drawings.histogram_binning),
    *(drawings.isotonic, drawings.bin_mean_shift, drawings.who_changes_predictions),
)
