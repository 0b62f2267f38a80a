"""KITTI's metric: against metrics of the official evaluator's rules, and its parts against readable forms."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from lib.datasets.evaluation import kitti_eval
from lib.datasets.evaluation.kitti_eval import evaluate_kitti, flatten_kitti
from lib.utils.errors import UserError

FIXTURE = Path(__file__).parent / 'fixtures' / 'kitti_eval'
HEIGHT = Path(__file__).parent / 'fixtures' / 'kitti_height'  # a frame with a car of 25 px, and official values
FRAMES = 80  # with 40 objects or fewer the official rule has no threshold for the last recall point


def write_frame(folder, number, lines):
    folder.mkdir(exist_ok=True)
    (folder / f'{number:06d}.txt').write_text(''.join(line + '\n' for line in lines))


def label(name, box=(100, 100, 200, 200), location=(1, 1.5, 20), truncated=0, occluded=0, score=None):
    x1, y1, x2, y2 = box
    x, y, z = location
    line = f'{name} {truncated} {occluded} 0.1 {x1} {y1} {x2} {y2} 1.5 1.6 4.0 {x} {y} {z} 0.3'
    return line if score is None else f'{line} {score}'


@pytest.fixture
def folders(tmp_path):
    return tmp_path / 'label_2', tmp_path / 'results'


def repeat_frame(folders, truth, found):
    for i in range(FRAMES):
        write_frame(folders[0], i, truth)
        write_frame(folders[1], i, found)


def score(folders, truth, found):
    """Figures of one frame, repeated."""
    repeat_frame(folders, truth, found)
    return flatten_kitti(evaluate_kitti(*folders))


def test_figures_of_twenty_frames():
    """Guards all 72 metrics: the code that made them agreed to 0.0001 with the official evaluator on 200 frames."""
    expected = json.loads((FIXTURE / 'expected.json').read_text())
    metrics = evaluate_kitti(FIXTURE / 'label_2', FIXTURE / 'results')
    assert metrics.keys() == expected.keys()
    for name, by_points in expected.items():
        for points, values in by_points.items():
            assert metrics[name][points] == pytest.approx(values, abs=1e-3), (name, points)


def test_perfect_detections(folders):
    """Guards the ends of the scale: what repeats the truth scores 100, and AOS with it."""
    metrics = score(folders, [label('Car')], [label('Car', score=0.9)])
    for metric in ('2d', 'aos', 'bev', '3d'):
        assert metrics[f'car_{metric}_easy_AP40'] == pytest.approx(100)
        assert metrics[f'cyclist_{metric}_easy_AP40'] == 0


def test_false_positive_halves_precision(folders):
    """Guards the counting of wrong detections."""
    found = [label('Car', score=0.5), label('Car', box=(400, 100, 500, 200), location=(9, 1.5, 30), score=0.9)]
    assert score(folders, [label('Car')], found)['car_2d_easy_AP40'] == pytest.approx(50)


@pytest.mark.parametrize('name, expected', [('Van', 100), ('Truck', 50), ('DontCare', 100)])
def test_neighbours_and_dont_care_cost_nothing(folders, name, expected):
    """Guards the ignoring rules: a car found on a van or in a DontCare area is not wrong, on a truck it is."""
    other = {'box': (400, 100, 500, 200), 'location': (9, 1.5, 30)}
    truth = [label('Car'), label(name, **other)]
    found = [label('Car', score=0.5), label('Car', **other, score=0.9)]
    assert score(folders, truth, found)['car_2d_easy_AP40'] == pytest.approx(expected)


def test_difficulties(folders):
    """Guards the limits of the difficulties: what is too occluded, cut or small is not asked for."""
    hidden = label('Car', box=(400, 100, 500, 200), location=(9, 1.5, 30), occluded=2)
    cut = label('Car', box=(600, 100, 700, 200), location=(-9, 1.5, 30), truncated=0.4)
    low = label('Car', box=(800, 100, 900, 130), location=(-9, 1.5, 50))
    metrics = score(folders, [label('Car'), hidden, cut, low], [label('Car', score=0.9)])
    assert metrics['car_2d_easy_AP40'] == pytest.approx(100)
    assert 45 < metrics['car_2d_moderate_AP40'] < 55  # of two, one is found
    assert 20 < metrics['car_2d_hard_AP40'] < 30  # of four, one


def test_loose_overlaps(folders):
    """Guards --loose: the ground overlap asked for goes down, the image's does not."""
    truth, found = [label('Car')], [label('Car', location=(1.5, 1.5, 20), score=0.9)]
    strict = score(folders, truth, found)
    loose = flatten_kitti(evaluate_kitti(*folders, loose=True))
    assert strict['car_bev_easy_AP40'] == 0
    assert loose['car_bev_easy_AP40'] == loose['car_3d_easy_AP40'] == pytest.approx(100)
    assert loose['car_2d_easy_AP40'] == strict['car_2d_easy_AP40']


