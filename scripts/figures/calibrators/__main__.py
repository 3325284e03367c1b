import argparse
import json

from scripts.figures.calibrators import FIGURES, PAGE, RESULTS
from scripts.figures.calibrators.table import measure, table
from scripts.figures.page import with_tables, write

parser = argparse.ArgumentParser(description="Write the figures and the table of docs/calibrators.md.")
parser.add_argument("--measure", action="store_true", help="measure the table again: some minutes")
if parser.parse_args().measure:
    RESULTS.write_text(json.dumps(measure(), indent=1) + "\n")
PAGE.write_text(with_tables(PAGE.read_text(), {"methods": table(json.loads(RESULTS.read_text()))}))
write(PAGE, FIGURES)
