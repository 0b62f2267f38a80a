"""The Cython NMS against forms written to be read."""

import numpy as np
import pytest

from kernel_references import slow_iou, slow_nms, slow_soft_nms
from lib.external.nms import nms, soft_nms, soft_nms_39, soft_nms_merge


def random_boxes(count, columns=5, seed=0):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 60, (count, 2))
    boxes = np.hstack([corners, corners + rng.uniform(1, 40, (count, 2)), rng.uniform(0, 1, (count, columns - 4))])
    return boxes.astype(np.float32)


@pytest.mark.parametrize('method', [0, 1, 2])
@pytest.mark.parametrize('count', [1, 2, 60])
def test_soft_nms_is_the_slow_one(method, count):
    """Each kind of decay, the order, and what the threshold drops."""
    boxes = random_boxes(count, seed=method)
    want = slow_soft_nms(boxes, method=method, threshold=0.1)
    keep = soft_nms(boxes, method=method, threshold=0.1)
    assert keep == list(range(len(want)))
    np.testing.assert_allclose(boxes[keep], want, rtol=1e-4)


def test_soft_nms_keeps_a_weak_box_that_nothing_overlaps():
    """The threshold acts on decayed scores only, as published."""
    boxes = np.array([[0, 0, 9, 9, 0.9], [50, 50, 59, 59, 0.0001]], np.float32)
    assert soft_nms(boxes, method=2) == [0, 1]


@pytest.mark.parametrize('columns', [5, 12, 39])
def test_soft_nms_39_moves_further_columns_with_their_box(columns):
    """Joints stay with their person, for any number of joints."""
    boxes = random_boxes(40, columns)
    tails = {tuple(row[:4]): row[5:].copy() for row in boxes}
    keep = soft_nms_39(boxes, Nt=0.5, method=2, threshold=0.2)
    assert 1 < len(keep) < 40
    for row in boxes[keep]:
        np.testing.assert_array_equal(row[5:], tails[tuple(row[:4])])


def test_soft_nms_merge_averages_corners():
    """Corners are the weighted mean of a box and those that it decays; the weights stay in their rows."""
    first, second = [0, 0, 9, 9, 0.9, 2, 3], [2, 4, 11, 13, 0.5, 5, 7]
    boxes = np.array([second, first], np.float32)  # the better box moves to row 0, where the weights are 5 and 7
    keep = soft_nms_merge(boxes, method=2, sigma=0.5, weight_exp=2)
    iou = slow_iou(first, second)
    share = (1 - np.exp(-(iou**2) / 0.5)) ** 2
    corner1 = (5 * np.array([0, 0]) + share * 2 * np.array([2, 4])) / (5 + share * 2)
    corner2 = (7 * np.array([9, 9]) + share * 3 * np.array([11, 13])) / (7 + share * 3)
    assert keep == [0, 1]
    np.testing.assert_allclose(boxes[0], [*corner1, *corner2, 0.9, 5, 7], rtol=1e-5)
    np.testing.assert_allclose(boxes[1], [*second[:4], 0.5 * np.exp(-(iou**2) / 0.5), 2, 3], rtol=1e-5)


def test_soft_nms_merge_without_weights_keeps_the_corners():
    """A box whose weights are all zero is not divided by zero."""
    boxes = np.array([[0, 0, 9, 9, 0.9, 0, 0]], np.float32)
    soft_nms_merge(boxes)
    np.testing.assert_array_equal(boxes[0, :4], [0, 0, 9, 9])


def test_nms_is_the_slow_one():
    """The same boxes in the same order as the greedy loop, the array untouched."""
    boxes = random_boxes(80, seed=3)
    before = boxes.copy()
    want = slow_nms(boxes, 0.3)
    assert nms(boxes, 0.3) == want
    assert 1 < len(want) < 80
    np.testing.assert_array_equal(boxes, before)


def test_nms_drops_at_the_threshold_itself():
    """A box whose overlap is exactly `thresh` goes."""
    boxes = np.array([[0, 0, 9, 9, 0.9], [0, 0, 9, 4, 0.5]], np.float32)
    assert nms(boxes, 0.5) == [0]
    assert nms(boxes, 0.51) == [0, 1]


@pytest.mark.parametrize('function', [soft_nms, soft_nms_39, soft_nms_merge, lambda boxes: nms(boxes, 0.5)])
def test_no_boxes(function):
    """A class without detections is no error."""
    assert function(np.zeros((0, 7), np.float32)) == []


def test_strided_boxes_change_in_place():
    """A column-major array, or a part of a wider one, ends as a contiguous one does."""
    wide = random_boxes(20, 8)
    plain = wide[:, :5].copy()
    columns = np.asfortranarray(plain)
    keep = soft_nms(plain, method=2)
    assert soft_nms(wide[:, :5], method=2) == soft_nms(columns, method=2) == keep
    np.testing.assert_array_equal(wide[keep, :5], plain[keep])
    np.testing.assert_array_equal(columns[keep], plain[keep])


@pytest.mark.parametrize(
    ('call', 'error', 'words'),
    [
        (lambda: soft_nms(np.zeros((2, 5))), TypeError, 'float32'),
        (lambda: nms([[0, 0, 1, 1, 1]], 0.5), TypeError, 'float32'),
        (lambda: soft_nms(np.zeros((2, 4), np.float32)), ValueError, r'\[N, 5 or more\], found \[2, 4\]'),
        (lambda: soft_nms_merge(np.zeros((2, 5), np.float32)), ValueError, r'\[N, 7 or more\], found \[2, 5\]'),
        (lambda: nms(np.zeros(5, np.float32), 0.5), ValueError, r'found \[5\]'),
        (lambda: soft_nms(np.zeros((2, 5), np.float32), method=3), ValueError, 'method'),
        (lambda: soft_nms(np.zeros((2, 5), np.float32), method=2, sigma=0), ValueError, 'sigma must be over 0'),
        (lambda: soft_nms(np.broadcast_to(np.zeros(5, np.float32), (2, 5))), ValueError, 'boxes must be writable'),
    ],
)
def test_wrong_arguments(call, error, words):
    """Arrays that the kernels cannot work on are refused with what was expected and found."""
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize('function', [soft_nms, soft_nms_39, soft_nms_merge])
def test_scores_that_are_no_numbers_come_last(function):
    """They suppress no real box, whatever their place."""
    boxes = random_boxes(50, 7)
    boxes[[0, 7, 8, 40], 4] = np.nan
    keep = function(boxes, threshold=0.0)
    scores = boxes[keep, 4]
    assert np.isnan(scores[-4:]).all() and not np.isnan(scores[:-4]).any()
