"""inspect_data: its numbers against a count by hand, and its page as a browser shows it."""

import json
import re
from functools import partial

import cv2
import numpy as np
import pytest
from lxml import etree

from browser import assert_page_is_shown, needs_chromium
from helpers import options
from lib.datasets.statistics import gather
from lib.datasets.toy import make_toy_data
from lib.reports.inspection import augmented_view, heatmaps_of

DOG = '<i>dog</i> $x$'
# Width and height of ten images, and their objects: class, x1 y1 x2 y2. Seen at 128 pixels, an image of 128 x 64 is not
# scaled, and 32 pixels lie over it: the centre of (20, 20) is in the cell (20 / 4, (20 + 32) / 4) = (5, 13).
IMAGES = [
    ((128, 64), [('cat', 0, 0, 40, 40), ('cat', 2, 2, 42, 42)]),  # centres (20, 20) and (22, 22): one cell
    ((128, 64), [('cat', 40, 16, 80, 48), (DOG, 41, 17, 79, 47)]),  # one cell, but of two classes
    ((128, 64), [(DOG, 10, 10, 13, 40)]),  # three pixels wide: less than a cell
    ((128, 64), [('cat', 100, 20, 120, 30)]),
    ((128, 64), []),
    ((128, 64), [('cat', 30, 30, 30, 40)]),  # empty: left out by the check
    ((128, 64), [(DOG, 0, 0, 20, 20), (DOG, 50, 20, 70, 40), (DOG, 100, 40, 120, 60)]),
    ((128, 64), [('cat', 0, 0, 128, 64)]),
    ((64, 128), [(DOG, 20, 20, 40, 60)]),
    ((100, 100), [('cat', 25, 25, 75, 75)]),  # seen 64 pixels wide
]
CENTERS = [(20 / 128, 20 / 64), (22 / 128, 22 / 64), (60 / 128, 0.5), (60 / 128, 0.5), (11.5 / 128, 25 / 64)]
SMALL_INPUT = ['--input_res', '128']


def write_folder(root):
    """The ten images to train on, and the last three to validate."""
    names = ['cat', DOG]
    for split, members in (('train', IMAGES), ('val', IMAGES[7:])):
        coco = {'images': [], 'annotations': [], 'categories': [{'id': i, 'name': n} for i, n in enumerate(names)]}
        for number, ((width, height), objects) in enumerate(members):
            path = root / f'images/{split} {number}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(path), np.full((height, width, 3), 90 + number, np.uint8))
            coco['images'].append({'id': number, 'file_name': path.name, 'width': width, 'height': height})
            for name, x1, y1, x2, y2 in objects:
                box = {'bbox': [x1, y1, x2 - x1, y2 - y1], 'area': (x2 - x1) * (y2 - y1), 'iscrowd': 0}
                coco['annotations'].append({'image_id': number, 'category_id': names.index(name), **box})
        (root / 'annotations').mkdir(exist_ok=True)
        (root / f'annotations/{split}.json').write_text(json.dumps(coco))
    return root


@pytest.fixture(scope='module')
def ten(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp('data') / 'ten')


@pytest.fixture
def inspect(convert):
    """Run inspect_data in tmp_path, as `convert` runs a tool."""
    return partial(convert, 'inspect_data')


def tables(page):
    """The tables of a page by the heading over them: rows of texts."""
    found = {}
    root = etree.fromstring(page.read_bytes(), etree.HTMLParser(encoding='utf-8'))
    for table in root.iter('table'):
        heading = table.xpath('string(preceding::h2[1])')
        rows = [[''.join(cell.itertext()) for cell in row.iter('th', 'td')] for row in table.iter('tr')]
        found[heading] = rows
    return found


def test_numbers_against_a_count_by_hand(ten):
    """Guards each number of the ten images."""
    opt, dataset = options('ctdet', ten, *SMALL_INPUT)
    found = gather(dataset(opt, 'train'))
    assert len(found) == 12 and found.left_out == 1
    assert found.objects_of_classes().tolist() == [6, 6] and found.images_of_classes().tolist() == [5, 4]
    assert found.objects_of_images().tolist() == [2, 2, 1, 1, 0, 0, 3, 1, 1, 1]
    assert found.empty_images() == ['train 4.png', 'train 5.png']
    assert np.allclose(found.centers()[:5], CENTERS)
    assert found.sharing(True).nonzero()[0].tolist() == [0, 1]
    assert found.sharing(False).nonzero()[0].tolist() == [0, 1, 2, 3]
    assert found.vanishing().nonzero()[0].tolist() == [4]
    assert found.cells[0].tolist() == [5, 13] and found.sizes()[0].tolist() == [40, 40]
    assert np.allclose(found.input_sizes()[[0, 11]], [[40, 40], [64, 64]])
    # at half the input size 40 pixels are 20, and boxes of 7 pixels are as wide as a cell no longer
    opt, dataset = options('ctdet', ten, '--input_res', '64')
    found = gather(dataset(opt, 'train'))
    assert np.allclose(found.input_sizes()[0], [20, 20]) and found.vanishing().nonzero()[0].tolist() == [4]
    assert found.sharing(True).nonzero()[0].tolist() == [0, 1]


