"""From icons' names to concepts: what a drawing shows, in words."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .packages import read
from .sets import FILLED, NUMBER_WORDS, SETS, STYLE_WORDS, DrawingSet

AGREEING = 3  # hands that must use a name of interface icons
MAX_WORDS = 6
# Names that mean another thing among interface icons than among emoji, and names of companies.
OTHER_MEANING = frozenset(
    [
        "mouse",
        "fan",
        "link",
        "information",
        "star",
        "label",
        "memory",
        "ring",
        "nest",
        "bat",
        "crane",
        "fly",
        "seal",
        "squash",
        "cricket",
        "orange",
        "bow",
        "drill",
        "nail",
        "window",
        "pan",
        "turkey",
        "date",
        "mole",
        "record",
        "layers",
        "pear",
        "square",
        "circle",
        "triangle",
        "dash",
        "root",
        "axe-fx",
        "anchor-link",
    ]
)
_SHORTCODES = ("emojibase", "cldr", "github", "iamcal", "joypixels", "emojibase-legacy")
_OLD_NAMES = {"hugging-face": "smiling-face-with-open-hands", "direct-hit": "bullseye"}


@dataclass
class Concept:
    """``name``: in words; ``category``: emojibase's sub-group, "country-flag", or "" for what has no code point;
    ``others``: other names that sets give it; ``keywords``: emojibase's; ``icons``: name of a set -> its icons."""

    name: str
    category: str = ""
    others: set[str] = field(default_factory=set)
    keywords: tuple[str, ...] = ()
    icons: dict[str, list[str]] = field(default_factory=dict)


def words(text: str) -> str:
    """``text`` in lower case, accents and punctuation gone: ``"T-shirt"`` is ``"t shirt"``."""
    plain = unicodedata.normalize("NFKD", text.replace("’", "").replace("'", "").replace("ß", "ss"))
    return " ".join(re.findall(r"[a-z0-9]+", plain.encode("ascii", "ignore").decode().lower()))


def _slug(text: str) -> str:
    return words(text).replace(" ", "-")


def _code(hexcode: str) -> str:
    return "-".join(x for x in hexcode.upper().split("-") if x != "FE0F")


class Emoji:
    """emojibase's code points with names, keywords, categories and aliases."""

    def __init__(self, folder: Path) -> None:
        groups = read(folder, "emojibase", "meta/groups.json")["subgroups"]
        self.concepts: dict[str, Concept] = {}
        entries = read(folder, "emojibase", "en/data.json")
        for entry in entries:  # type: ignore[assignment]
            if "group" not in entry or entry["group"] == 2:  # parts of others: regional letters, skin tones
                continue
            label = entry["label"]
            name = "flag of " + words(label.split(":", 1)[1]) if label.startswith("flag: ") else words(label)
            keywords = tuple(k for k in map(words, entry.get("tags", ())) if len(k) > 2 and k not in name)
            self.concepts[_code(entry["hexcode"])] = Concept(name, groups[str(entry["subgroup"])], keywords=keywords)
        self.by_name = {concept.name: concept for concept in reversed(self.concepts.values()) if concept.name}
        self.by_alias: dict[str, Concept] = {}
        for file in _SHORTCODES:
            for code, names in read(folder, "emojibase", f"en/shortcodes/{file}.json").items():
                concept = self.concepts.get(_code(code))
                for alias in [names] if isinstance(names, str) else names:
                    if concept is not None:
                        self.by_alias.setdefault(_slug(alias), concept)
        self.by_alias |= {_slug(name): concept for name, concept in self.by_name.items()}
        self.by_letters = {alias.replace("-", ""): concept for alias, concept in self.by_alias.items()}

    def of_set(self, folder: Path, drawing_set: DrawingSet, names: Iterable[str]) -> dict[str, Concept]:
        """Icon name -> concept, by the code points that the package gives, else by its names."""
        codes = read(folder, drawing_set, "chars.json")
        own = {name: self.concepts[_code(code)] for code, name in codes.items() if _code(code) in self.concepts}
        found = {}
        for name in names:
            plain = re.sub(r"-\d+$", "", name).replace("flag-for-flag-", "flag-of-").replace("flag-for-", "flag-of-")
            alias = self.by_alias.get(_OLD_NAMES.get(plain, plain)) or self.by_letters.get(plain.replace("-", ""))
            concept = own.get(name, alias if plain.startswith("flag-of-") else None) if own else alias
            if concept is not None:
                found[name] = concept
        return found


