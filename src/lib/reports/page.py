"""A report as one HTML file, which opens from disk without the network: sections of text, tables, plots and images.

    page = Page('mine', 'ctdet, 40 images')
    page.section('Sizes', 'The longer sides of the boxes.')
    plot, axes = new_plot()
    axes.hist(sides)
    page.plot(plot, 'sides in pixels')
    page.table(['class', 'objects'], [[name, count] for name, count in counts.items()])
    page.images([(image, 'street.jpg')])
    page.write('report.html')

All texts may be a user's: they are escaped. Plots are matplotlib figures made without `pyplot`, whose state is shared.
"""

import base64
import html
import io
import os
import re
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import cv2
import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..utils.files import atomic_path

Cell = str | int | float | None

IMAGE_SIDE = 640  # pixels: larger images are shrunk to it
JPEG_QUALITY = 85
LONGEST_PLOT_TEXT = 32  # characters of a name that a plot shows
# Colours that people who cannot tell red from green distinguish (Okabe and Ito).
COLORS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#7f7f7f', '#8c5a2b')
PLOT_STYLE = {
    'svg.fonttype': 'none',  # the browser writes the texts: it has the letters of all languages
    'font.size': 9,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.titlesize': 10,
    'axes.grid': True,
    'axes.axisbelow': True,
    'grid.alpha': 0.25,
    'grid.linewidth': 0.6,
}

STYLE = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1c2024; --soft: #626a73; --line: #d9dde2; --stripe: #f5f7f9;
        --mark: #0b62b0; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #16191d; --ink: #e4e7ea; --soft: #9aa3ad; --line: #363c44; --stripe: #1e2228; --mark: #74b3f2; }
  .plot svg { filter: invert(0.9) hue-rotate(180deg); }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem; background: var(--ground); color: var(--ink);
       font: 15px/1.5 system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; padding-top: .75rem; border-top: 1px solid var(--line); }
p { max-width: 52rem; margin: .5rem 0; white-space: pre-line; }
.subtitle, figcaption, caption { color: var(--soft); }
nav { margin: 1rem 0; } nav a { margin-right: 1rem; } a { color: var(--mark); }
figure { margin: 0; } figcaption, caption { font-size: .85rem; text-align: left; }
.plot { display: inline-block; vertical-align: top; max-width: 100%; margin: .75rem 1.5rem .75rem 0; }
.plot svg { display: block; max-width: 100%; height: auto; }
.images { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); gap: 1rem;
          margin: 1rem 0; }
