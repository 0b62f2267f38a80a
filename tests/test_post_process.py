"""Detections on the output map to detections in the image, a row at a time."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from lib.utils.ddd_utils import DEFAULT_CALIB, compute_box_3d, project_to_image
from lib.utils.post_process import (
    ctdet_post_process,
    ddd_post_process,
    exdet_post_process,
    multi_pose_post_process,
)

CENTERS, SCALES = [np.array([320.5, 213.0]), np.array([100.0, 50.0])], [640.0, np.array([256.0, 9.0])]
WIDTH, HEIGHT = 32, 24


def random_dets(columns, classes, rows=15, seed=0):
    rng = np.random.default_rng(seed)
    dets = rng.uniform(0, 30, (2, rows, columns)).astype(np.float32)
    dets[..., 4] = rng.uniform(0, 1, (2, rows))
    dets[..., -1] = rng.integers(0, classes, (2, rows))
    return dets


def slow_map(x, y, image):
    """One point of the output map in the image."""
    factor = np.ravel(SCALES[image])[0] / WIDTH
    return [(x - WIDTH / 2) * factor + CENTERS[image][0], (y - HEIGHT / 2) * factor + CENTERS[image][1]]


def slow_rows(dets, image, cls):
    """Rows of one class: every pair of coordinates mapped by itself, the score left alone."""
    rows = []
    for det in dets[image]:
        if det[-1] == cls:
            pairs = [*det[:4].reshape(-1, 2), *det[5:-1].reshape(-1, 2)]
            mapped = [slow_map(x, y, image) for x, y in pairs]
            rows.append([*mapped[0], *mapped[1], det[4], *np.ravel(mapped[2:])])
    return np.array(rows).reshape(-1, dets.shape[2] - 1)


@pytest.mark.parametrize(('function', 'columns'), [(ctdet_post_process, 6), (exdet_post_process, 14)])
def test_boxes_and_points_are_mapped_and_grouped(function, columns):
    """Each image with its own centre and scale, classes from 1, the order of the rows kept, inputs unchanged."""
    dets = random_dets(columns, classes=3)
    before = dets.copy()
    results = function(dets, CENTERS, SCALES, HEIGHT, WIDTH, 4)
    for image, result in enumerate(results):
        assert list(result) == [1, 2, 3, 4]
        for cls, rows in result.items():
            assert rows.dtype == np.float32
            np.testing.assert_allclose(rows, slow_rows(dets, image, cls - 1), rtol=1e-5, atol=1e-3)
        assert result[4].shape == (0, columns - 1)
    np.testing.assert_array_equal(dets, before)


@pytest.mark.parametrize('joints', [1, 5, 17])
def test_people_of_any_number_of_joints(joints):
    """Box and J joints are mapped; all rows are of class 1, whatever their last column says."""
    dets = random_dets(6 + 2 * joints, classes=1)
    of_classes = np.concatenate([dets[..., :-1], dets[..., -1:] + np.arange(15)[:, None] % 3], 2)
    results = multi_pose_post_process(of_classes, CENTERS, SCALES, HEIGHT, WIDTH)
    for image, result in enumerate(results):
        assert list(result) == [1]
        assert result[1].shape == (15, 5 + 2 * joints)
        np.testing.assert_allclose(result[1], slow_rows(dets, image, 0), rtol=1e-5, atol=1e-3)


def test_no_detections_at_all():
    """K = 0 gives empty rows of the right width."""
    assert ctdet_post_process(np.zeros((1, 0, 6)), [(1, 1)], [4], 8, 8, 2)[0][2].shape == (0, 5)
    assert multi_pose_post_process(np.zeros((1, 0, 40)), [(1, 1)], [4], 8, 8)[0][1].shape == (0, 39)
    opt = SimpleNamespace(output_w=8, output_h=8, num_classes=3)
    for columns in (16, 18):
        rows = ddd_post_process(np.zeros((1, 0, columns)), [(1, 1)], [4], [DEFAULT_CALIB], opt)[0][3]
        assert rows.shape == (0, 13)


def slow_ddd_row(det, image, P):
    """Location, angle and 2D box of one object, step by step."""
    (u, v), score, rot, depth, (h, w, length) = slow_map(*det[:2], image), det[2], det[3:11], det[11], det[12:15]
    sin, cos, middle = (*rot[2:4], -math.pi / 2) if rot[1] > rot[5] else (*rot[6:8], math.pi / 2)
    alpha = math.atan2(sin, cos) + middle
    z = depth - P[2, 3]
    x = (u * depth - P[0, 3] - P[0, 2] * z) / P[0, 0]
    y = (v * depth - P[1, 3] - P[1, 2] * z) / P[1, 1] + h / 2
    turn = alpha + math.atan2(u - P[0, 2], P[0, 0])
    turn -= 2 * math.pi * (turn > math.pi) - 2 * math.pi * (turn < -math.pi)
    if len(det) > 16:
        half = det[15:17] * np.ravel(SCALES[image])[0] / WIDTH / 2
        box = [u - half[0], v - half[1], u + half[0], v + half[1]]
    else:
        corners = project_to_image(compute_box_3d((h, w, length), (x, y, z), turn), P)
        box = [*corners.min(0), *corners.max(0)]
    return [alpha, *box, h, w, length, x, y, z, turn, score]


@pytest.mark.parametrize('columns', [16, 18])
def test_ddd_rows_are_the_slow_ones(columns):
    """Each image with its own camera; the size is scaled and not shifted; nothing is thresholded."""
    rng = np.random.default_rng(2)
    dets = random_dets(columns, classes=3, seed=1)
    dets[..., 2], dets[..., 3:11], dets[..., 12:15] = 0.01, rng.normal(size=(2, 15, 8)), 2
    dets[..., 11] += 5
    calibs = [DEFAULT_CALIB, DEFAULT_CALIB * np.float32([[1.3], [1.2], [1]])]
    opt = SimpleNamespace(output_w=WIDTH, output_h=HEIGHT, num_classes=3)
    results = ddd_post_process(dets, CENTERS, SCALES, calibs, opt)
    for image, result in enumerate(results):
        assert list(result) == [1, 2, 3]
        for cls, rows in result.items():
            want = [slow_ddd_row(det, image, calibs[image]) for det in dets[image] if det[-1] == cls - 1]
            assert rows.dtype == np.float32
            np.testing.assert_allclose(rows, want, rtol=1e-3, atol=1e-2)
