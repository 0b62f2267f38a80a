"""Pages as headless Chromium shows them (Debian's package `chromium`)."""

import shutil
import subprocess

import cv2
import numpy as np
import pytest

CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason='no Chromium to open the page with: apt-get install chromium'
)
PLOT_HEIGHT = 600  # pixels


def assert_page_is_shown(page, folder):
    """Letters on a light ground at the top of a page, and no plot of it without axes and coloured ink.

    Args:
        page: the file.
        folder: where Chromium writes.

    Returns:
        The number of plots.
    """
    top = screenshot(page, folder, 900)
    assert 0.002 < (top.min(2) < 100).mean() < 0.5
    text = page.read_text()
    count = text.count('<figure class="plot">')
    only_plots = f"""<style>body {{ padding: 0; margin: 0 }} body > * {{ display: none }}
        body > .plot {{ display: block; height: {PLOT_HEIGHT}px; overflow: hidden; margin: 0 }}</style></head>"""
    (folder / 'plots.html').write_text(text.replace('</head>', only_plots, 1))
    pixels = screenshot(folder / 'plots.html', folder, count * PLOT_HEIGHT).astype(int)
    for number in range(count):
        plot = pixels[number * PLOT_HEIGHT : (number + 1) * PLOT_HEIGHT]
        assert (np.ptp(plot, axis=2) > 40).sum() > 150, f'plot {number} has no coloured ink'
        assert (plot.max(2) < 120).sum() > 300, f'plot {number} has no axes'
    return count


def screenshot(page, folder, height):
    """The page as Chromium shows it, 1200 pixels wide: BGR uint8 [H, W, 3]."""
    target = folder / 'shot.png'
    target.unlink(missing_ok=True)
    flags = ['--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars', f'--window-size=1200,{height}']
    flags += [f'--user-data-dir={folder / "profile"}', f'--screenshot={target}']
    done = subprocess.run([CHROMIUM, *flags, page.as_uri()], capture_output=True, text=True, timeout=120)
    assert target.is_file(), done.stderr[-500:]
    return cv2.imread(str(target))
