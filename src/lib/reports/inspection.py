"""The page about a dataset before training: its numbers, what the check found, and samples as the network sees them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from ..datasets.sample.base import Sample
from ..datasets.statistics import Statistics
from ..models.heatmaps import drawn_targets
from ..utils.debugger import Debugger, network_input_to_image
from ..utils.drawing import READABLE_SIDE, draw_detections
from ..utils.errors import UserError
from ..utils.image import read_image
from .page import COLORS, Cell, Page, new_plot, plot_text
from .truth import true_detections

MARK = 'inspect_data'  # begins the line under the title: an earlier page of this kind may be replaced
MOST_BARS = 40  # classes or joints that a plot shows
MOST_NAMES = 20  # of images without objects
PLACES = 24  # columns and rows of the map of centres
SIZE_EDGES = 2.0 ** np.arange(0, 11.5, 0.5)  # pixels of the network's input
RATIO_EDGES = 2.0 ** np.arange(-4, 4.25, 0.25)  # width / height
COCO_SIZES = {'small': (0, 32), 'medium': (32, 96), 'large': (96, np.inf)}  # pixels: roots of areas
LITTLE = 0.02  # share of objects from which on an advice is given


def inspection_page(
    title: str, train: Sample, splits: Sequence[Statistics], findings: Sequence[str], samples: int
) -> Page:
    """Make the page.

    Args:
        title: names the dataset.
        train: the training split, of which samples are shown.
        splits: numbers of 'train' and perhaps of 'val'.
        findings: lines of the check.
        samples: images that are shown as they are, and as the network will see them.
    """
    opt = train.opt
    under = f'{MARK}: {train.task}, network input {opt.input_w} x {opt.input_h}, output map 1/{opt.down_ratio}'
    page = Page(title, under)
    add_overview(page, splits, findings)
    add_classes(page, splits)
    if any(map(len, splits)):
        add_sizes(page, splits)
        add_counts(page, splits)
        add_places(page, splits)
        add_map(page, splits)
        add_joints(page, train, splits)
        add_depths(page, splits)
    shown = chosen_images(train, samples)
    add_images(page, train, shown)
    add_augmented(page, train, shown)
    return page


# ------------------------------------------------------------------------------------------------------- numbers


def add_overview(page: Page, splits: Sequence[Statistics], findings: Sequence[str]) -> None:
    """Add the numbers of images and objects, and what the check found."""
    page.section('Overview')
    rows: list[list[Cell]] = []
    for split in splits:
        counts = split.objects_of_images()
        empty = int((counts == 0).sum())
        numbers: list[Cell] = [len(counts), len(split), of(empty, len(counts)), float(counts.mean()), int(counts.max())]
        rows.append([split.split, *numbers, split.left_out, image_sizes_said(split)])
    columns = ['split', 'images', 'objects', 'images without objects', 'objects an image', 'most', 'objects left out']
    page.table([*columns, 'image sizes'], rows)
    page.section('Findings', 'What the check of the data found; all of it is survived.')
    if findings:
        page.table(['finding'], [[line] for line in findings])
    else:
        page.text('Nothing is wrong.')
    for split in splits:
        names = split.empty_images()
        if names:
            more = f', ... {len(names)} in all' if len(names) > MOST_NAMES else ''
            shown = ', '.join(names[:MOST_NAMES])
            page.text(f'{split.split} images without objects, learnt as background: {shown}{more}')


def of(part: int, whole: int) -> str:
    """Return a number with its share, such as '12 (3.4 %)'."""
    return f'{part} ({100 * part / whole:.1f} %)' if whole else '0'


def image_sizes_said(split: Statistics) -> str:
    """Return the size of the images, or the range of their sides."""
    low, high = split.image_sizes.min(0).tolist(), split.image_sizes.max(0).tolist()
    return f'{low[0]} x {low[1]}' if low == high else f'{low[0]} to {high[0]} x {low[1]} to {high[1]}'


def add_classes(page: Page, splits: Sequence[Statistics]) -> None:
    """Add objects and images of each class."""
    page.section('Classes')
    names = splits[0].class_names
    objects = [split.objects_of_classes() for split in splits]
    images = [split.images_of_classes() for split in splits]
    columns = [f'{split.split}: {what}' for split in splits for what in ('objects', 'images')]
    rows: list[list[Cell]] = [
        [name, *(int(numbers[cls]) for pair in zip(objects, images, strict=True) for numbers in pair)]
        for cls, name in enumerate(names)
    ]
    add_bars(page, names, {split.split: numbers for split, numbers in zip(splits, objects, strict=True)}, 'objects')
    page.table(['class', *columns], rows)
    missing = [name for cls, name in enumerate(names) if not objects[0][cls]]
    if missing:
        page.text(f'Without an object to learn from: {", ".join(missing[:MOST_NAMES])}')


def add_bars(page: Page, names: Sequence[str], series: dict[str, np.ndarray], what: str) -> None:
    """Add horizontal bars of numbers [C] by name, a colour a series, the largest first."""
    order = np.argsort(-sum(series.values()), kind='stable')[:MOST_BARS]
    figure, axes = new_plot(5.6, 1.2 + 0.22 * len(order) * len(series))
    height = 0.8 / len(series)
    for number, (label, values) in enumerate(series.items()):
        places = np.arange(len(order)) + (number - (len(series) - 1) / 2) * height
        bars = axes.barh(places, values[order], height, color=COLORS[number], label=label)
        axes.bar_label(bars, padding=2, fontsize=7)
    axes.set_yticks(np.arange(len(order)), [plot_text(names[i]) for i in order])
    axes.invert_yaxis()
    axes.margins(x=0.12, y=0.01)
    axes.set_xlabel(what)
    axes.grid(axis='y', visible=False)
    if len(series) > 1:
        axes.legend()
    page.plot(figure, f'the {MOST_BARS} most frequent' if len(names) > MOST_BARS else '')


def add_sizes(page: Page, splits: Sequence[Statistics]) -> None:
    """Add the sizes of objects at the network's input, and their aspect ratios."""
    page.section(
        'Sizes and shapes',
        "Sides are in pixels of the network's input, to which images are scaled. A cell of the output map is 4 pixels.",
    )
    roots = {split.split: np.sqrt(split.input_sizes().clip(0).prod(1)) for split in splits}
    add_histogram(page, roots, SIZE_EDGES, 'root of the area in pixels', mark_sizes)
    ratios = {split.split: aspect_ratios(split) for split in splits}
    add_histogram(page, ratios, RATIO_EDGES, 'width / height')
    rows: list[list[Cell]] = []
    for split in splits:
        if not len(split):
            continue
        width, height = np.median(split.sizes(), 0).tolist()
        sides = roots[split.split]
        parts = [of(int(((sides >= low) & (sides < high)).sum()), len(split)) for low, high in COCO_SIZES.values()]
        rows.append([split.split, f'{width:.1f} x {height:.1f}', float(np.median(sides)), *parts])
    columns = ['split', 'median size', 'median root of area']
    page.table([*columns, *(f'{name}, {said_range(*ends)}' for name, ends in COCO_SIZES.items())], rows)


