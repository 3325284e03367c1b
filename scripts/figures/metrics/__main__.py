from scripts.figures.metrics import FIGURES, PAGE
from scripts.figures.page import write

write(PAGE, FIGURES)
