"""KITTI's object metric, in this process: 2D AP, orientation similarity (AOS), bird's-eye AP and 3D AP.

Follows the official evaluator step by step (its oddities included, each said where it is kept), vectorised:
overlaps of all pairs of a data set at once, and all recall thresholds of an object at once.
"""

import itertools
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...utils.cli import track
from ...utils.errors import UserError
from ...utils.words import plural
from ..index import Findings
from ..kitti_files import (
    ALPHA,
    BOX,
    DIMS,
    LABEL_FIELDS,
    LOCATION,
    NO_ORIENTATION,
    OCCLUDED,
    RESULT_FIELDS,
    ROTATION,
    SCORE,
    TRUNCATED,
    LabelLines,
    field_name,
    read_frames,
    read_lines,
    write_labels,
    write_results,
)
from .metric import Metric, Results

logger = logging.getLogger(__name__)

CLASSES = ('car', 'pedestrian', 'cyclist')
OVERLAPS = ('2d', 'bev', '3d')  # each with an AP; AOS goes with 2d
METRICS = ('2d', 'aos', 'bev', '3d')
DIFFICULTIES = ('easy', 'moderate', 'hard')
NEIGHBOURS = {'car': 'van', 'pedestrian': 'person_sitting', 'cyclist': ''}  # neither right nor wrong

# Conditions for a ground-truth box to count, by difficulty.
MIN_HEIGHT = (40, 25, 25)  # pixels, at least
MAX_OCCLUSION = (0, 1, 2)
MAX_TRUNCATION = (0.15, 0.3, 0.5)

MIN_OVERLAP = {'car': 0.7, 'pedestrian': 0.5, 'cyclist': 0.5}
LOOSE_OVERLAP = {'car': 0.5, 'pedestrian': 0.25, 'cyclist': 0.25}  # of the published project, BEV and 3D only

FOUND_OVERLAP = 0.5  # with the 2D box of an object whose depth and orientation are compared

RECALL_STEPS = 40  # thresholds aim at recall 0, 1/40, ... 1; the 11-point averages take every fourth
SAME_LINE = 1e-9  # metres: edges nearer than this are one edge


class Kitti(Metric):
    """KITTI's official metric of 3D boxes, for KITTI's classes or others; results are KITTI's result files."""

    needs = ('alpha', 'box', 'dim', 'location', 'rotation_y', 'score')
    ignores_kinds = True
    full = 100.0

    def __init__(self, class_names: Sequence[str], *args: Any, **kwargs: Any):
        super().__init__(class_names, *args, **kwargs)
        self.classes = [field_name(name).lower() for name in class_names]
        first = 'car' if 'car' in self.classes else self.classes[0]
        self.names = metric_names(self.classes)
        self.main = f'{first}_3d_moderate_AP40'

    def is_headline(self, name: str) -> bool:
        """Return whether a name is that of a loss, or of a moderate AP over 40 recall points."""
        return name.endswith('_moderate_AP40') or not name.endswith(('_AP11', '_AP40'))

    def unit(self, name: str) -> str:
        """Return the unit of a metric of that name."""
        if name.endswith('_rotation_error'):
            return 'degrees'
        return '%' if name.endswith(('_AP11', '_AP40', '_depth_error')) else ''

    def save(self, results: Results, folder: Path) -> Path:
        """Write the result rows [n, columns] as KITTI's result files into `folder/results`; returns that folder."""
        order = np.concatenate([np.r_[self.columns[name]] for name in self.needs])  # [13], as in the files
        rows = {
            image_id: {cls: np.asarray(rows)[:, order] for cls, rows in by_class.items() if len(rows)}
            for image_id, by_class in results.items()
        }
        target = folder / 'results'
        count = write_results(target, rows, self.class_names)
        said = f'{plural(count, "detection")} in {plural(len(results), "image")}'
        logger.info('%s written to %s', said, target)
        return target

    def labels_beside(self, saved: Path) -> Path:
        """Return the folder of the label files that belong to a folder of result files."""
        return saved.parent / 'labels' if self.label_folder is None else Path(self.label_folder)

    def score(self, ground_truth: dict, saved: Path) -> dict[str, float]:
        """Score a folder of result files, and the errors in depth and rotation of what was found.

        Label files, where there are none, are written beside it.
        """
        labels = self.labels_beside(saved)
        if self.label_folder is None:
            write_labels(labels, ground_truth)
        metrics = evaluate_kitti(labels, saved, classes=self.classes)
        logger.info(format_kitti(metrics))
        errors = matched_errors(labels, saved, self.classes)
        logger.info(', '.join(f'{name} {value:.1f}' for name, value in errors.items()))
        return {**flatten_kitti(metrics), **errors}


