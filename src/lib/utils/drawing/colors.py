"""Colours of classes, joints and text, as blue, green and red in 0 to 255."""

import colorsys
import functools

Color = tuple[int, int, int]

BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def bgr(hue: float, saturation: float, value: float) -> Color:
    """Return the colour of hue, saturation and value in [0, 1]."""
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(blue * 255), round(green * 255), round(red * 255)


@functools.cache
def class_color(index: int) -> Color:
    """Return the colour of class `index` (0-based): the same whatever the number of classes."""
    hue = (0.58 + index * 0.618034) % 1  # golden-ratio steps: each next hue falls into the widest gap left
    saturation, value = ((0.85, 1.0), (0.55, 1.0), (0.95, 0.7))[index // 7 % 3]
    return bgr(hue, saturation, value)


def class_colors(n: int) -> list[Color]:
    """Return the BGR colours of `n` classes; the first ones stay the same when `n` grows."""
    return [class_color(index) for index in range(n)]


def rainbow(n: int) -> list[Color]:
    """Return `n` BGR colours in the order of the rainbow, for joints, which are numbered along the body."""
    return [bgr(0.83 * index / max(n, 1), 0.8, 1.0) for index in range(n)]


def text_color(background: Color) -> Color:
    """Return black or white, whichever reads better on `background`."""
    blue, green, red = background
    return BLACK if 0.114 * blue + 0.587 * green + 0.299 * red > 140 else WHITE
