"""What every figure shares: a page measured in pixels, text that fits its room, axes, colours and image tiles."""

from __future__ import annotations

import bisect
import functools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

DPI = 120
MARGIN = 28  # pixels around everything
NAME_ROOM = 170  # pixels at most for the name of a class or column
KEY = 180  # pixels of the strip that explains the signed colours
HEADER = 86  # pixels from the top edge to the content, room for title and subtitle
TITLE, BODY, SMALL = 13.0, 9.0, 8.0  # points

# Okabe and Ito's blue, vermilion and green: told apart with every colour vision, the first two in grey print, too
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
_OWN_FONT = "DejaVu Sans"  # comes with Matplotlib: looks and measures the same everywhere
INK, MUTED, FAINT = "#222222", "#666666", "#E3E3E3"


@functools.cache
def colours(name: str) -> Colormap:
    """Return the map "blue" or "orange" (white to full) or "signed" (orange below 0, white, blue above)."""
    from matplotlib.colors import LinearSegmentedColormap

    stops = {
        "blue": ["#FFFFFF", "#B9D9EC", BLUE, "#004A75"],
        "orange": ["#FFFFFF", "#F8CFAE", ORANGE],
        "signed": ["#7A3300", ORANGE, "#F8CFAE", "#FFFFFF", "#B9D9EC", BLUE, "#003A5C"],
    }
    return LinearSegmentedColormap.from_list(name, stops[name])