def test_page_of_ten_images(inspect, ten, tmp_path):
    """Guards that the page's tables and the lines on the screen are that count, and that names are no markup."""
    said = inspect('--dataset', ten, *SMALL_INPUT, '--samples', 3)
    assert 'train: 12 objects, 1 vanish and 2 share a centre cell' in said and 'wrote report.html' in said
    page = tmp_path / 'report.html'
    found = tables(page)
    sizes = '64 to 128 x 64 to 128'
    assert found['Overview'][1] == ['train', '10', '12', '2 (20.0 %)', '1.200', '3', '1', sizes]
    assert found['Overview'][2][:4] == ['val', '3', '3', '0 (0.0 %)']
    assert found['Classes'][1:] == [['cat', '6', '5', '2', '2'], [DOG, '6', '4', '1', '1']]
    assert found['On the output map'][1] == ['train', '12', '2 (16.7 %)', '4 (33.3 %)', '1 (8.3 %)']
    assert any('1 boxes left out, empty or negative' in row[0] for row in found['Findings'])
    text = page.read_text()
    assert '<i>' not in text and 'train 4.png, train 5.png' in text and 'larger --input_res' in text
    assert text.count('data:image/jpeg') == 6 and 'http://' not in re.sub(r'http://www\.w3\.org[^"]*', '', text)
    assert 'src="http' not in text and '<script' not in text


def test_pages_of_other_tasks(inspect, tmp_path):
    """Guards joints and depths: the numbers that the annotation files hold, and heatmaps of every task."""
    make_toy_data(tmp_path / 'people', 'multi_pose', train=4, val=2, size=96)
    inspect('--dataset', tmp_path / 'people', '--task', 'multi_pose', *SMALL_INPUT, '--aug_rot', 1, '--rotate', 20)
    rows = json.loads((tmp_path / 'people/annotations/train.json').read_text())['annotations']
    rows += json.loads((tmp_path / 'people/annotations/val.json').read_text())['annotations']
    states = np.array([row['keypoints'] for row in rows]).reshape(len(rows), -1, 3)[..., 2]
    states = states[(states > 0).any(1)]
    nose = [str((states[:, 0] == 2).sum()), str((states[:, 0] == 1).sum())]
    found = tables(tmp_path / 'report.html')['Joints'][1]
    assert found[:3] == ['nose', *nose] and found[3].startswith(f'{(states[:, 0] == 0).sum()}')

    make_toy_data(tmp_path / 'road', 'ddd', train=4, val=2, size=(320, 96))
    inspect(
        '--dataset',
        'kitti',
        '--data_dir',
        tmp_path / 'road',
        '--output',
        'road.html',
        '--input_h',
        96,
        '--input_w',
        320,
    )
    rows = json.loads((tmp_path / 'road/kitti/annotations/kitti_3dop_train.json').read_text())['annotations']
    depths = [row['depth'] for row in rows if row['category_id'] in (1, 2, 3)]
    found = tables(tmp_path / 'road.html')['Depths'][1]
    assert found[1] == str(len(depths)) and float(found[2]) == pytest.approx(min(depths), abs=1e-3)
    assert float(found[4]) == pytest.approx(max(depths), abs=1e-3)

    make_toy_data(tmp_path / 'shapes', 'exdet', train=4, val=2, size=96)
    inspect('--dataset', tmp_path / 'shapes', '--task', 'exdet', *SMALL_INPUT, '--samples', 2, '--output', 'x.html')
    assert (tmp_path / 'x.html').read_text().count('data:image/jpeg') == 4


def test_what_the_network_sees(ten):
    """Guards the augmented view: the input beside its heatmap, of the sample that training draws."""
    opt, dataset = options('ctdet', ten, *SMALL_INPUT, '--flip', '1', '--not_rand_crop', '--shift', '0', '--scale', '0')
    train = dataset(opt, 'train')
    view = augmented_view(train, 3)
    assert view.shape == (128, 2 * 128 + 6, 3)
    (name, maps, of_joints), *others = heatmaps_of(train[3])
    assert (name, of_joints, others) == ('hm', False, [])
    row, column = np.argwhere(maps[0] == 1)[0]  # mirrored: the centre at (110, 25) is seen at x = 127 - 110
    assert (row, column) == ((25 + 32) // 4, (127 - 110) // 4)
    heat = view[:, 134:].astype(int)
    assert np.ptp(heat, axis=2).argmax() // 128 // 4 == pytest.approx(row, abs=1)


def test_mistakes_are_one_line(inspect, ten, tmp_path):
    """Guards wrong paths, tasks and options, a file of the user's at the output, and a val split without images."""
    assert 'nowhere' in inspect('--dataset', 'nowhere', fails=True)
    assert "did you mean 'ctdet'" in inspect('--dataset', ten, '--task', 'ctde', fails=True)
    assert "did you mean '--input_res'" in inspect('--dataset', ten, '--input_rse', 3, fails=True)
    assert '--samples -1' in inspect('--dataset', ten, '--samples', -1, fails=True)
    (tmp_path / 'report.html').write_text('mine')
    assert 'no earlier output' in inspect('--dataset', ten, fails=True)
    assert (tmp_path / 'report.html').read_text() == 'mine'
    own = write_folder(tmp_path / 'own')
    (own / 'annotations/val.json').write_text('{"images": [], "annotations": [], "categories": []}')
    for _ in range(2):
        said = inspect('--dataset', own, *SMALL_INPUT, '--output', 'new.html', '--samples', 0)
        assert 'note: no images validate' in said
    assert 'val.json' in tables(tmp_path / 'new.html')['Findings'][-1][0]


@needs_chromium
def test_page_in_a_browser(inspect, ten, tmp_path):
    """Guards that headless Chromium shows letters at the top, and coloured ink in each plot."""
    inspect('--dataset', ten, *SMALL_INPUT)
    assert assert_page_is_shown(tmp_path / 'report.html', tmp_path) == 5
