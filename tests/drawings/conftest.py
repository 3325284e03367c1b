"""A registry in small: packages as ``npm`` unpacks them, with icons of a few shapes by several hands."""

import json
from pathlib import Path

import pytest

from scripts.drawings.sets import SETS

pytest.importorskip("resvg_py", reason="renders the drawings")
pytest.importorskip("tokenizers", reason="learns the vocabulary")

SHAPES = {
    "disc": '<circle cx="8" cy="8" r="{r}" {paint}/>',
    "box": '<rect x="{o}" y="{o}" width="{d}" height="{d}" {paint}/>',
    "bar": '<rect x="1" y="6" width="14" height="{r}" {paint}/>',
    "post": '<rect x="6" y="1" width="{r}" height="14" {paint}/>',
    "roof": '<path d="M1 14 L8 {o} L15 14 Z" {paint}/>',
    "bowl": '<path d="M1 {o} L15 {o} L8 15 Z" {paint}/>',
    "cross": '<path d="M6 1h{o}v5h5v4h-5v5h-{o}v-5h-5v-4h5z" {paint}/>',
    "step": '<path d="M1 1h5v5h5v5h4v{o}h-14z" {paint}/>',
}
EMOJI = {"disc": "1F534", "box": "1F7E5", "roof": "1F3E0", "bowl": "1F963"}  # the others have no code point
ANIMALS = ("disc", "box")  # classes of a task, so that half of their hands are held out
INTERFACE = [s.name for s in SETS if s.kind == "interface"][:8]
NATURAL = "game-icons"
COLOURED = ["noto", "noto-v1", "twemoji", "emojione"]


def _icons(names: list[str], n: int, coloured: bool) -> dict:
    paint = f'fill="#{(n * 3) % 16:x}{(n * 7) % 16:x}a"' if coloured else 'fill="currentColor"'
    sizes = {"r": 4 + n % 4, "o": 2 + n % 3, "d": 12 - 2 * (n % 3), "paint": paint}
    return {name: {"body": SHAPES[name].format(**sizes)} for name in names}


def write_packages(folder: Path) -> Path:
    for n, s in enumerate(SETS):
        package: dict = {"icons": {}, "width": 16, "height": 16}
        if s.name in COLOURED:
            package["icons"] = _icons(list(EMOJI), n, True)
            (folder / s.name).mkdir()
            codes = {code.lower(): name for name, code in EMOJI.items()}
            (folder / s.name / "chars.json").write_text(json.dumps(codes))
        elif s.name in INTERFACE:
            package["icons"] = _icons(list(SHAPES), n, s.coloured)
            package["aliases"] = {"cross-turned": {"parent": "cross", "rotate": 1}, "disc-filled": {"parent": "disc"}}
        elif s.name == NATURAL:
            package["icons"] = {"disc-pair": {"body": '<circle cx="4" cy="8" r="3"/><circle cx="12" cy="8" r="3"/>'}}
            package["icons"]["nothing"] = {"body": "<g/>"}
            package["icons"]["hidden-one"] = {"body": SHAPES["disc"].format(r=5, paint=""), "hidden": True}
        (folder / s.name).mkdir(exist_ok=True)
        (folder / s.name / "icons.json").write_text(json.dumps(package))
        info = {"name": s.name, "author": {"name": "somebody"}, "license": {"title": s.licence, "spdx": s.licence}}
        (folder / s.name / "info.json").write_text(json.dumps(info))
    base = folder / "emojibase"
    (base / "en" / "shortcodes").mkdir(parents=True)
    (base / "meta").mkdir()
    (base / "meta" / "groups.json").write_text(
        json.dumps({"subgroups": {"0": "geometric", "1": "animal-mammal", "33": "skin-tone"}})
    )
    entries = [
        {
            "label": name.title(),
            "hexcode": code,
            "tags": ["shape", name + "like", "geometry"],
            "group": 8,
            "subgroup": int(name in ANIMALS),
        }
        for name, code in EMOJI.items()
    ]
    entries.append({"label": "light skin tone", "hexcode": "1F3FB", "group": 2, "subgroup": 33})
    (base / "en" / "data.json").write_text(json.dumps(entries))
    (base / "en" / "shortcodes" / "cldr.json").write_text(json.dumps({"1F534": ["red_disc", "disc"]}))
    return folder


@pytest.fixture(scope="session")
def packages(tmp_path_factory) -> Path:
    return write_packages(tmp_path_factory.mktemp("packages"))
