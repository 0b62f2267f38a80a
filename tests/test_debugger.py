"""Views of `--debug`: what is drawn, saved or shown, and that no window is opened without a display."""

import subprocess
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from lib.utils import debugger as debugger_module
from lib.utils import media
from lib.utils.debugger import Debugger, network_input_to_image
from lib.utils.errors import UserError
from lib.utils.media import display
from lib.utils.views import add_extreme_view

GRAY = np.full((100, 100, 3), 90, np.uint8)


@pytest.fixture(autouse=True)
def no_display(monkeypatch):
    """Without a screen, and with windows that fail the test."""
    monkeypatch.delenv('DISPLAY', raising=False)
    monkeypatch.delenv('WAYLAND_DISPLAY', raising=False)
    monkeypatch.setattr(cv2, 'imshow', lambda *_: pytest.fail('cv2.imshow without a display aborts the process'))
    probe = media.has_display
    probe.cache_clear()
    yield
    probe.cache_clear()


def filled(side=100):
    debugger = Debugger(class_names=['cat', 'dog'], skeleton=[(0, 1)])
    debugger.add_img(np.full((side, side, 3), 90, np.uint8))
    return debugger


def test_network_input_becomes_the_image_again():
    """Denormalising undoes (pixel / 255 - mean) / std exactly, for means of any shape."""
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    mean, std = np.array([0.4, 0.5, 0.6], np.float32), np.array([0.2, 0.3, 0.25], np.float32)
    x = ((image / 255 - mean) / std).transpose(2, 0, 1).astype(np.float32)
    np.testing.assert_array_equal(network_input_to_image(x, mean.reshape(1, 1, 3), std), image)


@pytest.mark.parametrize(
    'draw',
    [
        lambda view: view.add_box([20, 30, 80, 80], 1, 0.5),
        lambda view: view.add_extreme_points([50, 20, 20, 50, 50, 80, 80, 50], 1),
        lambda view: view.add_detections([{'class': 'cat', 'class_id': 1, 'box': [9, 9, 50, 50]}]),
    ],
    ids=['box', 'extreme', 'detections'],
)
def test_each_kind_is_drawn_on_the_named_image_alone(draw):
    """A drawing changes the image it names, and neither the caller's image nor another one."""
    side = 300
    given = np.full((side, side, 3), 90, np.uint8)
    view = Debugger(class_names=['cat', 'dog'], skeleton=[(0, 1)])
    view.add_img(given)
    view.add_img(given, 'other')
    draw(view)
    assert (view.imgs['default'] != 90).any()
    assert (view.imgs['other'] == 90).all() and (given == 90).all()


@pytest.mark.parametrize(
    'draw',
    [
        lambda view, thresh: view.add_boxes(GRAY, np.array([[20, 30, 80, 80, 0.5, 0]]), 'found', thresh),
        lambda view, thresh: view.add_poses(GRAY, np.array([[20, 30, 80, 80, 0.5, 50, 50]]), 'found', thresh),
        lambda view, thresh: add_extreme_view(
            view, GRAY, np.array([[20, 30, 80, 80, 0.5, 50, 30, 20, 50, 50, 80, 80, 50, 0]]), 1, thresh, 'found'
        ),
    ],
    ids=['boxes', 'poses', 'extremes'],
)
def test_threshold_is_the_lowest_score_that_is_drawn(draw):
    """--vis_thresh means the same in every view: a score at it is drawn, one under it is not."""
    for thresh, drawn in ((0.5, True), (0.51, False)):
        view = Debugger()
        draw(view, thresh)
        assert (view.imgs['found'] != GRAY).any() == drawn


def test_maps_and_views_have_their_theme():
    """Colour maps, joint maps and bird's-eye views stand on the ground that the theme says."""
    for theme, ground in (('white', 255), ('black', 0)):
        view = Debugger(theme)
        assert (view.gen_colormap(np.zeros((2, 4, 4)), (8, 8)) == ground).all()
        assert (view.gen_colormap_hp(np.zeros((5, 4, 4)), (8, 8)) == ground).all()
        view.add_bird_view([])
        assert np.median(view.imgs['bird']) == ground
        view.add_blend_img(np.full((8, 8, 3), 100, np.uint8), view.gen_colormap(np.zeros((2, 4, 4))), 'hm', 0.5)
        assert abs(int(view.imgs['hm'][0, 0, 0]) - (100 + ground) / 2) <= 1


@pytest.mark.parametrize(('level', 'names'), [(1, ['p_default.png']), (3, ['p_plot.png']), (4, ['p_default.png'])])
def test_without_a_display_every_level_saves_and_says_where(tmp_path, capsys, level, names):
    """No window is opened; the images are in the folder, which is named once."""
    debugger_module.log_folder.cache_clear()
    folder = tmp_path / 'debug'
    for _ in range(2):
        filled().finish(level, folder, 'p_')
    assert sorted(path.name for path in folder.iterdir()) == names
    assert cv2.imread(str(folder / names[0])) is not None
    assert capsys.readouterr().out.count(str(folder)) == 1


def test_show_images_refuses_without_a_display():
    """The one place that opens windows raises an error in place of aborting the process."""
    with pytest.raises(UserError, match='no display'):
        media.show_images({'a': np.zeros((5, 5, 3), np.uint8)}, pause=True)


@pytest.mark.parametrize(
    ('keys', 'visible', 'pause', 'escaped'),
    [([27], 1, True, True), ([-1, -1, 65], 1, True, False), ([-1], 0, True, False), ([-1], 1, False, False)],
    ids=['Esc', 'other key after a while', 'windows closed', 'video goes on'],
)
def test_windows_end_by_key_or_when_closed(monkeypatch, keys, visible, pause, escaped):
    """Waiting ends with a key or when the last window is closed, and Esc is known from the rest."""
    shown = []
    monkeypatch.setattr(display, 'has_display', lambda: True)
    monkeypatch.setattr(cv2, 'imshow', lambda title, image: shown.append((title, image.shape)))
    monkeypatch.setattr(cv2, 'waitKey', lambda milliseconds: keys.pop(0))
    monkeypatch.setattr(cv2, 'getWindowProperty', lambda *_: visible)
    images = {'a': np.zeros((5, 5, 3), np.uint8), 'b': np.zeros((1800, 3200, 3), np.uint8)}
    assert media.show_images(images, pause) is escaped
    assert keys == [] and shown == [('a', (5, 5, 3)), ('b', (900, 1600, 3))]


def test_a_display_that_does_not_open_is_none(monkeypatch):
    """A DISPLAY that is set but dead counts as none: the probe in another process decides."""
    monkeypatch.setattr(display.sys, 'platform', 'linux')
    assert media.has_display() is False
    monkeypatch.setenv('DISPLAY', ':77')
    for code in (1, 0, -6):
        media.has_display.cache_clear()
        monkeypatch.setattr(subprocess, 'run', lambda *_, code=code, **__: SimpleNamespace(returncode=code))
        assert media.has_display() is (code == 0)