@dataclass
class Frame:
    """One image: its truth, its detections, and for each kind of overlap the matrix [detections, truths]."""

    truth: LabelLines
    found: LabelLines
    overlaps: dict[str, np.ndarray]
    in_dont_care: np.ndarray  # [detections]: the largest share of the box inside one DontCare area


def evaluate_kitti(
    gt_dir: str | os.PathLike,
    result_dir: str | os.PathLike,
    loose: bool = False,
    classes: Sequence[str] = CLASSES,
    require_truth: bool = False,
) -> dict[str, dict[str, list[float]]]:
    """Score a folder of KITTI result files against a folder of KITTI label files.

    As in the official off-line evaluator, the frames that count are those that have a result file: a file
    without lines says "nothing found", an image without a file was not processed. (So a folder of all
    labels may be scored with the results of a split.)

    Args:
        gt_dir: folder of `NNNNNN.txt` labels, 15 fields a line (`label_2`).
        result_dir: folder of `NNNNNN.txt` results, the same fields and a score.
        loose: ask overlaps of .5 / .25 / .25 for bird's-eye and 3D as the published CenterNet did, instead
            of the official .7 / .5 / .5; 2D stays.
        classes: lower-case names, for data with other classes than KITTI's: these are asked what cyclists are.
        require_truth: raise an error, not a warning, where no label is of one of the classes.

    Returns:
        `{CLASS_METRIC: {'AP11': [easy, moderate, hard], 'AP40': [...]}}` in percent, for the classes (car,
        pedestrian, cyclist) and the metrics 2d, aos, bev, 3d. AOS is absent where a detection says that
        it has no orientation (alpha -10).

    Raises:
        UserError: a folder is missing, there is no result file, none of them has a label file, no label or no result
            can be read, or no result is of one of the classes.
    """
    frames = _load_frames(Path(gt_dir), Path(result_dir))
    _check_classes(frames, gt_dir, result_dir, classes, require_truth)
    with_aos = not any((frame.found.rows[:, ALPHA] == NO_ORIENTATION).any() for frame in frames)
    if not with_aos:
        logger.warning('kitti: detections without orientation (alpha -10), so AOS is left out')
    metrics = {}
    for name, kind in track(list(itertools.product(classes, OVERLAPS)), 'kitti'):
        overlaps = LOOSE_OVERLAP if loose and kind != '2d' else MIN_OVERLAP
        overlap = overlaps.get(name, overlaps['cyclist'])
        curves = np.array([_curves(frames, name, kind, overlap, level) for level in range(3)])  # [3, 2, 41]
        metrics[f'{name}_{kind}'] = _average(curves[:, 0])
        if kind == '2d' and with_aos:
            metrics[f'{name}_aos'] = _average(curves[:, 1])
    return metrics


def flatten_kitti(metrics: dict[str, dict[str, list[float]]]) -> dict[str, float]:
    """Give the metrics of `evaluate_kitti` flat names: `{'car_3d_moderate_AP40': 12.3, ...}`."""
    return {
        f'{name}_{level}_{points}': value
        for name, by_points in metrics.items()
        for points, values in by_points.items()
        for level, value in zip(DIFFICULTIES, values, strict=True)
    }


def metric_names(classes: Sequence[str]) -> tuple[str, ...]:
    """Return the names that `flatten_kitti` gives to the metrics of classes."""
    values = {'AP11': [0.0] * 3, 'AP40': [0.0] * 3}
    return tuple(flatten_kitti({f'{name}_{kind}': values for name in classes for kind in METRICS}))


def format_kitti(metrics: dict[str, dict[str, list[float]]]) -> str:
    """Format the metrics of `evaluate_kitti` as a table, a line for each class and kind."""
    columns = [f'{points} {level}' for points in ('AP11', 'AP40') for level in DIFFICULTIES]
    lines = [f'{"":16}' + ''.join(f'{column:>15}' for column in columns)]
    for name, by_points in metrics.items():
        values = by_points['AP11'] + by_points['AP40']
        lines.append(f'{name:16}' + ''.join(f'{value:15.2f}' for value in values))
    return '\n'.join(lines)


