"""The sets of drawings: packages ``@iconify-json/NAME`` of the npm registry, at the versions used, under licences that
let their drawings be changed and passed on, with their notices. Share-alike ones are left out."""

from typing import NamedTuple


class DrawingSet(NamedTuple):
    """``hand``: who drew it; sets of one hand show the same drawings in other styles, and are held out together.
    ``kind``: "emoji" (icons of code points), "flags" (icons of country codes), "natural" (pictures with names in
    words, each taken) or "interface" (a name is taken where several hands agree on it). ``coloured``: whether it
    has colours of its own. ``style``: words that may stand in a caption."""

    name: str
    version: str
    licence: str
    hand: str
    kind: str
    coloured: bool
    style: str


_TABLE = """
noto                        1.2.9   Apache-2.0  noto        emoji      colour  flat
noto-v1                     1.2.5   Apache-2.0  noto-v1     emoji      colour  flat
fxemoji                     1.2.2   Apache-2.0  fxemoji     emoji      colour  flat
fluent-emoji                1.2.7   MIT         fluent      emoji      colour  shaded
fluent-emoji-flat           1.2.6   MIT         fluent      emoji      colour  flat
fluent-emoji-high-contrast  1.2.6   MIT         fluent      emoji      line    solid
twemoji                     1.2.5   CC-BY-4.0   twemoji     emoji      colour  flat
emojione                    1.2.3   CC-BY-4.0   emojione    emoji      colour  flat
emojione-monotone           1.2.1   CC-BY-4.0   emojione    emoji      line    solid
streamline-emojis           1.2.4   CC-BY-4.0   streamline-emojis  emoji  colour  outlined
circle-flags                1.2.11  MIT         circle-flags  flags    colour  round
flag                        1.2.12  MIT         flag        flags      colour  square
flagpack                    1.2.8   MIT         flagpack    flags      colour  flat
cif                         1.2.7   CC0-1.0     cif         flags      colour  flat
streamline-freehand-color   1.2.2   CC-BY-4.0   freehand    natural    colour  freehand
streamline-ultimate-color   1.2.2   CC-BY-4.0   ultimate    natural    colour  outlined
streamline-kameleon-color   1.2.2   CC-BY-4.0   kameleon    natural    colour  round
streamline-plump-color      1.2.2   CC-BY-4.0   streamline  natural    colour  outlined
streamline-stickies-color   1.2.2   CC-BY-4.0   stickies    natural    colour  outlined
streamline-cyber-color      1.2.2   CC-BY-4.0   cyber       natural    colour  outlined
streamline-color            1.2.2   CC-BY-4.0   streamline  natural    colour  outlined
flat-color-icons            1.2.3   MIT         flat-color  natural    colour  flat
icon-park                   1.2.4   Apache-2.0  icon-park   interface  colour  outlined
meteocons                   1.2.4   MIT         meteocons   natural    colour  shaded
fluent-color                1.2.21  MIT         fluent-ui   interface  colour  shaded
marketeq                    1.2.2   MIT         marketeq    interface  colour  flat
game-icons                  1.2.4   CC-BY-3.0   game-icons  natural    line    solid
healthicons                 1.2.13  MIT         health      natural    line    solid
maki                        1.2.5   CC0-1.0     maki        natural    line    solid
temaki                      1.2.6   CC0-1.0     temaki      natural    line    solid
pinhead                     1.2.28  CC0-1.0     pinhead     natural    line    solid
guidance                    1.2.2   CC-BY-4.0   guidance    natural    line    line
lucide-lab                  1.2.3   ISC         lucide      natural    line    line
mdi                         1.2.3   Apache-2.0  mdi         interface  line    solid
memory                      1.2.2   Apache-2.0  memory      interface  line    pixel
material-symbols            1.2.98  Apache-2.0  material    interface  line    solid
ph                          1.2.2   MIT         phosphor    interface  line    line
tabler                      1.2.41  MIT         tabler      interface  line    line
lucide                      1.2.137 ISC         lucide      interface  line    line
fa7-solid                   1.2.5   CC-BY-4.0   fa          interface  line    solid
solar                       1.2.13  CC-BY-4.0   solar       interface  line    line
hugeicons                   1.2.35  MIT         hugeicons   interface  line    line
mingcute                    1.2.8   Apache-2.0  mingcute    interface  line    line
fluent                      1.2.60  MIT         fluent-ui   interface  line    line
iconoir                     1.2.11  MIT         iconoir     interface  line    line
ri                          1.2.10  Apache-2.0  remix       interface  line    line
boxicons                    1.2.0   MIT         boxicons    interface  line    line
carbon                      1.2.29  Apache-2.0  carbon      interface  line    line
uil                         1.2.3   Apache-2.0  uil         interface  line    line
griddy-icons                1.2.0   MIT         griddy      interface  line    line
dinkie-icons                1.2.0   MIT         dinkie      interface  line    pixel
pixelarticons               1.2.9   MIT         pixelart    interface  line    pixel
"""

SETS = tuple(
    DrawingSet(name, version, licence, hand, kind, shown == "colour", style)
    for name, version, licence, hand, kind, shown, style in map(str.split, _TABLE.strip().splitlines())
)

# Words in icons' names that tell how, not what, is drawn.
STYLE_WORDS = frozenset(
    [
        "outline",
        "outlined",
        "filled",
        "fill",
        "bold",
        "thin",
        "light",
        "line",
        "linear",
        "broken",
        "solid",
        "rounded",
        "round",
        "sharp",
        "twotone",
        "two",
        "tone",
        "baseline",
        "duotone",
        "duo",
        "flat",
        "regular",
        "color",
        "colour",
        "remix",
        "alt",
        "rtl",
        "ltr",
        "24px",
        "negative",
        "simple",
        "emoji",
    ]
)
FILLED = frozenset(["filled", "fill", "bold", "solid", "duotone", "duo"])
NUMBER_WORDS = frozenset(["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"])
