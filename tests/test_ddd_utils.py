"""3D geometry against forms written to be read."""

import math

import numpy as np
import pytest

from lib.utils.ddd_utils import (
    DEFAULT_CALIB,
    alpha2rot_y,
    compute_box_3d,
    get_alpha,
    project_to_image,
    read_calib,
    rot_y2alpha,
    unproject_2d_to_3d,
)
from lib.utils.errors import UserError


def slow_box(dim, location, angle):
    h, w, length = dim
    corners = []
    for y in (0, -h):
        for x, z in ((length / 2, w / 2), (length / 2, -w / 2), (-length / 2, -w / 2), (-length / 2, w / 2)):
            turned = (math.cos(angle) * x + math.sin(angle) * z, y, -math.sin(angle) * x + math.cos(angle) * z)
            corners.append([a + b for a, b in zip(turned, location, strict=True)])
    return corners


def test_compute_box_3d_one_and_many():
    """Corner order, turn and place of a box; many boxes at once give the same."""
    rng = np.random.default_rng(0)
    dims, locations, angles = rng.uniform(1, 5, (4, 3)), rng.uniform(-9, 30, (4, 3)), rng.uniform(-3, 3, 4)
    want = [slow_box(*box) for box in zip(dims, locations, angles, strict=True)]
    np.testing.assert_allclose(compute_box_3d(dims[1], locations[1], angles[1]), want[1], rtol=1e-5)
    np.testing.assert_allclose(compute_box_3d(dims, locations, angles), want, rtol=1e-5)


def test_projection_by_hand_and_back():
    """A point is divided by its depth, and un-projected at the depth that the image plane sees."""
    points = np.array([[1.0, 2.0, 20.0], [-5.0, 1.5, 8.0]])
    P = DEFAULT_CALIB.astype(np.float64)
    pixels = project_to_image(points, P)
    for point, pixel in zip(points, pixels, strict=True):
        u, v, depth = (sum(row[k] * point[k] for k in range(3)) + row[3] for row in P)
        np.testing.assert_allclose(pixel, [u / depth, v / depth])
    depths = points[:, 2] + P[2, 3]
    np.testing.assert_allclose(unproject_2d_to_3d(pixels, depths, P), points, rtol=1e-5)
    np.testing.assert_allclose(unproject_2d_to_3d(pixels[0], depths[0], P), points[0], rtol=1e-5)


def test_angles_wrap_by_one_turn_and_return():
    """rotation_y = alpha + angle of the ray, in [-pi, pi], for numbers and arrays; rot_y2alpha undoes it."""
    ray = math.atan2(1000 - 604, 707)
    assert alpha2rot_y(0.3, 1000, 604, 707) == pytest.approx(0.3 + ray)
    assert alpha2rot_y(3.0, 1000, 604, 707) == pytest.approx(3.0 + ray - 2 * math.pi)
    assert rot_y2alpha(-3.0, 1000, 604, 707) == pytest.approx(-3.0 - ray + 2 * math.pi)
    alpha = np.linspace(-3.1, 3.1, 30)
    np.testing.assert_allclose(rot_y2alpha(alpha2rot_y(alpha, 900, 604, 707), 900, 604, 707), alpha)


def test_get_alpha_reads_the_bin_with_the_larger_second_logit():
    """Bin 1 is about -pi/2, bin 2 about pi/2; the first logits are not looked at."""
    rot = np.zeros((2, 8))
    rot[:, 2:4] = math.sin(0.4), math.cos(0.4)
    rot[:, 6:8] = math.sin(-0.7), math.cos(-0.7)
    rot[:, 1], rot[:, 5] = (2, 1), (1, 2)
    rot[:, 0], rot[:, 4] = (9, -9), (-9, 9)
    np.testing.assert_allclose(get_alpha(rot), [0.4 - math.pi / 2, -0.7 + math.pi / 2])


def test_read_calib(tmp_path):
    """P2 is found by its name, wherever its line stands."""
    path = tmp_path / '000000.txt'
    path.write_text('P0: 1 2 3\nP1: 0\nP2: ' + ' '.join(f'{k}.5e+00' for k in range(12)) + '\nTr: 4\n\n')
    np.testing.assert_array_equal(read_calib(path), np.arange(12).reshape(3, 4) + np.float32(0.5))
    assert read_calib(path).dtype == np.float32


@pytest.mark.parametrize('content', [b'', b'P2: 1 2 3', b'P2: ' + b'x ' * 12, b'\xff\xd8\xff\xe0'])
def test_a_broken_calibration_is_one_line(tmp_path, content):
    """A missing line, too few numbers, words, a binary file: each names the file."""
    path = tmp_path / 'calib.txt'
    path.write_bytes(content)
    with pytest.raises(UserError, match='calib.txt'):
        read_calib(path)


def test_a_missing_calibration_is_one_line(tmp_path):
    """No file, no traceback."""
    with pytest.raises(UserError, match='gone.txt'):
        read_calib(tmp_path / 'gone.txt')