def test_broken_lines_are_named_and_skipped(folders, capsys):
    """Guards survival of bad data: a line cut short and a line of words are named with file and line."""
    repeat_frame(folders, [label('Car')], [label('Car', score=0.9)])
    write_frame(folders[1], 3, ['Car 0 0 0.1 5 5', label('Car', score=0.9), label('Car', score='nan')])
    metrics = flatten_kitti(evaluate_kitti(*folders))
    assert metrics['car_3d_easy_AP40'] == pytest.approx(100)
    printed = capsys.readouterr().out
    assert '2 lines' in printed and '000003.txt:1' in printed and '000003.txt:3' in printed


def test_frames_without_result_file_do_not_count(folders, capsys):
    """Guards the official choice of frames, and that it is said; an empty file does count."""
    repeat_frame(folders, [label('Car')], [label('Car', score=0.9)])
    for i in range(FRAMES, FRAMES + 20):
        write_frame(folders[0], i, [label('Car')])
    assert flatten_kitti(evaluate_kitti(*folders))['car_2d_easy_AP40'] == pytest.approx(100)
    assert '20 label files have no result file' in capsys.readouterr().out
    for i in range(FRAMES, FRAMES + 20):
        write_frame(folders[1], i, [])
    assert flatten_kitti(evaluate_kitti(*folders))['car_2d_easy_AP40'] == pytest.approx(80, abs=3)


def test_wrong_folders(tmp_path):
    """Guards one-line errors: missing folders, no results, results of other frames."""
    with pytest.raises(UserError, match='no folder'):
        evaluate_kitti(FIXTURE / 'label_2', tmp_path / 'nowhere')
    with pytest.raises(UserError, match='no result files'):
        evaluate_kitti(FIXTURE / 'label_2', tmp_path)
    write_frame(tmp_path / 'other', 999, [])
    with pytest.raises(UserError, match='same name'):
        evaluate_kitti(FIXTURE / 'label_2', tmp_path / 'other')


def test_without_orientation_there_is_no_aos(tmp_path):
    """Guards alpha -10, which says that a detector has no orientation."""
    shutil.copytree(FIXTURE, tmp_path / 'kitti')
    frame = tmp_path / 'kitti' / 'results' / '000020.txt'
    fields = frame.read_text().splitlines()[0].split()
    fields[3] = '-10'
    frame.write_text(' '.join(fields) + '\n')
    metrics = evaluate_kitti(tmp_path / 'kitti' / 'label_2', tmp_path / 'kitti' / 'results')
    assert 'car_2d' in metrics and 'car_aos' not in metrics


def clipped_area(polygon, clip):
    """Area of a convex polygon cut by the sides of another, one side after the other."""
    for start, end in zip(clip, np.roll(clip, -1, axis=0), strict=True):

        def side(point, start=start, end=end):
            return np.cross([*(end - start), 0], [*(point - start), 0])[2]

        kept = []
        for a, b in zip(polygon, polygon[1:] + polygon[:1], strict=True):
            if side(a) >= 0:
                kept.append(a)
            if side(a) * side(b) < 0:
                kept.append(a + (b - a) * side(a) / (side(a) - side(b)))
        polygon = kept
        if not polygon:
            return 0.0
    x, y = np.array(polygon).T
    return 0.5 * float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))


def random_rows(rng, count):
    rows = np.zeros((count, 15))
    rows[:, kitti_eval.DIMS] = rng.uniform(0.5, 5, (count, 3))
    rows[:, kitti_eval.LOCATION] = rng.uniform(-2, 2, (count, 3)) + [20, 1, 40]
    rows[:, kitti_eval.ROTATION] = rng.uniform(-4, 4, count)
    return rows


