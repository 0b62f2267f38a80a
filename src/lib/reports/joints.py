"""How well each joint is placed, by OKS."""

from dataclasses import dataclass

import numpy as np

from ..datasets.evaluation.coco_eval import categories_with_keypoints, tolerances
from ..datasets.evaluation.matching import IOU
from .judged import Judged
from .page import COLORS, Page, new_plot, plot_text

GOOD = 0.5  # similarity of a joint that is about where it belongs


@dataclass
class JointScores:
    """The joints of n people who were found.

    Attributes:
        names: of the J joints.
        labelled: [n, J] bool; which have a true place.
        similarity: [n, J]; 1 for a joint at its true place, towards 0 far off; OKS is its mean over a person's joints.
        distance: [n, J]; from the true place, in pixels.
    """

    names: list[str]
    labelled: np.ndarray
    similarity: np.ndarray
    distance: np.ndarray


def add_joints(page: Page, judged: Judged) -> None:
    """Add OKS by joint, where the results have joints."""
    if 'keypoints' not in judged.detections.further:
        return
    page.section(
        'Joints',
        f'Of the people whose box is found (IoU {IOU} or more, whatever the score): how near each labelled joint is to '
        "its true place, by COCO's object keypoint similarity: 1 at that place, 0.61 where it is off by twice the "
        'standard deviation by which annotators differ.',
    )
    scores = joint_scores(judged)
    if not scores.labelled.any():
        page.text('Nobody with a labelled joint is found.')
        return
    rows: list[list[str | int | float | None]] = []
    for j, name in enumerate(scores.names):
        chosen = scores.labelled[:, j]
        near, far = scores.similarity[chosen, j], scores.distance[chosen, j]
        values = [float(near.mean()), float((near >= GOOD).mean()), float(np.median(far))] if len(near) else [None] * 3
        rows.append([name, int(chosen.sum()), *values])
    page.table(['joint', 'labelled', 'mean OKS', f'share of {GOOD} or more', 'median distance in pixels'], rows)
    known = [(plot_text(row[0], 20), row[2]) for row in rows if row[2] is not None][::-1]
    figure, axes = new_plot(4.8, 0.6 + 0.22 * len(known))
    axes.barh([name for name, _ in known], [value for _, value in known], color=COLORS[2], height=0.65)
    axes.set(xlabel='mean OKS', xlim=(0, 1))
    page.plot(figure)


def joint_scores(judged: Judged) -> JointScores:
    """Compare the joints of everybody who was found with their true places."""
    matched = judged.matched
    found = judged.detections.further['keypoints']
    count = found.shape[1] // 3
    right = np.flatnonzero(matched.right)
    categories = categories_with_keypoints(judged.ground_truth) or [{}]
    people = [
        (i, row['keypoints'])
        for i in right.tolist()
        if len((row := matched.truth.rows[matched.taken[i]]).get('keypoints') or ()) == 3 * count
    ]
    chosen = np.array([i for i, _ in people], np.int64)
    true = np.array([joints for _, joints in people], np.float64).reshape(-1, count, 3)  # [n, J, 3]
    places = found[matched.found.positions[chosen]].reshape(-1, count, 3)[..., :2]  # [n, J, 2]
    distance = np.linalg.norm(places - true[..., :2], axis=2)  # [n, J]
    areas = matched.truth.areas[matched.taken[chosen]] + np.spacing(1)  # [n]
    spread = 2 * tolerances(categories, count)  # [J]; COCO's k
    similarity = np.exp(-(distance**2) / (2 * areas[:, None] * spread**2))
    names = [str(name) for name in categories[0].get('keypoints') or range(1, count + 1)]
    return JointScores(names, true[..., 2] > 0, similarity, distance)
