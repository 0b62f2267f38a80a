"""Drawing detections: boxes, labels, joints, extreme points and 3D boxes land on the right pixels."""

import numpy as np
import pytest

from lib.utils import drawing
from lib.utils.ddd_utils import DEFAULT_CALIB
from lib.utils.detections import (
    describe_box,
    describe_box_3d,
    describe_extreme_points,
    describe_pose,
    detections_from_results,
)
from lib.utils.drawing.labels import fit_text
from lib.utils.drawing.shapes import octagon

NAN = float('nan')
CAR = {'class': 'car', 'class_id': 1, 'score': 0.9, 'dim': [1.5, 1.6, 4.0], 'location': [0, 1.6, 20], 'rotation_y': 0}


def gray(height, width):
    return np.full((height, width, 3), 90, np.uint8)


def changed(before, after):
    return (before != after).any(axis=2)  # [H, W]


def colored(image, color):
    return (image == np.array(color)).all(axis=2)  # [H, W]


def test_class_colors_are_distinct_and_stable():
    """80 classes have 80 colours, the first ones far apart, and more classes don't change them."""
    colors = drawing.class_colors(80)
    assert len(set(colors)) == 80
    assert colors[:20] == drawing.class_colors(20)
    near = [np.abs(np.subtract(a, b)).sum() for i, a in enumerate(colors[:8]) for b in colors[:i]]
    assert min(near) > 80
    assert drawing.class_colors(0) == []


def every_kind(width, height):
    """Detections of every task, some of them broken, about an image's size."""
    boxes = [
        [0.2 * width, 0.2 * height, 0.8 * width, 0.8 * height],
        [-50, -50, 2 * width, 2 * height],
        [width, height, 0, 0],
        [5, 5, 5, 5],
        [NAN, 0, 10, 10],
        [-1e30, -1e30, 1e30, 1e30],
        [float('inf'), 0, 10, 10],
    ]
    points = [[0.5 * width, 0.1 * height], [NAN, 3], [1e20, -1e20], [0.3 * width, 0.9 * height]]
    for number, box in enumerate(boxes):
        base = {'class': 'a very long name of a class' * number, 'class_id': number, 'score': 0.5, 'box': box}
        yield base
        yield {**base, 'keypoints': points, 'keypoint_scores': [0.9, 0.9, 0.9, 0.01]}
        yield {**base, 'extreme_points': points}
        yield {**base, 'extreme_points': [[5, 1], [1, 5], [5, 9], [9, 5]]}
        yield {**base, **CAR}
        yield {**base, **CAR, 'location': [0, 1, 0.5]}
        yield {**base, **CAR, 'location': [NAN, 1, 0.5]}


@pytest.mark.parametrize('size', [(0, 0), (0, 5), (1, 1), (2, 3000), (16, 16), (64, 64), (3000, 2500)])
def test_any_image_and_any_detection_can_be_drawn(size):
    """No size of image and no broken detection crashes; the given image stays as it was."""
    image = gray(*size)
    detections = list(every_kind(size[1], size[0]))
    drawn = drawing.draw_detections(image, detections, 0.3, [(0, 1), (0, 3), (3, 9)], DEFAULT_CALIB)
    assert drawn.shape == image.shape and (image == 90).all()
    if min(size) >= 16:
        assert changed(image, drawn).any()
    enlarged = drawing.draw_detections(image, detections, least_side=480)
    assert 0 in size or max(enlarged.shape) > 240 or max(size) > 480


@pytest.mark.parametrize('size', [(0, 0), (0, 5), (5, 0)])
def test_single_drawers_take_empty_images(size):
    """Each drawer of one thing leaves an empty image alone."""
    points = np.array([[1, 1], [2, 2], [3, 3], [4, 4]])
    for draw in (
        lambda image: drawing.draw_box(image, [0, 0, 3, 3], 'cat', (1, 2, 3)),
        lambda image: drawing.draw_keypoints(image, points, [(0, 1)]),
        lambda image: drawing.draw_extreme_points(image, points, (1, 2, 3)),
        lambda image: drawing.draw_box_3d(image, np.concatenate([points, points]), (1, 2, 3)),
    ):
        assert draw(gray(*size)).shape == (*size, 3)


