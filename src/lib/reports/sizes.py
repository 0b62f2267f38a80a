"""AP by the size of objects."""

import numpy as np

from ..datasets.evaluation.matching import IOU, SIZES, Curve
from .curves import mean_precision_of
from .judged import Judged
from .page import COLORS, Page, new_plot

OFFICIAL = {'small': ('APs', 'ARs'), 'medium': ('APm', 'ARm'), 'large': ('APl', 'ARl')}  # of COCO's metric
RANGES = {'small': 'up to 32 x 32 pixels', 'medium': 'up to 96 x 96', 'large': 'beyond'}


def add_sizes(page: Page, judged: Judged) -> None:
    """Add AP of small, medium and large objects, of all classes and of each."""
    page.section('Sizes', "COCO's sizes, by the area of objects: " + ', '.join(f'{s} {r}' for s, r in RANGES.items()))
    curves = {size: judged.matched.curves_of_size(size) for size in SIZES}
    means = {size: mean_precision_of(of_size) for size, of_size in curves.items()}
    rows = [
        [size, sum(curve.objects for curve in curves[size]), means[size], *official(judged, size)] for size in SIZES
    ]
    page.table(['size', 'objects', f'AP at IoU {IOU}', 'AP', 'AR'], rows)
    known = {size: value for size, value in means.items() if value is not None}
    if not known:
        page.text('There is no object to find.')
        return
    figure, axes = new_plot(3.6, 2.8)
    bars = axes.bar(list(known), list(known.values()), color=COLORS[0], width=0.6)
    axes.bar_label(bars, [f'{value:.2f}' for value in known.values()])
    axes.set(ylabel=f'AP at IoU {IOU}', ylim=(0, 1.08))
    page.plot(figure)
    if len(judged.class_names) > 1:
        page.table(
            ['class', *(f'{size}: {what}' for size in SIZES for what in ('objects', 'AP'))],
            [
                [name, *(cell for size in SIZES for cell in cells(curves[size][cls]))]
                for cls, name in enumerate(judged.class_names)
            ],
            f'AP at IoU {IOU} of each class',
        )


def official(judged: Judged, size: str) -> list[float | None]:
    """Return AP and AR of a size as `metrics.json` has them; None where it has none."""
    values = [judged.metrics.get(name, -1.0) for name in OFFICIAL[size]]
    return [value if value >= 0 else None for value in values]


def cells(curve: Curve) -> list[int | float | None]:
    """Return the number of objects of a curve, and its AP."""
    value = curve.average_precision()
    return [curve.objects, None if np.isnan(value) else value]