def matched_errors(
    gt_dir: str | os.PathLike, result_dir: str | os.PathLike, classes: Sequence[str] = CLASSES
) -> dict[str, float]:
    """Measure how far depth and orientation are off on objects that were found, whatever their score.

    Returns:
        For each class with a found object, medians: `CLASS_depth_error`, in percent of the true depth, and
        `CLASS_rotation_error`, in degrees (0 to 180).
    """
    medians: dict[str, float] = {}
    for name, (truth, found) in found_objects(gt_dir, result_dir, classes).items():
        if len(truth):
            medians[f'{name}_depth_error'] = float(np.median(depth_errors(truth, found)))
            medians[f'{name}_rotation_error'] = float(np.median(rotation_errors(truth, found)))
    return medians


def depth_errors(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return how far the depths of rows [n, 15] are off those of others [n, 15], in percent of the true depth, [n]."""
    depths = truth[:, LOCATION][:, 2]
    return 100 * np.abs(found[:, LOCATION][:, 2] - depths) / depths


def rotation_errors(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return the angles between the headings of rows [n, 15] and of others [n, 15], in degrees from 0 to 180, [n]."""
    turns = np.mod(found[:, ROTATION] - truth[:, ROTATION] + np.pi, 2 * np.pi) - np.pi
    return np.abs(np.degrees(turns))


def found_objects(
    gt_dir: str | os.PathLike, result_dir: str | os.PathLike, classes: Sequence[str] = CLASSES
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Pair the objects that were found, whatever the score, with their detections.

    An object is found when a detection of its class overlaps its 2D box by `FOUND_OVERLAP` or more; the best
    scored one counts.

    Returns:
        For each class the rows of the labels and of the results, [n, 15] each, laid out as in kitti_files.py.
    """
    findings = Findings(str(result_dir))  # which `evaluate_kitti` reports
    pairs: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in classes}
    for path in sorted(Path(result_dir).glob('*.txt')):
        label = Path(gt_dir) / path.name
        if not label.is_file():
            continue
        truth, found = read_lines(label, LABEL_FIELDS, findings), read_lines(path, RESULT_FIELDS, findings)
        for name in classes:
            rows = found.rows[found.types == name]
            rows = rows[np.argsort(-rows[:, SCORE], kind='stable')]
            for true in truth.rows[(truth.types == name) & (truth.rows[:, LOCATION][:, 2] > 0)]:
                same = np.flatnonzero(_image_iou(rows[:, BOX], true[None, BOX]) >= FOUND_OVERLAP)
                if len(same):
                    pairs[name].append((true, rows[same[0]]))
    return {name: _stacked(of_class) for name, of_class in pairs.items()}


def _stacked(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    truth, found = (
        np.array(rows).reshape(-1, LABEL_FIELDS) for rows in (zip(*pairs, strict=True) if pairs else ((), ()))
    )
    return truth, found


# ---------------------------------------------------------------------------------------------- files


def _load_frames(gt_dir: Path, result_dir: Path) -> list[Frame]:
    for folder in (gt_dir, result_dir):
        if not folder.is_dir():
            raise UserError(f"expected a folder of KITTI .txt files; there is no folder '{folder}'")
    results = sorted(result_dir.glob('*.txt'))
    if not results:
        raise UserError(f"no result files (NNNNNN.txt) in '{result_dir}'")
    findings, labelled = Findings(str(result_dir)), []
    for path in results:
        if (gt_dir / path.name).is_file():
            labelled.append(path)
        else:
            findings.add('result files left out, without a label file', path.name)
    if not labelled:
        raise UserError(f"no result file of '{result_dir}' has a label file of the same name in '{gt_dir}'")
    findings.report()
    names = [path.name for path in labelled]
    truths, found = read_frames(gt_dir, names, LABEL_FIELDS), read_frames(result_dir, names, RESULT_FIELDS)
    unseen = sum(1 for _ in gt_dir.glob('*.txt')) - len(labelled)
    if unseen:
        logger.info('kitti: %d frames; %d label files have no result file and do not count', len(labelled), unseen)
    return _with_overlaps(list(zip(truths, found, strict=True)))


def _check_classes(
    frames: list[Frame],
    gt_dir: str | os.PathLike,
    result_dir: str | os.PathLike,
    classes: Sequence[str],
    require_truth: bool,
) -> None:
    """Refuse results of other classes than those that are scored; refuse labels of others too, or warn of them."""
    found, labelled = (
        {str(name) for lines in of_frames for name in lines.types}
        for of_frames in ([frame.found for frame in frames], [frame.truth for frame in frames])
    )
    expected = ', '.join(classes)
    if found and not found & set(classes):
        raise UserError(f"no result in '{result_dir}' is of a class that is scored ({expected}): found {_few(found)}")
    if not labelled & set(classes):
        message = f"no label in '{gt_dir}' is of a class that is scored ({expected}): found {_few(labelled)}"
        if require_truth:
            raise UserError(message)
        logger.warning('kitti: %s', message)


def _few(names: set[str]) -> str:
    """List up to five names in the order of the alphabet."""
    return ', '.join(sorted(names)[:5]) + (', ...' if len(names) > 5 else '') if names else 'nothing'


# ------------------------------------------------------------------------------------------- overlaps


def _with_overlaps(pairs: list[tuple[LabelLines, LabelLines]]) -> list[Frame]:
    """Compute the overlaps of every detection with every truth of its frame; the ground areas in one go."""
    sizes = [(len(found.rows), len(truth.rows)) for truth, found in pairs]
    found_rows = [np.repeat(found.rows, len(truth.rows), axis=0) for truth, found in pairs]
    truth_rows = [np.tile(truth.rows, (len(found.rows), 1)) for truth, found in pairs]
    a, b = np.concatenate(found_rows), np.concatenate(truth_rows)  # [P, 15] each, P pairs
    overlaps = {'2d': _image_iou(a[:, BOX], b[:, BOX])} | _ground_iou(a, b)
    ends = np.cumsum([num_found * num_truth for num_found, num_truth in sizes])[:-1]
    split = {metric: np.split(values, ends) for metric, values in overlaps.items()}
    frames = []
    for i, (truth, found) in enumerate(pairs):
        matrices = {metric: parts[i].reshape(sizes[i]) for metric, parts in split.items()}
        areas = truth.rows[truth.types == 'dontcare']
        frames.append(Frame(truth, found, matrices, _share_inside(found.rows[:, BOX], areas[:, BOX])))
    return frames


def _intersection(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the intersection areas of boxes [..., 4] in pixels."""
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])  # [..., 2]
    return sides.clip(0).prod(-1)


