"""The report: one self-contained page that holds every figure, and whose words come from the numbers."""

import re
import xml.etree.ElementTree as ET
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from pyfastcal.evaluate import Evaluation, evaluate_split
from pyfastcal.io import FeatureSet
from pyfastcal.report import Report, Run, findings, render, summarise, write_picture, write_report

METHODS = ("zero-shot", "conf", "dac", "cac", "cac-fit")
VOID = {"meta", "br", "link", "img"}


def splits(seed: int, c: int = 6, n: int = 240, d: int = 24) -> dict[str, FeatureSet]:
    g = torch.Generator().manual_seed(seed)
    zeroshot = normalize(torch.randn(1, d, generator=g) + torch.randn(2 * c, d, generator=g), dim=-1)
    tuned = normalize(zeroshot + 0.05 * torch.randn(2 * c, d, generator=g), dim=-1)
    made = {}
    for name, first in (("base", 0), ("new", c)):
        labels = torch.randint(0, c, (n,), generator=g)
        images = zeroshot[first + labels] + 0.2 * torch.randn(n, d, generator=g)
        rows = slice(first, first + c)
        names = [f"class <{i}> & co" for i in range(first, first + c)]
        made[name] = FeatureSet(images, tuned[rows], labels, 40.0, zeroshot[rows], classnames=names)
    return made


def evaluations(seed: int, methods: tuple[str, ...] = METHODS) -> tuple[Evaluation, ...]:
    made = splits(seed)
    return tuple(evaluate_split(f, made["base"], methods, split=name) for name, f in made.items())


@pytest.fixture(scope="module")
def report() -> Report:
    runs = [Run(f"seed {seed}", evaluations(seed)) for seed in (0, 1, 2)]
    return Report("A <title> & more", runs, 10, ["Made-up features."], {"torch": torch.__version__})


@pytest.fixture(scope="module")
def page(report: Report) -> str:
    return render(report)


class Checker(HTMLParser):
    """Balanced tags, ids that are there once, and no reference that leaves the page."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "srcset", "href", "xlink:href", "action", "data", "poster"):
                self.references.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()


def test_page_is_whole_and_fetches_nothing(page: str) -> None:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    assert len(set(checker.ids)) == len(checker.ids) > 0
    assert checker.references and all(r.startswith("#") and r[1:] in checker.ids for r in checker.references)
    for pointer in re.findall(r"url\(([^)]*)\)", page):
        assert pointer.startswith("#") and pointer[1:] in checker.ids
    for word in ("http:", "https:", "//www", "<script", "<link", "<iframe", "@import", "<img"):
        assert word not in page, word


def test_every_figure_is_there(page: str) -> None:
    figures = re.findall(r"<svg.*?</svg>", page, flags=re.S)
    labels = [re.search(r'aria-label="([^"]*)"', figure) for figure in figures]
    kinds = [unescape(label[1]).split(":")[0].split(" of ")[0] for label in labels if label]
    # conf, dac, cac, cac-fit for base and new; confidence, gap, gap after DAC; gamma of the new classes
    assert kinds == ["Reliability diagram"] * 8 + ["Scatter plot"] * 3 + ["DAC's weight gamma"]
    assert all('role="img"' in figure for figure in figures)
    for figure in figures:
        ET.fromstring(figure)  # well-formed
        assert not re.search(r"#01010[1-8]", figure)  # every colour is one of the page's
        assert figure.count("<path") + figure.count("<use") > 5


def test_colours_follow_light_and_dark(page: str) -> None:
    used = set(re.findall(r"var\(--(\w+)\)", page))
    css = page[page.index("<style>") : page.index("</style>")]
    light, dark, print_ = (set(re.findall(r"--(\w+):", block)) for block in css.split(":root {")[1:4])
    assert used <= light == dark == print_


def test_tables_hold_the_numbers(page: str, report: Report) -> None:
    text = re.sub(r"<[^>]+>", "", page)
    for row in summarise(report):
        mean, spread = row["ece"]
        assert f"{100 * mean:.1f} ± {100 * spread:.1f}" in text
    assert ("seed 2" in text and "±" in text and "helped" in text) or "hurt" in text
    assert page.count("<table") == 2 + 1 + 2  # results, run by run (new), levels
    assert "A &lt;title&gt; &amp; more" in page and "class &lt;" in page


def test_summary_is_mean_and_sample_deviation(report: Report) -> None:
    values = torch.tensor([r["ece"] for run in report.runs for r in run.split("new").rows if r["method"] == "dac"])
    (row,) = [r for r in summarise(report) if r["split"] == "new" and r["method"] == "dac"]
    assert row["ece"] == pytest.approx((values.mean().item(), values.std().item()))
    assert row["runs"] == 3


def test_findings_follow_the_numbers() -> None:
    made = evaluations(0, ("conf", "dac"))
    rows = {e.split: {r["method"]: r for r in e.rows} for e in made}
    rows["new"]["conf"].update(ece=0.10, gap=0.09)
    rows["new"]["dac"].update(ece=0.08)
    text = " ".join(findings(Report("", [Run("a", made)])))
    assert "New classes without calibration: mean confidence minus accuracy is +9.0 points." in text
    assert "DAC on new classes: ECE 10.0 → 8.0 % (−2.0 points)." in text
    assert "DAC on base classes: changes nothing." in text
    rows["new"]["conf"].update(gap=-0.04)
    rows["new"]["dac"].update(ece=0.13)
    text = " ".join(findings(Report("", [Run("a", made)])))
    assert "accuracy is −4.0 points" in text and "ECE 10.0 → 13.0 % (+3.0 points)" in text


def test_where_it_helped_is_told_apart() -> None:
    runs = [Run(str(seed), evaluations(seed, ("conf", "dac"))) for seed in (0, 1, 2)]
    for run, gap, ece in ((runs[0], 0.2, 0.05), (runs[1], 0.0, 0.3), (runs[2], -0.2, 0.2021)):
        rows = {r["method"]: r for r in run.split("new").rows}
        rows["conf"].update(ece=0.2, gap=gap)
        rows["dac"].update(ece=ece)
    text = " ".join(findings(Report("", runs)))
    assert "is 0.0 points (over-confident in 1, under-confident in 1, within 3 points of it in 1 of 3 runs" in text
    assert "lower in 1, higher in 1, the same within a quarter of a point in 1 of 3 runs" in text
    assert "Lower in 1 of the 1 over-confident runs and in 0 of the other 2." in text
    page = re.sub(r"<[^>]+>", "", render(Report("", runs)))
    for outcome in ("5.0 helped", "30.0 hurt", "20.2 same"):
        assert page.count(outcome) == 1


def test_one_split_without_base_or_names() -> None:
    new = splits(0)["new"]
    new.classnames = new.zeroshot_text_features = None
    run = Run("", (evaluate_split(new, None, ("conf", "dac"), split="my file"),))
    page = render(Report("One", [run]))
    assert "my file" in page and "zeroshot_text_features" in page and "± " not in page
    assert page.count("Reliability diagram:") == 1 and "gamma" not in page


def test_picture_and_report_are_written(tmp_path: Path, report: Report) -> None:
    picture = write_picture(tmp_path / "docs" / "demo.png", report)
    content = picture.read_bytes()
    assert content.startswith(b"\x89PNG") and len(content) > 10_000
    assert write_report(tmp_path / "r.html", report).read_text(encoding="utf-8").startswith("<!doctype html>")
    assert sorted(p.name for p in tmp_path.rglob("*.*")) == ["demo.png", "r.html"]