def test_ground_intersection():
    """Guards the rotated overlap against plain polygon clipping, with coinciding and touching rectangles."""
    rng = np.random.default_rng(0)
    a, b = random_rows(rng, 200), random_rows(rng, 200)
    b[:50] = a[:50]
    b[10:20, kitti_eval.ROTATION] += np.pi  # the same rectangle
    b[20:30, 9] /= 2  # inside, two sides partly shared
    b[30:40, kitti_eval.LOCATION] += 1e-12  # the same but for rounding
    b[40:50, 10] += np.cos(a[40:50, 13]) * a[40:50, 9]  # end to end
    b[40:50, 12] -= np.sin(a[40:50, 13]) * a[40:50, 9]
    origin = b[:, [10, 12]]
    corners_a, corners_b = kitti_eval._corners(a, origin), kitti_eval._corners(b, origin)
    slow = [clipped_area(list(p), q) for p, q in zip(corners_a, corners_b, strict=True)]
    areas = kitti_eval._ground_intersection(a, b)
    np.testing.assert_allclose(areas, slow, atol=1e-6)
    np.testing.assert_allclose(areas[:20], (a[:, 8] * a[:, 9])[:20], atol=1e-6)
    assert (areas[50:] > 0).any() and (areas[50:] == 0).any()


def test_matched_errors(tmp_path):
    """Medians over found objects of the class: the best scored match counts, turns wrap, misses do not."""
    from lib.datasets.evaluation.kitti_eval import matched_errors

    def line(name, x, depth, rotation, score=''):
        return f'{name} 0 0 0 {x} 100 {x + 50} 150 1.5 1.6 4 1 1 {depth} {rotation} {score}\n'

    (tmp_path / 'gt').mkdir()
    (tmp_path / 'out').mkdir()
    truth = line('Car', 0, 10, 3.1) + line('Car', 200, 20, 0) + line('Car', 400, 30, 0) + line('Cyclist', 0, 5, 0)
    found = line('Car', 5, 11, -3.1, 0.9) + line('Car', 0, 50, 1, 0.8) + line('Car', 200, 24, 0.2, 0.3)
    (tmp_path / 'gt/000000.txt').write_text(truth)
    (tmp_path / 'out/000000.txt').write_text(found + line('Pedestrian', 400, 30, 0, 0.9))
    errors = matched_errors(tmp_path / 'gt', tmp_path / 'out')
    turn = np.degrees([2 * np.pi - 6.2, 0.2])
    assert errors == {
        'car_depth_error': pytest.approx((10 + 20) / 2),
        'car_rotation_error': pytest.approx(turn.mean()),
    }


def test_a_box_of_exactly_the_least_height_counts(folders):
    """Guards the official rule that a truth is ignored under 25 px, not at 25: values of a run of the evaluator."""
    expected = json.loads((HEIGHT / 'expected.json').read_text())
    metrics = evaluate_kitti(HEIGHT / 'label_2', HEIGHT / 'results')
    for name, values in expected.items():
        assert metrics[name]['AP11'] == pytest.approx(values, abs=0.01)
    for height, easy, moderate in ((24.99, 0, 0), (25, 0, 100), (39.99, 0, 100), (40, 100, 100)):
        car = label('Car', box=(100, 100, 200, 100 + height))
        metrics = score(folders, [car], [f'{car} 0.9'])
        found = (metrics['car_3d_easy_AP40'], metrics['car_3d_moderate_AP40'])
        assert found == pytest.approx((easy, moderate))


def test_files_of_another_kind_are_refused(folders):
    """Guards against a table of zeros where nothing was read: the folder and what was expected are named."""
    truth, found = [label('Car')], [label('Car', score=0.9)]
    for wrong, words in (
        ((['Car,0,0,1'], found), 'label_2.*15 fields'),
        ((truth, truth), 'results.*16 fields'),  # labels in place of results
        ((truth, [label('Bus', score=0.9)]), 'results.*class that is scored.*found bus'),
    ):
        repeat_frame(folders, *wrong)
        with pytest.raises(UserError, match=words):
            evaluate_kitti(*folders)
    repeat_frame(folders, [label('Bus')], found)
    assert not any(flatten_kitti(evaluate_kitti(*folders)).values())  # a validation without cars is no mistake
    with pytest.raises(UserError, match='label_2.*found bus'):
        evaluate_kitti(*folders, require_truth=True)