def _area(box: np.ndarray) -> np.ndarray:
    return (box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1])


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide part [...] by whole [...]; 0 where nothing is shared."""
    return np.divide(part, whole, out=np.zeros_like(part), where=part > 0)


def _image_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    shared = _intersection(a, b)
    return _ratio(shared, _area(a) + _area(b) - shared)


def _share_inside(boxes: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """Return the largest share of each box [N, 4] that lies in one of the areas [A, 4]: [N]."""
    shared = _intersection(boxes[:, None], areas[None])  # [N, A]
    return _ratio(shared, np.broadcast_to(_area(boxes)[:, None], shared.shape)).max(1, initial=0)


def _ground_iou(a: np.ndarray, b: np.ndarray) -> dict[str, np.ndarray]:
    """Return the bird's-eye and 3D IoU of P pairs of rows [P, 15]: {'bev': [P], '3d': [P]}."""
    shared = np.zeros(len(a))
    centre_distance = np.hypot(*(a[:, LOCATION] - b[:, LOCATION])[:, [0, 2]].T)
    reach = np.hypot(a[:, 8], a[:, 9]) / 2 + np.hypot(b[:, 8], b[:, 9]) / 2
    solid = (a[:, DIMS] > 0).all(1) & (b[:, DIMS] > 0).all(1)  # DontCare areas have sizes of -1
    near = solid & (centre_distance < reach)
    shared[near] = _ground_intersection(a[near], b[near])
    ground_a, ground_b = a[:, 8] * a[:, 9], b[:, 8] * b[:, 9]
    bottom = np.minimum(a[:, 11], b[:, 11])  # y points down
    top = np.maximum(a[:, 11] - a[:, 7], b[:, 11] - b[:, 7])
    volume = shared * (bottom - top).clip(0)
    return {
        'bev': _ratio(shared, ground_a + ground_b - shared),
        '3d': _ratio(volume, ground_a * a[:, 7] + ground_b * b[:, 7] - volume),
    }