def test_threshold_chooses_what_is_drawn():
    """Detections under the threshold leave no pixel, those at it do."""
    image = gray(100, 100)
    detection = {'class': 'cat', 'class_id': 1, 'score': 0.5, 'box': [10, 30, 60, 80]}
    assert not changed(image, drawing.draw_detections(image, [detection], 0.51)).any()
    assert changed(image, drawing.draw_detections(image, [detection], 0.5)).any()


def test_box_lies_on_its_coordinates():
    """The outline covers the box's sides and not its inside; enlarging moves it along."""
    image = gray(300, 300)
    drawing.draw_outline(image, [100, 150, 200, 250], (1, 2, 3))
    there = colored(image, (1, 2, 3))
    assert there[150, 100:201].all() and there[150:251, 200].all() and not there[155:245, 105:195].any()
    assert not there[:140].any() and not there[:, :90].any()
    detection = {'class': '', 'class_id': 1, 'box': [10, 15, 20, 25]}
    enlarged = drawing.draw_detections(gray(30, 30), [detection], least_side=300)
    assert enlarged.shape == (300, 300, 3)
    assert colored(enlarged, drawing.class_color(0))[150, 100:201].all()


@pytest.mark.parametrize('box', [[0, 0, 20, 20], [480, 0, 499, 9], [0, 0, 499, 299], [490, 290, 520, 320]])
def test_label_stays_inside_the_image(box):
    """A name is wholly visible whichever corner its box is in, or when the box is the image."""
    image = gray(300, 500)
    *_, (width, height) = fit_text(image, 'zebra 0.87')
    drawing.draw_labels(image, [(box, 'zebra 0.87', (0, 255, 255))])
    rows, columns = np.nonzero(changed(gray(300, 500), image))
    assert (np.ptp(columns) + 1, np.ptp(rows) + 1) == (width, height)


@pytest.mark.parametrize('side', [160, 500, 1000, 4000])
def test_label_follows_the_image(side):
    """Labels are legible: at least 11 pixels high, and between 1/100 and 1/10 of the image."""
    text, _, _, (width, height) = fit_text(gray(side, side), 'person 0.87')
    assert text == 'person 0.87' and width < side
    assert height >= 11 and side / 100 < height <= side / 10


def test_a_label_that_is_too_wide_is_cut():
    """On a narrow image the beginning of the name remains, on a tiny one nothing."""
    text, _, _, (width, _) = fit_text(gray(40, 40), 'person 0.87')
    assert text and 'person 0.87'.startswith(text) and width <= 40
    assert fit_text(gray(3, 3), 'person')[0] == ''


def test_labels_make_room_for_each_other():
    """Two labels of one box both stay readable, and hundreds of one place don't cover the best one."""
    image = gray(300, 300)
    *_, (width, height) = fit_text(image, 'cat')
    box = [100, 100, 200, 200]
    drawing.draw_labels(image, [(box, 'cat', (0, 255, 255)), (box, 'cat', (255, 255, 0))])
    background = colored(image, (0, 255, 255)).sum(), colored(image, (255, 255, 0)).sum()
    assert min(background) > 0.5 * width * height
    crowded = gray(300, 300)
    drawing.draw_labels(crowded, [(box, 'cat', (0, 255, 255))] + [(box, 'dog', (9, 9, 9))] * 200)
    assert colored(crowded, (0, 255, 255)).sum() == background[0]


def test_a_label_without_room_is_left_out():
    """Where the best label covers most of another's only places, no scraps of the other one are drawn."""
    box = [0, 0, 34, 16]
    alone, both = gray(16, 34), gray(16, 34)
    drawing.draw_labels(alone, [(box, 'cat', (0, 255, 255))])
    drawing.draw_labels(both, [(box, 'cat', (0, 255, 255)), (box, 'cats', (9, 9, 9))])
    assert colored(alone, (0, 255, 255)).any()
    np.testing.assert_array_equal(alone, both)