def said_range(low: float, high: float) -> str:
    """Return a range of sides as text."""
    return f'from {low:.0f} pixels' if np.isinf(high) else f'under {high:.0f} pixels'


def aspect_ratios(split: Statistics) -> np.ndarray:
    """Return width / height of the objects, [n], in the image."""
    widths, heights = split.sizes().T
    return widths / np.maximum(heights, 1e-9)


def mark_sizes(axes: Any) -> None:
    """Mark a cell of the output map, and COCO's bounds of small and large, on the axes of a plot."""
    for place, name, side in ((4, 'a cell', 'center'), (32, 'small', 'right'), (96, 'large', 'left')):
        axes.axvline(place, color='#7f7f7f', linestyle='--', linewidth=0.8)
        axes.annotate(name, (place, 1), xycoords=('data', 'axes fraction'), ha=side, fontsize=7, color='#626a73')


def add_histogram(
    page: Page,
    series: dict[str, np.ndarray],
    edges: np.ndarray,
    label: str,
    finish: Callable[[Any], None] | None = None,
    log: bool = True,
) -> None:
    """Add a histogram of numbers [n] by series; those beyond the ends count at the ends.

    Args:
        series: the numbers of each split.
        edges: of the bins, [m].
        label: of the axis.
        finish: draws on the axes what else belongs there.
        log: the axis is logarithmic, with base 2.
    """
    figure, axes = new_plot()
    inside = [np.clip(values, edges[0], np.nextafter(edges[-1], 0)) for values in series.values()]
    axes.hist(inside, edges, label=list(series), color=COLORS[: len(series)])
    if log:
        axes.set_xscale('log', base=2)
        axes.xaxis.set_major_formatter('{x:g}')
    axes.set(xlabel=label, ylabel='objects')
    axes.yaxis.get_major_locator().set_params(integer=True)
    if len(series) > 1:
        axes.legend()
    if finish is not None:
        finish(axes)
    page.plot(figure)