class Page:
    """A figure whose content is placed in pixels from the top left corner; it owns fonts and elision.

    `figure` is the Matplotlib figure, `sheet` an invisible axes over all of it with pixels as coordinates.
    `texts` are strings given by the user that will be drawn: they choose the fonts.
    """

    def __init__(self, width: float, height: float, title: str, subtitle: str, texts: Iterable[str] = ()) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.families = families_for("".join(texts))
        needed = max(width, self.measure(title, TITLE, bold=True), self.measure(subtitle, BODY))
        self.width, self.height = round(needed + 2 * MARGIN), round(HEADER + height + MARGIN)
        # the small surplus keeps Matplotlib, which cuts off fractions, from losing the last pixel
        inches = ((self.width + 0.01) / DPI, (self.height + 0.01) / DPI)
        self.figure = Figure(figsize=inches, dpi=DPI, facecolor="white")
        self.figure.set_layout_engine("none")
        FigureCanvasAgg(self.figure)
        self.sheet = self.figure.add_axes((0, 0, 1, 1), xlim=(0, self.width), ylim=(self.height, 0))
        self.sheet.set_axis_off()
        self.text(MARGIN, MARGIN - 6, title, TITLE, bold=True, va="top")
        self.text(MARGIN, MARGIN + 21, subtitle, BODY, MUTED, va="top")

    def measure(self, text: str, size: float, bold: bool = False) -> float:
        """Width of the text in pixels."""
        return text_width(text, size, (_OWN_FONT,) if bold else self.families, bold)

    def fit(self, text: str, room: float, size: float, bold: bool = False) -> str:
        """Return the text, its end replaced by an ellipsis where it is wider than `room` pixels."""
        if self.measure(text, size, bold) <= room:
            return text
        return self._longest([text[:keep].rstrip() + "…" for keep in range(1, len(text))], room, size, bold)

    def fit_each(self, texts: Sequence[str], room: float, size: float) -> list[str]:
        """`fit` of each text; where that makes different ones alike, the ellipsis stands in their middle instead.

        Those that differ in the middle alone stay alike.
        """
        fitted = {text: self.fit(text, room, size) for text in texts}
        count = Counter(fitted.values())
        return [self._without_middle(text, room, size) if count[fitted[text]] > 1 else fitted[text] for text in texts]

    def _without_middle(self, text: str, room: float, size: float) -> str:
        ends = [(text[: keep - keep // 2], text[len(text) - keep // 2 :]) for keep in range(1, len(text))]
        return self._longest([f"{start.rstrip()}…{end.lstrip()}" for start, end in ends], room, size, False)

    def _longest(self, cuts: list[str], room: float, size: float, bold: bool) -> str:
        """The last of some ever longer texts that has room, or the first."""
        fitting = bisect.bisect_right(cuts, room, key=lambda cut: self.measure(cut, size, bold))
        return cuts[max(fitting - 1, 0)] if cuts else "…"

    def font(self, size: float, colour: str = INK, bold: bool = False) -> dict[str, Any]:
        """Text properties that hold whatever the reader's matplotlibrc says; names with $ are no formulas."""
        return {
            "fontfamily": (_OWN_FONT,) if bold else self.families,
            "fontsize": size,
            "fontweight": "bold" if bold else "normal",
            "color": colour,
            "parse_math": False,
            "usetex": False,
        }

    def text(
        self, x: float, y: float, text: str, size: float, colour: str = INK, bold: bool = False, **more: Any
    ) -> None:
        """Write a line at a pixel position."""
        self.sheet.text(x, y, text, **self.font(size, colour, bold), **more)

    def panel(self, left: float, top: float, width: float, height: float) -> Axes:
        """Add ordinary axes at a pixel position, plain: light horizontal grid, no box."""
        place = (
            left / self.width,
            1 - (top + height) / self.height,
            width / self.width,
            height / self.height,
        )
        axes = self.figure.add_axes(place, facecolor="none")
        for side in ("top", "left", "right"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set(color=MUTED, linewidth=0.8)
        axes.tick_params(
            which="both", length=0, labelsize=SMALL, labelcolor=MUTED, labelfontfamily=self.families, pad=5
        )
        axes.grid(False)
        return axes

    def titles(self, panel: Axes, across: str = "", up: str = "") -> None:
        """Say what a panel's axes are."""
        if across:
            panel.set_xlabel(across, labelpad=6, **self.font(BODY, MUTED))
        if up:
            panel.set_ylabel(up, labelpad=8, **self.font(BODY, MUTED))

    def ticks(
        self,
        axis: Axis,
        places: ArrayLike,
        names: Iterable[str],
        colour: str = MUTED,
        *,
        room: float = NAME_ROOM,
        upright: bool = False,
    ) -> None:
        """Name places of an axis, the names cut to `room` pixels; `upright` sets them on end."""
        labels = self.fit_each(list(names), room, SMALL)
        axis.set_ticks(np.asarray(places), labels, rotation=90 if upright else 0, **self.font(SMALL, colour))

    def key(self, left: float, middle: float, colours: dict[str, str]) -> None:
        """Say what colours mean: each name in its own, behind a dot, on one line."""
        for name, colour in colours.items():
            self.text(left, middle, f"● {name}", SMALL, colour, va="center")
            left += self.measure(f"● {name}", SMALL) + 18

    def frame(self, panel: Axes) -> None:
        """Set a panel that holds an image on a ground one pixel larger: a thin frame that covers no cell."""
        from matplotlib.patches import Rectangle

        left, top = panel.bbox.x0, self.height - panel.bbox.y1
        place = (left - 1, top - 1), panel.bbox.width + 2, panel.bbox.height + 2
        self.sheet.add_patch(Rectangle(*place, facecolor=FAINT, linewidth=0))
        panel.spines[:].set_visible(False)

    def picture(self, left: float, top: float, image: NDArray[Any]) -> None:
        """Put an RGB image (height, width, 3) of values 0 to 1, one pixel for a pixel."""
        height, width = image.shape[:2]
        extent = (left, left + width, top + height, top)
        self.sheet.imshow(image, extent=extent, origin="upper", interpolation="nearest", aspect="auto", resample=False)
        self.sheet.set(xlim=(0, self.width), ylim=(self.height, 0))


@functools.lru_cache(4096)
def text_width(text: str, size: float, families: tuple[str, ...], bold: bool = False) -> float:
    """Width in pixels of a line of text of `size` points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family=list(families), size=size, weight="bold" if bold else "normal")
    # drawn text is hinted to whole pixels a letter: allow it 3 % more
    return 1.03 * text_to_path.get_text_width_height_descent(text, font, False)[0] * DPI / 72


def widest(names: Iterable[str], size: float, most: float = NAME_ROOM, others: Iterable[str] = ()) -> float:
    """Pixels that the longest of the names takes, at most `most`; the page's `others` choose its fonts, too."""
    names = list(names)
    fonts = families_for("".join([*names, *others]))
    return min(max(text_width(name, size, fonts) for name in names), most)


@functools.lru_cache(64)
def families_for(text: str) -> tuple[str, ...]:
    """Return the font families for the text: Matplotlib's own, and an installed one if it lacks letters."""
    from matplotlib.font_manager import fontManager, get_font

    own = _charmap(_OWN_FONT)
    missing = {ord(letter) for letter in text if ord(letter) not in own and letter.isprintable()}
    if missing:
        plain = [entry for entry in fontManager.ttflist if entry.style == "normal" and entry.weight == 400]
        for entry in sorted(plain, key=lambda entry: ("Sans" not in entry.name, entry.name)):
            # these two answer to every letter, with colour bitmaps and with empty boxes
            if "Emoji" in entry.name or entry.name.startswith(("Last Resort", ".Last")):
                continue
            if missing <= get_font(entry.fname).get_charmap().keys():
                return _OWN_FONT, entry.name
    return (_OWN_FONT,)


def names_of(classes: Sequence[int | str]) -> list[str]:
    """Class names as they can be drawn: on one line, and letters that no installed font has as escapes."""
    names = [" ".join(str(name).split()) or "(blank)" for name in classes]
    known = set().union(*(_charmap(family) for family in families_for("".join(names))))

    def drawn(letter: str) -> str:
        if letter.isprintable() and ord(letter) in known:
            return letter
        return letter.encode("ascii", "backslashreplace").decode() if ord(letter) > 127 else ascii(letter)[1:-1]

    return ["".join(drawn(letter) for letter in name) for name in names]


@functools.lru_cache(16)
def _charmap(family: str) -> frozenset[int]:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return frozenset(get_font(findfont(FontProperties(family=[family]))).get_charmap())


def to_rgb(images: NDArray[Any], low: float, high: float) -> NDArray[np.float64]:
    """Images (N, C, H, W) with values low to high -> (N, H, W, 3) with values 0 to 1.

    One channel becomes grey, three are red, green and blue, any other number stands side by side.
    """
    scaled = np.clip((images.astype(np.float64) - low) / max(high - low, 1e-300), 0, 1)
    channels = scaled.shape[1]
    if channels == 3:
        return np.moveaxis(scaled, 1, 3)
    beside = np.concatenate([scaled[:, channel] for channel in range(channels)], axis=2)
    return np.repeat(beside[..., None], 3, axis=3)


def resize(images: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Tiles (N, H, W, 3) whose longer side has about `size` pixels.

    Enlarged by a whole factor, so that every pixel of an image is an equal square; shrunk by averaging.
    """
    longest = max(images.shape[1:3])
    for axis in (1, 2):
        old = images.shape[axis]
        new = old * round(size / longest) if longest <= size else round(old * size / longest)
        new = max(new, 8)  # a strip one pixel wide is still seen
        if new >= old:
            images = np.take(images, np.arange(new) * old // new, axis=axis)
        else:
            starts = np.arange(new) * old // new
            counts = np.diff(starts, append=old).reshape((-1, *[1] * (3 - axis)))
            images = np.add.reduceat(images, starts, axis=axis) / counts
    return images


def check_names(argument: str, names: Sequence[int | str], count: int, what: str) -> list[str]:
    """Return names as they can be drawn; ValueError where there are not `count`, one for each of `what`."""
    if len(names) != count:
        raise ValueError(f"{argument}: {len(names)} names for {count} {what}; wanted one for each")
    return names_of(names)


def nice_step(least: float) -> int:
    """Return the smallest of 1, 2, 5, 10, 20, 50, ... that is at least `least`."""
    power = 1
    while True:
        for step in (power, 2 * power, 5 * power):
            if step >= least:
                return step
        power *= 10


def round_ticks(first: int, last: int, most: int) -> list[int]:
    """Return `first` and the round numbers after it, about `most` steps up to `last`."""
    step = nice_step((last - first) / most)
    return [first, *(tick for tick in range(step, last + 1, step) if tick - first > step / 2)]


def value_axis(page: Page, panel: Axes, low: float, high: float, kind: str = "value") -> None:
    """Set scale, limits, ticks and grid of the vertical axis for values from low to high.

    kind: "value" and "share" start at 0, or are logarithmic where they span more than a factor of 50;
    "accuracy" shows its own range alone. Shares and accuracies, 0 to 1, are written in percent.
    """
    from matplotlib.ticker import MaxNLocator, NullLocator

    if kind != "accuracy" and low > 0 and high > 50 * low:
        bottom, top = low / 1.3, high * 1.3
        panel.set_yscale("log", nonpositive="mask")
        panel.yaxis.set_minor_locator(NullLocator())
        first, last = math.floor(math.log10(bottom)), math.ceil(math.log10(top))
        few = last - first > 4
        powers = range(first, last + 1, nice_step((last - first) / 10))
        ticks = np.array([k * 10.0**power for power in powers for k in ((1,) if few else (1, 2, 5))])
    else:
        room = 0.06 * (high - low)
        if kind == "accuracy":
            room = max(room, 0.01 - (high - low) / 2)  # two points at least, for a single value
            bottom, top = max(low - room, -0.005), min(high + room, 1.002)
        elif kind == "share":
            bottom, top = 0.0, 1.06 * high
        else:
            bottom, top = min(0.0, low), high + max(room, 0.001)
        ticks = np.asarray(MaxNLocator(7, steps=[1, 2, 5, 10]).tick_values(bottom, top))
    ticks = ticks[(ticks >= bottom) & (ticks <= top)]
    page.ticks(panel.yaxis, ticks, [f"{tick:.4g}" if kind == "value" else f"{100 * tick:.4g} %" for tick in ticks])
    panel.set_ylim(bottom, top)
    panel.grid(True, axis="y", color=FAINT, linewidth=0.8)


def apart(positions: Sequence[float], distance: float) -> list[float]:
    """Move positions as little as needed until neighbours are `distance` apart, in their order."""
    order = np.argsort(positions, kind="stable")
    groups: list[list[float]] = []  # [centre, members]
    for index in order:
        groups.append([positions[index], 1.0])
        while len(groups) > 1:
            (a, m), (b, n) = groups[-2], groups[-1]
            if b - a >= distance * (m + n) / 2:
                break
            groups[-2:] = [[(a * m + b * n) / (m + n), m + n]]
    placed = [centre + distance * (i - (n - 1) / 2) for centre, n in groups for i in range(int(n))]
    result = [0.0] * len(positions)
    for index, position in zip(order, placed, strict=True):
        result[index] = position
    return result


def counted(number: int, noun: str, plural: str = "") -> str:
    """Number and noun, "1 row" or "1,200 rows"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def signed_key(page: Page, left: float, top: float, limit: str) -> None:
    """Draw the signed colours as a strip of KEY pixels with its ends, beyond which they stay the same, and 0 named."""
    ramp = colours("signed")(np.linspace(0, 1, KEY))[None, :, :3]
    page.picture(left, top, np.repeat(ramp, 10, axis=0))
    for x, text, side in ((0, f"≤ -{limit}", "left"), (KEY / 2, "0", "center"), (KEY, f"≥ {limit}", "right")):
        page.text(left + x, top + 14, text, SMALL, MUTED, va="top", ha=side)


def percent(share: float) -> str:
    """Percent with one decimal, two where the first would round up to 100."""
    text = f"{100 * share:.1f} %"
    return f"{min(100 * share, 99.99):.2f} %" if text == "100.0 %" and share < 1 else text


def message_figure(title: str, text: str) -> Figure:
    """Return a small figure that says in words why there is nothing to draw."""
    return Page(420, 0, title, text).figure