def test_joints_follow_their_visibility():
    """Flag 2 is a filled joint, 1 a hollow one, 0 neither joint nor limb."""
    points = [[200, 200], [600, 200], [1000, 200], [1000, 1000]]
    image = gray(1200, 1200)  # lines of 4 pixels, so that smoothing leaves their middle alone
    first, second, third, _ = drawing.rainbow(4)
    drawing.draw_keypoints(image, points, [(0, 1), (1, 2), (2, 3), (3, 7)], [2, 1, 1, 0])
    assert colored(image, first)[200, 200] and colored(image, second)[200, 400]
    assert colored(image, third)[200, 800]
    disc, ring = colored(image, first)[:, 200], colored(image, second)[:, 600]
    assert disc[194:200].all() and ring[194] and not ring[197]
    assert not changed(gray(1200, 1200), image)[300:].any()


def test_octagon_has_the_published_corners():
    """A quarter of each side about its extreme point, cut at the corners of the box."""
    corners = octagon(np.array([[40, 10], [0, 50], [80, 90], [80, 12]]))
    expected = [[50, 10], [30, 10], [0, 40], [0, 60], [70, 90], [80, 90], [80, 22], [80, 10]]
    np.testing.assert_allclose(corners, expected)
    image = gray(1000, 1000)
    drawing.draw_extreme_points(image, [[400, 100], [0, 500], [800, 900], [800, 120]], (0, 200, 0))
    assert colored(image, (0, 200, 0))[900, 710:780].all() and colored(image, (255, 255, 255))[100, 400]


def test_front_of_a_3d_box_is_marked():
    """The cross is on the side of the corners 0, 1, 4, 5, where compute_box_3d puts the front."""
    front, back = [[50, 200], [100, 200]], [[220, 200], [170, 200]]
    ground = np.array(front + back)
    image = gray(300, 300)
    drawing.draw_box_3d(image, np.concatenate([ground, ground - [0, 100]]), (0, 255, 0))
    assert changed(gray(300, 300), image)[148:153, 73:78].any()
    assert not changed(gray(300, 300), image)[148:153, 193:198].any()


def test_boxes_behind_the_camera_have_no_place():
    """A 3D box that reaches behind the camera isn't projected; its 2D box is drawn instead."""
    assert drawing.projected_box(CAR, DEFAULT_CALIB).shape == (8, 2)
    for depth in (0.8, 0, -20):
        assert drawing.projected_box({**CAR, 'location': [0, 1, depth]}, DEFAULT_CALIB) is None
    behind = {**CAR, 'location': [0, 1, -20], 'box': [20, 50, 80, 80]}
    drawn = drawing.draw_detections(gray(100, 100), [behind], calib=DEFAULT_CALIB)
    assert colored(drawn, drawing.class_color(0))[80, 20:80].all()


def test_bird_view_places_boxes_in_metres():
    """10 m ahead of 40 is low in the drawing, right is right; truth is filled, broken boxes left out."""
    far = {**CAR, 'score': 1.0, 'location': [0, 1, 39]}  # so that the drawing is 40 m high
    alone = drawing.bird_view([far])
    right = {**CAR, 'location': [10, 1, 10]}
    broken = {**CAR, 'location': [NAN, 1, 20]}
    outlined = changed(alone, drawing.bird_view([far, right, broken]))
    metre, middle = 511 / 40, 3 / 4 * 511  # pixels
    rows, columns = np.nonzero(outlined)
    assert abs(rows.mean() - middle) < 3 and abs(columns.mean() - middle) < 8
    assert np.ptp(columns) == pytest.approx(4 * metre, abs=8) and np.ptp(rows) == pytest.approx(1.6 * metre, abs=8)
    front = round(middle + 2 * metre)
    assert outlined[round(middle), front - 2 : front + 3].all() and not outlined[round(middle) + 5, round(middle)]
    filled = changed(alone, drawing.bird_view([far], [right]))
    assert filled[round(middle) + 5, round(middle) - 10 : round(middle) + 10].all()
    assert not changed(alone, drawing.bird_view([far, right], thresh=0.95)).any()


def test_boxes_of_very_wide_images_are_where_they_are():
    """Boxes and joints beyond 32,767 pixels are drawn at their places."""
    detection = {'class': '', 'class_id': 1, 'box': [39_000, 20, 39_500, 80], 'keypoints': [[45_000, 50]]}
    image = drawing.draw_detections(gray(100, 50_000), [detection])
    assert colored(image, drawing.class_color(0))[20, 39_000:39_500].all()
    assert changed(image, gray(100, 50_000))[50, 45_000] and not changed(image, gray(100, 50_000))[:, :38_000].any()