def shown_names(package: dict) -> list[str]:
    """The icons and aliases of a package that are neither hidden nor turned copies of others."""
    icons = [name for name, icon in package["icons"].items() if not icon.get("hidden")]
    turned = {"rotate", "hFlip", "vFlip"}
    return icons + [name for name, alias in package.get("aliases", {}).items() if not turned & set(alias)]


def plain_name(name: str) -> tuple[str, frozenset[str]]:
    """An icon's name without words of style, sizes and numbers of variants, and those words."""
    parts, style = name.split("-"), set()
    while len(parts) > 1 and (parts[-1] in STYLE_WORDS | NUMBER_WORDS or parts[-1].isdigit()):
        style.add(parts.pop())
    while len(parts) > 1 and parts[0] in STYLE_WORDS:
        style.add(parts.pop(0))
    return "-".join(parts), frozenset(style)


def _two_of(names: list[str]) -> list[str]:
    """The plainest of some names of one thing, and the plainest filled one."""
    order = sorted(names, key=lambda name: (len(name.split("-")), name))
    filled = [name for name in order[1:] if plain_name(name)[1] & FILLED]
    return order[:1] + filled[:1]


def concepts_of(folder: Path) -> list[Concept]:
    """All concepts with their icons, sorted by name, of the packages in ``folder``."""
    emoji = Emoji(folder)
    by_name: dict[str, dict[str, list[str]]] = defaultdict(dict)
    brands = {"apple", "android", "windows", "chrome", "safari", "opera", "edge", "firefox"}
    for drawing_set in SETS:
        names = shown_names(read(folder, drawing_set, "icons.json"))
        if drawing_set.kind == "emoji":
            for name, concept in emoji.of_set(folder, drawing_set, names).items():
                concept.icons.setdefault(drawing_set.name, []).append(name)
                concept.others.add(words(name))
            continue
        if drawing_set.kind == "flags":
            for name in names:
                country = name.removesuffix("-1x1")
                concept = emoji.concepts.get("-".join(f"1F1{ord(c) - 97 + 0xE6:02X}" for c in country))
                if len(country) == 2 and concept is not None:
                    concept.icons.setdefault(drawing_set.name, []).append(name)
            continue
        grouped: dict[str, list[str]] = defaultdict(list)
        for name in names:
            plain = plain_name(name)[0]
            if not re.search(r"\d|logo|brand", plain) and plain not in brands and len(plain) > 2:
                grouped[plain].append(name)
        for plain, found in grouped.items():
            by_name[plain][drawing_set.name] = _two_of(found)
    sets = {drawing_set.name: drawing_set for drawing_set in SETS}
    plainly: dict[str, Concept] = {}
    for plain, icons in by_name.items():
        name = plain.replace("-", " ")
        agreeing = {sets[s].hand for s in icons}
        known = None if plain in OTHER_MEANING else emoji.by_name.get(name)
        for drawing_set, found in icons.items():
            concept = known or _by_tail(plain, sets[drawing_set], emoji)
            natural = sets[drawing_set].kind == "natural"
            if concept is None and (len(agreeing) >= AGREEING or natural) and len(name.split()) <= MAX_WORDS:
                concept = plainly.setdefault(name, Concept(name))
            if concept is not None:
                concept.icons.setdefault(drawing_set, []).extend(found)
                if concept.name != name:
                    concept.others.add(name)
    for name, concept in emoji.by_name.items():
        plainly[name] = concept
    return [plainly[name] for name in sorted(plainly) if plainly[name].icons]


def _by_tail(plain: str, drawing_set: DrawingSet, emoji: Emoji) -> Concept | None:
    """Streamline's names go from a category to the thing: ``amusement-park-ferris-wheel``."""
    if not drawing_set.name.startswith("streamline-"):
        return None
    parts = plain.split("-")
    for start in range(1, len(parts)):
        tail = "-".join(parts[start:])
        if tail not in OTHER_MEANING and len(tail) > 3 and (concept := emoji.by_name.get(tail.replace("-", " "))):
            return concept
    return None
