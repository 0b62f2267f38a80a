"""Windows on the screen."""

import functools
import os
import subprocess
import sys
from collections.abc import Mapping

import cv2
import numpy as np

from ..errors import UserError

ESCAPE = 27


@functools.cache
def has_display() -> bool:
    """Return whether a window can be opened; tried once, in another process, since cv2 aborts where it cannot."""
    screens = os.environ.get('DISPLAY'), os.environ.get('WAYLAND_DISPLAY')
    if sys.platform.startswith('linux') and not any(screens):
        return False
    probe = "import cv2; cv2.namedWindow('probe'); cv2.destroyAllWindows()"
    try:
        return subprocess.run([sys.executable, '-c', probe], capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def show_images(images: Mapping[str, np.ndarray], pause: bool) -> bool:
    """Show images (BGR uint8 [H, W, 3]) in windows of their titles; those larger than a usual screen are shown smaller.

    Args:
        images: {title: image}.
        pause: wait for a key, or until the windows are closed; otherwise go on at once.

    Returns:
        Whether Esc was pressed.

    Raises:
        UserError: there is no display.
    """
    if not has_display():
        raise UserError('no display to show images on; save them instead')
    titles = [title for title, image in images.items() if image.size]
    for title in titles:
        cv2.imshow(title, fit_screen(images[title]))
    while True:
        key = cv2.waitKey(50 if pause else 1)
        if key != -1 or not pause:
            return key & 0xFF == ESCAPE
        if all(cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) < 1 for title in titles):
            return False


def fit_screen(image: np.ndarray, largest: tuple[int, int] = (1600, 900)) -> np.ndarray:
    """Shrink an image [H, W, 3] that exceeds `largest` (width, height) until it fits."""
    factor = min(largest[0] / image.shape[1], largest[1] / image.shape[0])
    return image if factor >= 1 else cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