def add_counts(page: Page, splits: Sequence[Statistics]) -> None:
    """Add how many objects an image has."""
    page.section('Objects an image')
    counts = {split.split: split.objects_of_images() for split in splits}
    most = max(int(values.max()) for values in counts.values())
    step = max(1, -(-most // 40))
    edges = np.arange(0, most + step + 1, step) - 0.5
    figure, axes = new_plot()
    axes.hist(list(counts.values()), edges, label=list(counts), color=COLORS[: len(counts)])
    axes.set(xlabel='objects an image', ylabel='images')
    axes.locator_params(integer=True)
    if len(counts) > 1:
        axes.legend()
    page.plot(figure)


def add_places(page: Page, splits: Sequence[Statistics]) -> None:
    """Add a map of where in the images the centres of objects lie."""
    page.section('Places', 'Where the centres of objects lie, in parts of the image.')
    centers = np.concatenate([split.centers() for split in splits])  # [n, 2]
    counts, _, _ = np.histogram2d(centers[:, 1], centers[:, 0], PLACES, [[0, 1], [0, 1]])
    figure, axes = new_plot(4.4, 3.6)
    drawn = axes.imshow(counts, cmap='Blues', extent=(0, 1, 1, 0), vmin=0)
    axes.grid(visible=False)
    axes.set(xlabel='x / width', ylabel='y / height')
    figure.colorbar(drawn, label='objects', ticks=MaxNLocator(integer=True))
    page.plot(figure)


def add_map(page: Page, splits: Sequence[Statistics]) -> None:
    """Add what the output map cannot hold: objects that share a cell, and those smaller than one."""
    page.section(
        'On the output map',
        'The network finds an object as a peak at the cell of its centre, at 1/4 of the input size. Of objects of one '
        'class with the same cell only one can be found; of different classes they share the size and the offset that '
        'are learnt there. Objects narrower or flatter than a cell vanish.',
    )
    rows: list[list[Cell]] = []
    for split in splits:
        numbers = (split.sharing(True).sum(), split.sharing(False).sum(), split.vanishing().sum())
        rows.append([split.split, len(split), *(of(int(number), len(split)) for number in numbers)])
    columns = ['split', 'objects', 'share a cell with one of their class', 'share a cell with any', 'vanish']
    page.table(columns, rows)
    first = splits[0]
    lost = (first.vanishing() | first.sharing(True)).sum()
    if len(first) and lost > LITTLE * len(first):
        page.text(
            'Many of these cannot be learnt at this input size: a larger --input_res (or, in ctdet, --keep_res) keeps '
            'more of them apart, at the cost of time.'
        )


def add_joints(page: Page, train: Sample, splits: Sequence[Statistics]) -> None:
    """Add how often each joint is seen, hidden and missing."""
    states = [split.joint_states() for split in splits]
    if states[0] is None:
        return
    page.section('Joints', 'How often each joint is annotated, among objects that have any joint.')
    names = joint_names(train)
    total = np.sum([each for each in states if each is not None], 0)  # [J, 3]
    figure, axes = new_plot(5.6, 1.2 + 0.22 * len(names))
    start = np.zeros(len(names))
    for kind, (label, color) in enumerate((('seen', COLORS[0]), ('hidden', COLORS[5]), ('missing', COLORS[1]))):
        axes.barh(range(len(names)), total[:, kind], left=start, color=color, label=label)
        start += total[:, kind]
    axes.set_yticks(range(len(names)), [plot_text(name) for name in names])
    axes.invert_yaxis()
    axes.set_xlabel('objects')
    axes.grid(axis='y', visible=False)
    axes.legend(loc='upper center', bbox_to_anchor=(0.5, -0.12), ncols=3)
    page.plot(figure)
    rows: list[list[Cell]] = [
        [name, *(int(number) for number in total[j, :2]), of(int(total[j, 2]), int(total[j].sum()))]
        for j, name in enumerate(names)
    ]
    page.table(['joint', 'seen', 'hidden', 'missing'], rows)
    without = sum(split.without_joints() for split in splits)
    page.text(f'{of(without, sum(map(len, splits)))} objects have no joint at all.')


def joint_names(train: Sample) -> list[str]:
    """Return the names of the joints, numbered where the dataset does not know them."""
    names = train.source.joint_names
    return list(names) if names else [f'joint {number}' for number in range(1, (train.num_joints or 0) + 1)]


def add_depths(page: Page, splits: Sequence[Statistics]) -> None:
    """Add the depths of objects in 3D."""
    depths = {split.split: split.fields['depth'] for split in splits if 'depth' in split.fields}
    if not depths:
        return
    page.section('Depths', 'How far from the camera the objects are.')
    most = max(float(values.max(initial=1)) for values in depths.values())
    step = max(1.0, np.ceil(most / 40))
    add_histogram(page, depths, np.arange(0, most + step, step), 'metres', log=False)
    rows: list[list[Cell]] = [
        [split, len(values), *np.quantile(values, [0, 0.5, 1]).tolist()]
        for split, values in depths.items()
        if len(values)
    ]
    page.table(['split', 'objects', 'nearest', 'median', 'farthest'], rows)


# ------------------------------------------------------------------------------------------------------- samples


def chosen_images(dataset: Sample, samples: int) -> list[int]:
    """Choose images at even steps through those with objects, or through all where none has any."""
    filled = np.flatnonzero(dataset.index.counts() > 0)
    filled = filled if len(filled) else np.arange(len(dataset))
    return filled[np.unique(np.linspace(0, len(filled) - 1, min(samples, len(filled))).astype(int))].tolist()


def add_images(page: Page, dataset: Sample, images: Sequence[int]) -> None:
    """Add images with their annotations drawn on them."""
    page.section('Samples', 'Images of the training split with their annotations.')
    drawings = []
    for i in images:
        name = dataset.index.name(i)
        try:
            image = read_image(dataset.image_path(i), dataset.image_size(i), max_pixels=dataset.opt.max_pixels)
        except UserError as error:
            page.text(f'{name} is left out: {error}')
            continue
        objects = true_detections(dataset.index.objects(i), dataset.class_names)
        calib = dataset.image_meta(i).get('calib')
        drawn = draw_detections(image, objects, 0.0, dataset.opt.skeleton or (), calib, READABLE_SIDE)
        drawings.append((drawn, f'{name}: {len(objects)} object{"s" * (len(objects) != 1)}'))
    page.images(drawings)


def add_augmented(page: Page, dataset: Sample, images: Sequence[int]) -> None:
    """Add the same images as the network will see them in the first epoch, and the heatmaps that it will learn."""
    page.section(
        'As the network sees them',
        'The same images augmented by the options given, and beside them the heatmaps that are learnt: of classes, '
        'then of joints or of extreme points.',
    )
    if getattr(dataset.opt, 'aug_rot', 0) > 0:
        page.text('Of a rotated image the joints alone are learnt: the heatmap of its classes is full, without a loss.')
    page.images([(augmented_view(dataset, i), dataset.index.name(i)) for i in images], side=1280, wide=True)


def augmented_view(dataset: Sample, i: int) -> np.ndarray:
    """Draw what the network gets of image i in the first epoch, side by side with its heatmaps.

    Returns:
        BGR uint8 [H, W, 3].
    """
    at, rng, view, window = dataset.look(i)
    seen = network_input_to_image(dataset.input(rng, window), dataset.opt.mean, dataset.opt.std)
    objects = dataset.index.objects(at)
    targets, _ = dataset.targets(objects, view, at)
    debugger = Debugger.of(dataset.opt)
    boxes = view.boxes(objects.boxes) * dataset.opt.down_ratio  # [n, 4]
    there = objects.valid & (objects.classes >= 0) & (boxes[:, 2:] > boxes[:, :2]).all(1)
    there &= view.rot == 0  # boxes are not turned with the image
    rows = np.column_stack([boxes, np.ones(len(boxes)), objects.classes])[there]  # [m, 6]
    debugger.add_img(seen, 'seen')
    for row in rows:
        debugger.add_box(row[:4], int(row[5]), img_id='seen')
    out_w, out_h = view.output_size
    for name, maps, of_joints in heatmaps_of(drawn_targets(targets, dataset.opt.num_classes, (out_h, out_w))):
        debugger.add_heatmap(seen, maps, name, of_joints)
    panels = list(debugger.imgs.values())
    gap = np.full((seen.shape[0], 6, 3), 255, np.uint8)
    return np.hstack([piece for panel in panels for piece in (panel, gap)][:-1])


def heatmaps_of(targets: dict[str, np.ndarray]) -> list[tuple[str, np.ndarray, bool]]:
    """Return the heatmaps [c, h, w] among a sample's targets with their names, and whether they are of joints."""
    found = [(name, targets[name], name == 'hm_hp') for name in ('hm', 'hm_c', 'hm_hp') if name in targets]
    sides = [targets[f'hm_{side}'] for side in 'tlbr' if f'hm_{side}' in targets]
    return [*found, *([('hm_tlbr', np.max(sides, 0), False)] if sides else [])]
