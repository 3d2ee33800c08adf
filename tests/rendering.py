"""What the tests of figures share: draw a figure and look at its texts and pixels."""

import itertools

import numpy as np
from matplotlib.text import Text

BLUE, ORANGE = (0, 114, 178), (213, 94, 0)


def draw(figure):
    """Draw, check that no text is cut off or overlaps another, and return the pixels (height, width, 3)."""
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
    height, width = pixels.shape[:2]
    boxes = {text: text.get_window_extent() for text in _texts(figure)}
    for text, box in boxes.items():
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
        assert inside, f"{text.get_text()!r} is cut off: {box} of {width} x {height}"
    for (one, a), (other, b) in itertools.combinations(boxes.items(), 2):
        across, down = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        # a text's box is as high as its line: two lines may touch by a pixel or two without any ink in common
        assert across <= 1 or down <= 3, f"{one.get_text()!r} overlaps {other.get_text()!r}"
    return pixels


def texts(figure):
    """All texts that are seen."""
    return [text.get_text() for text in _texts(figure)]


def has_colour(pixels, colour):
    """Whether some pixel is (nearly) of the colour."""
    return bool((np.abs(pixels.astype(int) - colour).max(axis=2) <= 3).any())


def _texts(figure):
    shown = []
    for text in figure.findobj(Text):
        axes = text.axes
        hidden = axes is not None and not axes.axison and text not in axes.texts
        if text.get_visible() and text.get_text().strip() and not hidden:
            shown.append(text)
    return shown