.wide { grid-template-columns: repeat(auto-fill, minmax(min(32rem, 100%), 1fr)); }
.images img { display: block; max-width: 100%; height: auto; }
.table { overflow: auto; max-height: 36rem; margin: .75rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .75rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
td { overflow-wrap: normal; }
thead th { position: sticky; top: 0; background: var(--ground); white-space: nowrap; }
tbody tr:nth-child(even) { background: var(--stripe); }
.number { text-align: right; white-space: nowrap; }
"""
# Nothing is fetched, and no script runs, whatever names and captions hold.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


class Page:
    """A page that grows from its top to its end; `write` makes the file.

    Args:
        title: of the page.
        subtitle: a line under it.
    """

    def __init__(self, title: str, subtitle: str = ''):
        self.title, self.subtitle = title, subtitle
        self.sections: list[str] = []  # their titles
        self.parts: list[str] = []

    def section(self, title: str, text: str = '') -> None:
        """Begin a section, which the list at the top of the page leads to, with a paragraph if there is a text."""
        self.sections.append(title)
        self.parts.append(f'<h2 id="section-{len(self.sections)}">{escape(title)}</h2>')
        if text:
            self.text(text)

    def text(self, text: str) -> None:
        """Add a paragraph; its line breaks stay."""
        self.parts.append(f'<p>{escape(text)}</p>')

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Cell]], caption: str = '') -> None:
        """Add a table.

        Args:
            columns: their headings.
            rows: a cell a column: a text, a whole number, a float (shown with 3 decimals; not finite: none) or None.
            caption: a line over it.
        """
        body = [list(row) for row in rows]
        numeric = [not any(isinstance(row[i], str) for row in body) for i in range(len(columns))]
        kinds = [' class="number"' if number else '' for number in numeric]
        head = ''.join(f'<th{kind}>{escape(name)}</th>' for name, kind in zip(columns, kinds, strict=True))
        lines = [
            ''.join(f'<td{kind}>{escape(cell_text(cell))}</td>' for cell, kind in zip(row, kinds, strict=True))
            for row in body
        ]
        over = f'<caption>{escape(caption)}</caption>' if caption else ''
        filled = '\n'.join(f'<tr>{line}</tr>' for line in lines)
        self.parts.append(
            f'<div class="table"><table>{over}<thead><tr>{head}</tr></thead><tbody>\n{filled}\n</tbody></table></div>'
        )

    def plot(self, figure: Figure, caption: str = '') -> None:
        """Add a matplotlib figure (see `new_plot`) as inline SVG, with a line under it; plots stand side by side."""
        self.parts.append(f'<figure class="plot">{svg_of(figure)}{_caption(caption)}</figure>')

    def images(self, images: Iterable[tuple[np.ndarray, str]], side: int = IMAGE_SIDE, wide: bool = False) -> None:
        """Add images in a grid.

        Args:
            images: pairs of a BGR uint8 image [H, W, 3] (or grey [H, W]) and its caption.
            side: in pixels; an image whose longer side is larger is shrunk.
            wide: each takes half of the page's width, not a third or less.
        """
        cells = [
            f'<figure><img src="{jpeg_uri(image, side)}" alt="{escape(caption)}">{_caption(caption)}</figure>'
            for image, caption in images
        ]
        if cells:
            self.parts.append(f'<div class="images{" wide" if wide else ""}">{"".join(cells)}</div>')

    def html(self) -> str:
        """Return the whole page."""
        links = ''.join(
            f'<a href="#section-{number}">{escape(title)}</a>' for number, title in enumerate(self.sections, 1)
        )
        under = f'<p class="subtitle">{escape(self.subtitle)}</p>' if self.subtitle else ''
        body = '\n'.join(self.parts)
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<title>{escape(self.title)}</title>\n<style>{STYLE}</style></head>\n'
            f'<body><h1>{escape(self.title)}</h1>{under}<nav>{links}</nav>\n{body}\n</body></html>\n'
        )

    def write(self, path: str | os.PathLike) -> None:
        """Write the page, whole or not at all.

        Raises:
            UserError: the disk is full, the folder is read-only, or the like.
        """
        with atomic_path(path) as beside:
            beside.write_text(self.html(), encoding='utf-8')


def escape(text: object) -> str:
    """Return a text for HTML: markup is escaped, and what no page can hold (half characters) replaced."""
    return html.escape(str(text).encode('utf-8', 'replace').decode().replace('\0', '?'))


def cell_text(cell: Cell) -> str:
    """Return the text of a table's cell; a dash where there is no value."""
    if cell is None or (isinstance(cell, (float, np.floating)) and not np.isfinite(cell)):
        return '–'
    return f'{cell:.3f}' if isinstance(cell, (float, np.floating)) else str(cell)


def new_plot(width: float = 5.6, height: float = 3.6) -> tuple[Figure, Any]:
    """Return a matplotlib figure of that size in inches, with one pair of axes, in the style of the pages.

    On a dark screen dark and light change places: take colour maps of one hue, such as 'Blues'.
    """
    with matplotlib.rc_context(PLOT_STYLE):
        figure = Figure(figsize=(width, height), layout='constrained')
        axes = figure.add_subplot()
        axes.set_prop_cycle(color=COLORS)
    return figure, axes


def plot_text(text: object, longest: int = LONGEST_PLOT_TEXT) -> str:
    """Return a user's text as matplotlib draws it unchanged: no formula, one line, not left out of a legend, cut."""
    plain = ''.join(letter if letter.isprintable() else ' ' for letter in str(text).encode('utf-8', 'replace').decode())
    if len(plain) > longest:
        plain = plain[: longest - 1] + '…'
    return ('\u200b' if plain.startswith('_') else '') + plain.replace('$', r'\$')


def svg_of(figure: Figure) -> str:
    """Return a matplotlib figure as an `<svg>` element on a transparent ground; texts stay texts."""
    buffer = io.StringIO()
    with matplotlib.rc_context(PLOT_STYLE | {'svg.hashsalt': 'centernet'}), warnings.catch_warnings():
        warnings.filterwarnings('ignore', r'Glyph .* missing from')  # the browser has it
        figure.savefig(buffer, format='svg', transparent=True)
    svg = buffer.getvalue()
    svg = re.sub(r'<metadata>.*?</metadata>', '', svg[svg.index('<svg') :], count=1, flags=re.DOTALL)
    return re.sub(r'<g id="[^"]*">', '<g>', svg)  # an id is to be on a page once, and nothing refers to these


def pixels_of(figure: Figure) -> np.ndarray:
    """Return a matplotlib figure as an RGB uint8 image [H, W, 3] on a white ground."""
    canvas = FigureCanvasAgg(figure)
    with matplotlib.rc_context(PLOT_STYLE), warnings.catch_warnings():
        warnings.filterwarnings('ignore', r'Glyph .* missing from')
        canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def jpeg_uri(image: np.ndarray, side: int = IMAGE_SIDE) -> str:
    """Return a BGR or grey uint8 image [H, W, 3] or [H, W], shrunk to `side` pixels, as the URI of a JPEG."""
    longest = max(image.shape[:2])
    if longest > side:
        height, width = (max(1, round(length * side / longest)) for length in image.shape[:2])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return 'data:image/jpeg;base64,' + base64.b64encode(encoded.tobytes()).decode()


def _caption(text: str) -> str:
    return f'<figcaption>{escape(text)}</figcaption>' if text else ''