def _ground_intersection(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Compute the areas in which the rotated ground rectangles of P pairs of rows [P, 15] overlap: [P].

    Green's theorem: the outline of the intersection is what of a's edges lies in b, and what of b's edges
    lies in a. An edge that both share must be counted once: as a's, hence the two signs of `SAME_LINE`.
    """
    origin = b[:, LOCATION][:, [0, 2]]  # near the pair, for precision
    a_edges = _clip_edges(_corners(a, origin), b, origin, SAME_LINE)
    b_edges = _clip_edges(_corners(b, origin), a, origin, -SAME_LINE)
    return np.maximum((a_edges + b_edges) / 2, 0)


def _corners(rows: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Return the ground corners relative to `origin`, anti-clockwise in (x, z): [P, 4, 2]."""
    along = np.array([1, -1, -1, 1]) * rows[:, 9:10] / 2  # [P, 4]
    across = np.array([1, 1, -1, -1]) * rows[:, 8:9] / 2  # [P, 4]
    axis_l, axis_w = _axes(rows)
    centre = rows[:, LOCATION][:, [0, 2]] - origin
    return centre[:, None] + along[..., None] * axis_l[:, None] + across[..., None] * axis_w[:, None]


def _axes(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the unit vectors (x, z) along the length and the width of rectangles rotated about the downward y axis."""
    cos, sin = np.cos(rows[:, ROTATION]), np.sin(rows[:, ROTATION])
    return np.stack([cos, -sin], -1), np.stack([sin, cos], -1)  # [P, 2] each


def _clip_edges(corners: np.ndarray, rows: np.ndarray, origin: np.ndarray, slack: float) -> np.ndarray:
    """Sum of p0 x p1 over the parts p0-p1 of polygons' edges that lie in the rectangles: [P].

    The polygons are `corners` [P, 4, 2]; a rectangle is `slack` metres larger on each side than its row
    [P, 15] says.
    """
    start, end = corners, np.roll(corners, -1, axis=1)  # [P, 4, 2]
    centre = (rows[:, LOCATION][:, [0, 2]] - origin)[:, None]  # [P, 1, 2]
    enter, leave = np.zeros(start.shape[:2]), np.ones(start.shape[:2])  # [P, 4]: the part kept, in 0..1
    for axis, size in zip(_axes(rows), (rows[:, 9], rows[:, 8]), strict=True):
        half = (size / 2 + slack)[:, None]
        offset_start = ((start - centre) * axis[:, None]).sum(-1)  # [P, 4]
        offset_end = ((end - centre) * axis[:, None]).sum(-1)
        for sign in (1, -1):  # the rectangle's two sides across this axis
            depth_start, depth_end = half - sign * offset_start, half - sign * offset_end  # >= 0 inside
            change = depth_end - depth_start
            with np.errstate(divide='ignore', invalid='ignore'):
                crossing = -depth_start / change
            enter = np.where(change > 0, np.maximum(enter, crossing), enter)
            leave = np.where(change < 0, np.minimum(leave, crossing), leave)
            leave = np.where((change == 0) & (depth_start < 0), -1, leave)
    step = end - start
    p0, p1 = start + enter[..., None] * step, start + leave[..., None] * step  # [P, 4, 2]
    cross = p0[..., 0] * p1[..., 1] - p0[..., 1] * p1[..., 0]
    return np.where(leave > enter, cross, 0).sum(1)


# ------------------------------------------------------------------------------- matching and averages


class Choice(NamedTuple):
    """A truth and the n detections that overlap it enough (as indices into `Candidates`)."""

    counts: bool  # False: neither right nor wrong
    chosen: np.ndarray
    overlaps: np.ndarray
    similarity: np.ndarray  # of orientation, 0..1: (1 + cos of the difference of the alphas) / 2


@dataclass
class Candidates:
    """The truths (in file order) and the D detections of one frame that take part in one curve."""

    choices: list[Choice]
    num_counting: int
    scores: np.ndarray
    small: np.ndarray  # neither right nor wrong
    in_dont_care: np.ndarray


def _candidates(frame: Frame, name: str, metric: str, min_overlap: float, level: int) -> Candidates:
    truth, found = frame.truth, frame.found
    heights = truth.rows[:, BOX][:, 3] - truth.rows[:, BOX][:, 1]
    is_class = truth.types == name
    counts = is_class & ~(
        (truth.rows[:, OCCLUDED] > MAX_OCCLUSION[level])
        | (truth.rows[:, TRUNCATED] > MAX_TRUNCATION[level])
        | (heights < MIN_HEIGHT[level])
    )
    # [keep] the official evaluator looks at a detection's height before its class: small ones of any class
    # may take an object of this one.
    small = np.abs(found.rows[:, BOX][:, 3] - found.rows[:, BOX][:, 1]) < MIN_HEIGHT[level]
    takes_part = np.flatnonzero(small | (found.types == name))
    enough = frame.overlaps[metric] > min_overlap
    choices = []
    for i in np.flatnonzero(is_class | (truth.types == NEIGHBOURS.get(name, ''))):
        chosen = np.flatnonzero(enough[takes_part, i])
        if len(chosen):
            rows = takes_part[chosen]
            similarity = (1 + np.cos(truth.rows[i, ALPHA] - found.rows[rows, ALPHA])) / 2
            choices.append(Choice(bool(counts[i]), chosen, frame.overlaps[metric][rows, i], similarity))
    # DontCare areas are drawn in the image only
    in_dont_care = (frame.in_dont_care > min_overlap) & (metric == '2d')
    return Candidates(
        choices, int(counts.sum()), found.rows[takes_part, SCORE], small[takes_part], in_dont_care[takes_part]
    )


def _curves(
    frames: list[Frame], name: str, metric: str, min_overlap: float, level: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the precision and orientation similarity of one class, metric and difficulty at 41 recalls: [41] each."""
    candidates = [_candidates(frame, name, metric, min_overlap, level) for frame in frames]
    scores = np.concatenate([_scores_by_confidence(each) for each in candidates])
    thresholds = _recall_thresholds(scores, sum(each.num_counting for each in candidates))  # [T]
    right, wrong, similarity = np.sum([_count(each, thresholds) for each in candidates], axis=0)  # [T] each
    curves = np.zeros((2, RECALL_STEPS + 1))
    curves[:, : len(thresholds)] = np.stack([right, similarity]) / np.maximum(right + wrong, 1)
    # at each recall the best that holds there or beyond
    precision, aos = np.maximum.accumulate(curves[:, ::-1], axis=1)[:, ::-1]
    return precision, aos


def _scores_by_confidence(candidates: Candidates) -> np.ndarray:
    """Return the scores of the true positives when each object takes the most confident of its detections."""
    taken = np.zeros(len(candidates.scores), bool)
    scores = []
    for choice in candidates.choices:
        free = choice.chosen[~taken[choice.chosen]]
        if not len(free):
            continue
        best = free[np.argmax(candidates.scores[free])]
        taken[best] = True
        if choice.counts and not candidates.small[best]:
            scores.append(candidates.scores[best])
    return np.array(scores)


def _recall_thresholds(scores: np.ndarray, num_truth: int) -> np.ndarray:
    """Return the true positives' scores at which recall comes nearest to 0, 1/40, ... 1: [T <= 41]."""
    scores = np.sort(scores)[::-1]
    thresholds, aim = [], 0.0
    for i, score in enumerate(scores):
        recall, is_last = (i + 1) / num_truth, i == len(scores) - 1
        next_recall = recall if is_last else (i + 2) / num_truth
        if next_recall - aim < aim - recall and not is_last:
            continue  # the next one is nearer
        thresholds.append(score)
        aim += 1 / RECALL_STEPS
    return np.array(thresholds)


def _count(candidates: Candidates, thresholds: np.ndarray) -> np.ndarray:
    """Count a frame's true and false positives and sum the orientation similarity, at T thresholds: [3, T].

    Each object, in file order, takes the detection that overlaps it most among those that are free and over
    the threshold; a small one only when there is no other.
    """
    num_thresholds = len(thresholds)
    rows = np.arange(num_thresholds)
    free = candidates.scores >= thresholds[:, None]  # [T, D]
    right, similarity = np.zeros(num_thresholds), np.zeros(num_thresholds)
    for counts, chosen, overlaps, likeness in candidates.choices:
        small = candidates.small[chosen]  # [n]
        # overlaps are in 0..1; among small ones the first in the file is taken, hence equal ranks below 0
        rank = np.where(free[:, chosen], np.where(small, -1.0, overlaps), -2.0)  # [T, n]
        best = rank.argmax(1)  # [T]
        matched = rank[rows, best] > -2
        free[rows[matched], chosen[best[matched]]] = False
        if counts:
            hit = matched & ~small[best]
            right += hit
            similarity += hit * likeness[best]
    wrong = (free & ~candidates.small & ~candidates.in_dont_care).sum(1)
    return np.stack([right, wrong, similarity])


def _average(curves: np.ndarray) -> dict[str, list[float]]:
    """Compute the AP in percent over 11 and 40 recall points (the latter without recall 0) of curves [3, 41]."""
    return {
        'AP11': (curves[:, ::4].mean(1) * 100).tolist(),
        'AP40': (curves[:, 1:].mean(1) * 100).tolist(),
    }