def test_heatmap_colors_agree_with_the_slow_form():
    """Each pixel's ink is the strongest class's, channel by channel; 0 is the theme's ground."""
    maps = np.random.default_rng(0).random((3, 6, 5)).astype(np.float32)
    maps[:, 0, 0] = 0
    colors = [(255, 0, 10), (0, 200, 30), (90, 90, 255)]
    white = drawing.heatmap_to_color(maps, colors, theme='white')
    black = drawing.heatmap_to_color(maps, colors, theme='black')
    for row in range(6):
        for column in range(5):
            heat = maps[:, row, column]
            for channel in range(3):
                light = max(heat[index] * colors[index][channel] for index in range(3))
                ink = max(heat[index] * (255 - colors[index][channel]) for index in range(3))
                assert black[row, column, channel] == pytest.approx(light, abs=0.51)
                assert white[row, column, channel] == pytest.approx(255 - ink, abs=0.51)
    assert (white[0, 0] == 255).all() and (black[0, 0] == 0).all()
    assert drawing.heatmap_to_color(maps, size=(50, 60)).shape == (60, 50, 3)
    assert drawing.heatmap_to_color(np.zeros((0, 4, 4))).shape == (4, 4, 3)


def test_blend_mixes_and_stretches():
    """The share of the upper image is exact, and its size doesn't matter."""
    mixed = drawing.blend(np.zeros((40, 20, 3), np.uint8), np.full((10, 5, 3), 200, np.uint8), 0.25)
    assert mixed.shape == (40, 20, 3) and (mixed == 50).all()


def test_results_become_detections_of_each_task():
    """Rows are read by the task's columns, named, sorted by score; scores are in full, coordinates short."""
    score = float(np.float32(0.123456789))
    rows = {1: np.array([[1.006, 2, 3, 4, score]], np.float32), 2: np.array([[0, 0, 1, 1, 0.5]], np.float32)}
    best, last = detections_from_results(rows, describe_box, ['cat'])
    assert best == {'class': '2', 'class_id': 2, 'score': 0.5, 'box': [0, 0, 1, 1]}
    assert last == {'class': 'cat', 'class_id': 1, 'score': score, 'box': [1.01, 2, 3, 4]}

    row = np.arange(13, dtype=np.float32)[None]  # [1, 13]
    (ddd,) = detections_from_results({1: row}, describe_box_3d, ['car'])
    assert ddd['box'] == [1, 2, 3, 4] and ddd['dim'] == [5, 6, 7] and ddd['location'] == [8, 9, 10]
    assert (ddd['alpha'], ddd['rotation_y'], ddd['score']) == (0, 11, 12)
    (exdet,) = detections_from_results({1: row}, describe_extreme_points, ['car'])
    assert exdet['extreme_points'] == [[5, 6], [7, 8], [9, 10], [11, 12]] and exdet['score'] == 4
    pose = detections_from_results({1: row[:, :9]}, describe_pose, ['person'], {1: np.array([[0.5, 0.25]])})
    assert pose[0]['keypoints'] == [[5, 6], [7, 8]] and pose[0]['keypoint_scores'] == [0.5, 0.25]
    assert detections_from_results({1: np.zeros((0, 5), np.float32)}, describe_box) == []


@pytest.mark.parametrize('ground', [0, 128, 255])
def test_boxes_are_seen_on_any_ground(ground):
    """A line is 2 pixels at least, with a border of the contrary brightness, even on a ground of its own colour."""
    for color in ((ground,) * 3, drawing.class_color(0)):
        image = np.full((100, 100, 3), ground, np.uint8)
        drawing.draw_outline(image, [20, 20, 80, 80], color)
        across = image[50, 10:30].astype(int)
        assert (across == color).all(1).sum() >= 2 or color == (ground,) * 3
        contrast = np.abs(across.mean(1) - np.mean(color))
        assert contrast.max() > 80


def test_a_caption_covers_nothing():
    """The strip with the text lies over the image, which stays whole."""
    image = np.full((60, 200, 3), 90, np.uint8)
    captioned = drawing.caption(image, 'truth')
    strip = captioned[: len(captioned) - 60]
    assert (captioned[-60:] == 90).all() and strip.max() > 200 and strip.min() == 0
