"""Toy data: each promise of its docstrings, on images drawn here."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from lib.datasets.kitti_files import label_line
from lib.datasets.toy import make_toy_data
from lib.datasets.toy.canvas import Canvas
from lib.datasets.toy.people import PeopleScenes
from lib.datasets.toy.shapes import SHAPES, ShapeScenes
from lib.utils.ddd_utils import compute_box_3d, project_to_image, read_calib
from lib.utils.errors import UserError
from lib.utils.extreme_points import extreme_points

TRAIN, VAL = 32, 6


@pytest.fixture(scope='module')
def toy(tmp_path_factory):
    """Draws a task's data once: `toy(task)` -> its folder."""
    made = {}

    def draw(task: str) -> Path:
        if task not in made:
            made[task] = make_toy_data(tmp_path_factory.mktemp(task), task, train=TRAIN, val=VAL)
        return made[task]

    return draw


def load(folder: Path, split: str, pattern: str = 'annotations/{}.json') -> dict:
    return json.loads((folder / pattern.format(split)).read_text())


def by_image(content: dict) -> list[list[dict]]:
    groups = {image['id']: [] for image in content['images']}
    for annotation in content['annotations']:
        groups[annotation['image_id']].append(annotation)
    return list(groups.values())


def iou(a: dict, b: dict) -> float:
    return float(coco_mask.iou([a['bbox']], [b['bbox']], [0])[0, 0])


@pytest.mark.parametrize('task', ['ctdet', 'exdet', 'multi_pose'])
def test_own_folder(toy, task):
    """Counts, names, sizes and ids are what a COCO-format folder needs; ids stay apart in both splits."""
    contents = {split: load(toy(task), split) for split in ('train', 'val')}
    assert [len(content['images']) for content in contents.values()] == [TRAIN, VAL]
    for key in ('images', 'annotations'):
        ids = [entry['id'] for content in contents.values() for entry in content[key]]
        assert len(ids) == len(set(ids)) > 0
    for content in contents.values():
        known = {category['id'] for category in content['categories']}
        assert {annotation['category_id'] for annotation in content['annotations']} == known
        for image in content['images']:
            pixels = cv2.imread(str(toy(task) / 'images' / image['file_name']))
            assert pixels.shape == (image['height'], image['width'], 3) == (160, 160, 3)


def test_shapes(toy):
    """3 classes, 1 to 6 objects, sides 1/8 to 1/2 of the image, boxes tight on the polygons and inside."""
    content = load(toy('ctdet'), 'train')
    assert [category['name'] for category in content['categories']] == ['disc', 'triangle', 'cross']
    counts = [len(group) for group in by_image(content)]
    assert min(counts) == 1 and max(counts) == 6
    for annotation in content['annotations']:
        x, y, w, h = annotation['bbox']
        assert min(w, h) >= 20 and max(w, h) <= 80
        points = np.reshape(annotation['segmentation'][0], (-1, 2))
        np.testing.assert_allclose([*points.min(0), *np.ptp(points, axis=0)], [x, y, w, h], atol=1e-6)
        assert min(x, y) >= 5 and max(x + w, y + h) <= 155
        assert annotation['area'] == pytest.approx(coco_area(annotation['segmentation']), rel=0.06)


def coco_area(segmentation: list) -> float:
    return float(coco_mask.area(coco_mask.merge(coco_mask.frPyObjects(segmentation, 160, 160))))


def test_shapes_overlap(toy):
    """Boxes overlap in 20 % of the images or more, never by more than half, so that no shape is lost."""
    groups = by_image(load(toy('ctdet'), 'train'))
    overlaps = [[iou(a, b) for i, a in enumerate(group) for b in group[:i]] for group in groups]
    assert np.mean([max(values, default=0) > 0 for values in overlaps]) >= 0.2
    assert max(max(values, default=0) for values in overlaps) <= 0.5
    for group in groups:
        masks = [coco_mask.frPyObjects(a['segmentation'], 160, 160)[0] for a in group]
        for i, mask in enumerate(masks[:-1]):
            over = coco_mask.merge(masks[i + 1 :])
            hidden = coco_mask.area(coco_mask.merge([mask, over], intersect=True)) / coco_mask.area(mask)
            assert hidden <= 0.55


@pytest.mark.parametrize('scenes', [ShapeScenes(), PeopleScenes()])
def test_objects_are_where_the_boxes_are(scenes, monkeypatch):
    """The pixels pasted for an object fill its box exactly, and cover its area."""
    pasted = []
    monkeypatch.setattr(Canvas, 'paste', lambda self, region, colours, alpha: pasted.append((region, alpha)))
    monkeypatch.setattr(Canvas, 'spares', lambda *_: True)
    for seed in range(6):
        pasted.clear()
        annotations = scenes.draw(np.random.default_rng(seed), 160, 160).annotations
        check_pasted(annotations, pasted[: len(annotations)])  # after the people comes the block


def check_pasted(annotations: list[dict], pasted: list[tuple]) -> None:
    for annotation, (region, alpha) in zip(annotations, pasted, strict=True):
        sheet = np.zeros((160, 160))
        sheet[region] = alpha
        x, y, w, h = annotation['bbox']
        rows, columns = np.flatnonzero((sheet > 0.1).any(1)), np.flatnonzero((sheet > 0.1).any(0))
        found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        np.testing.assert_allclose(found, [x, y, x + w, y + h], atol=1.1)
        assert sheet.sum() == pytest.approx(annotation['area'], rel=0.08)


@pytest.mark.parametrize('task', ['ctdet', 'multi_pose', 'ddd'])
def test_seed(tmp_path, task):
    """The same seed gives the same bytes; another one, and the other split, other images."""
    folders = [
        make_toy_data(tmp_path / name, task, train=2, val=2, seed=seed) for name, seed in (('a', 7), ('b', 7), ('c', 8))
    ]
    contents = [
        {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob('*.*g')) if path.is_file()}
        | {path.name: path.read_bytes() for path in sorted(folder.rglob('*.json'))}
        for folder in folders
    ]
    assert contents[0] == contents[1] and len(contents[0]) >= 6
    assert contents[0].keys() == contents[2].keys()
    assert all(contents[0][name] != contents[2][name] for name in contents[0])
    images = {value for name, value in contents[0].items() if not name.endswith('json')}
    assert len(images) == 4


def test_classes_and_colors():
    """`classes` takes the first shapes of the list; `colors='class'` brings each class near a hue of its own."""

    def hues(colors):
        scenes, found = ShapeScenes(classes=2, colors=colors), ([], [])
        for seed in range(40):
            scene = scenes.draw(np.random.default_rng(seed), 96, 96)
            last = scene.annotations[-1]  # nothing lies over it
            x, y, w, h = last['bbox']
            patch = scene.image[int(y + h * 0.4) : int(y + h * 0.6), int(x + w * 0.4) : int(x + w * 0.6)]
            hue = cv2.cvtColor(patch, cv2.COLOR_BGR2HSV)[..., 0].astype(float) * np.pi / 90
            found[last['category_id'] - 1].append(np.exp(1j * hue).mean())
        return [abs(np.mean(values)) for values in found]

    assert [category['name'] for category in ShapeScenes(8).categories] == list(SHAPES)
    assert min(hues('class')) > 0.6 > 0.4 > max(hues('random'))


def test_extreme_points_of_exdet(toy):
    """exdet's images are ctdet's; its four points lie on the box, in the order top, left, bottom, right."""
    plain, extreme = load(toy('ctdet'), 'val'), load(toy('exdet'), 'val')
    assert plain['images'] == extreme['images']
    for a, b in zip(plain['annotations'], extreme['annotations'], strict=True):
        assert 'extreme_points' not in a and a['bbox'] == b['bbox']
        x, y, w, h = b['bbox']
        top, left, bottom, right = b['extreme_points']
        np.testing.assert_allclose([left[0], top[1], right[0], bottom[1]], [x, y, x + w, y + h], atol=0.02)


@pytest.mark.parametrize(
    ('polygons', 'points'),
    [
        ([[10, 0, 20, 12, 8, 20, 0, 9]], [(10, 0), (0, 9), (8, 20), (20, 12)]),
        ([[0, 0, 10, 0, 10, 6, 0, 6]], [(5, 0), (0, 3), (5, 6), (10, 3)]),
        ([[10, 0, 10, 6, 0, 6, 0, 0, 4, 0, 6, 0]], [(5, 0), (0, 3), (5, 6), (10, 3)]),
        ([[0, 0, 2, 5, 4, 0, 4, 6, 0, 6]], [(0, 0), (0, 3), (2, 6), (4, 3)]),
        ([[0, 2, 4, 2, 4, 6, 0, 6], [8, 2, 10, 2, 9, 9]], [(2, 2), (0, 4), (9, 9), (10, 2)]),
    ],
    ids=['vertices', 'flat sides', 'a side over the seam', 'two peaks are no side', 'two pieces'],
)
def test_extreme_points_of_polygons(polygons, points):
    """A vertex where one touches the box, the midpoint of a (the longest) side where one lies along it."""
    np.testing.assert_allclose(extreme_points(polygons, 50, 50), points)


@pytest.mark.parametrize('packed', [True, False])
def test_extreme_points_of_masks(packed):
    """From an RLE, packed or not, the middle of the outermost run of pixels on each side."""
    mask = np.zeros((12, 15), np.uint8, order='F')
    mask[3:7, 4:9], mask[6, 2:12], mask[9, 5] = 1, 1, 1
    flat = mask.ravel(order='F')
    counts = [len(run) for run in np.split(flat, np.flatnonzero(np.diff(flat)) + 1)]
    rle = coco_mask.encode(mask) if packed else {'size': [12, 15], 'counts': counts}
    np.testing.assert_allclose(extreme_points(rle, 12, 15), [(6, 3), (2, 6), (5, 9), (11, 6)])


@pytest.mark.parametrize(
    'segmentation',
    [None, [], [[1, 2, 3, 4]], [[1, 2, 3, 4, 5, float('nan')]], [['a'] * 6], {'size': [5, 5]}]
    + [{'size': [9, 9], 'counts': [25]}, {'size': [5, 5], 'counts': [25]}],
)
def test_extreme_points_of_nonsense(segmentation):
    """A segmentation that outlines nothing is refused in one line."""
    with pytest.raises(UserError) as refusal:
        extreme_points(segmentation, 5, 5)
    assert '\n' not in str(refusal.value)


def test_people(toy):
    """17 joints: visible, hidden and cut off ones; inside the image and, where seen, inside the box."""
    content = load(toy('multi_pose'), 'train')
    (person,) = content['categories']
    assert len(person['keypoints']) == 17 and np.min(person['skeleton']) >= 1 and np.max(person['skeleton']) == 17
    assert {len(group) for group in by_image(content)} == {1, 2, 3}
    joints = np.array([a['keypoints'] for a in content['annotations']]).reshape(-1, 17, 3)
    states = np.bincount(joints[..., 2].astype(int).ravel(), minlength=3) / joints[..., 2].size
    assert (states > 0.005).all() and states[2] > 0.7
    for annotation, points in zip(content['annotations'], joints, strict=True):
        assert annotation['num_keypoints'] == np.count_nonzero(points[:, 2])
        assert (points[points[:, 2] == 0] == 0).all()
        x, y, w, h = annotation['bbox']
        assert min(x, y) >= 0 and max(x + w, y + h) <= 160
        low, high = points[points[:, 2] > 0, :2].min(0), points[points[:, 2] > 0, :2].max(0)
        assert (low >= (x - 1, y - 1)).all() and (high <= (x + w + 1, y + h + 1)).all()
        assert 0.1 * w * h < annotation['area'] < w * h
        outline = np.concatenate([np.reshape(s, (-1, 2)) for s in annotation['segmentation']])
        np.testing.assert_allclose([*outline.min(0), *np.ptp(outline, axis=0)], [x, y, w, h], atol=1e-6)


def test_left_and_right(toy):
    """Somebody with a face has the left side on our right; seen from behind, on our left and the face hidden."""
    seen = {True: 0, False: 0}
    for annotation in load(toy('multi_pose'), 'train')['annotations']:
        points = np.reshape(annotation['keypoints'], (17, 3))
        if (points[[5, 6, 1], 2] == 0).any():
            continue
        faces_us = bool(points[5, 0] > points[6, 0])
        seen[faces_us] += 1
        assert faces_us or (points[:3, 2] == 1).all()
    assert seen[True] > seen[False] > 0


def test_five_joints(tmp_path):
    """`joints=5` gives the same images with five of the joints."""
    small = {'task': 'multi_pose', 'train': 2, 'val': 1}
    five = load(make_toy_data(tmp_path / '5', joints=5, **small), 'train')
    full = load(make_toy_data(tmp_path / '17', **small), 'train')
    names = full['categories'][0]['keypoints']
    chosen = [names.index(name) for name in five['categories'][0]['keypoints']]
    assert len(chosen) == 5
    for a, b in zip(five['annotations'], full['annotations'], strict=True):
        np.testing.assert_array_equal(np.reshape(a['keypoints'], (5, 3)), np.reshape(b['keypoints'], (17, 3))[chosen])


def test_road(toy):
    """3D boxes project onto the 2D boxes through the image's calibration file; alpha follows from rotation_y."""
    folder = toy('ddd')
    content = load(folder, 'train', 'kitti/annotations/kitti_3dop_{}.json')
    names = [category['name'] for category in content['categories']]
    frames = (folder / 'kitti/ImageSets_3dop/train.txt').read_text().split()
    assert [image['file_name'] for image in content['images']] == [f'{frame}.png' for frame in frames]
    kinds = {names[annotation['category_id'] - 1] for annotation in content['annotations']}
    assert kinds == {'Car', 'Pedestrian', 'Cyclist', 'DontCare'}
    assert {0, 1, 2} <= {annotation['occluded'] for annotation in content['annotations']}
    for image, group in zip(content['images'], by_image(content), strict=True):
        frame = Path(image['file_name']).stem
        camera = read_calib(folder / f'kitti/training/calib/{frame}.txt')
        np.testing.assert_allclose(camera, image['calib'], rtol=1e-5)
        pixels = cv2.imread(str(folder / 'kitti/images/trainval' / image['file_name']))
        assert pixels.shape == (image['height'], image['width'], 3) == (192, 640, 3)
        labels = (folder / f'kitti/training/label_2/{frame}.txt').read_text().splitlines()
        assert labels == [label_line(names[annotation['category_id'] - 1], annotation) for annotation in group]
        for annotation in group:
            if names[annotation['category_id'] - 1] != 'DontCare':
                check_3d(annotation, camera)


def check_3d(annotation: dict, camera: np.ndarray) -> None:
    corners = compute_box_3d(annotation['dim'], annotation['location'], annotation['rotation_y'])
    points = project_to_image(corners, camera)
    low, high = (np.clip(edge, 0, (639, 191)) for edge in (points.min(0), points.max(0)))
    np.testing.assert_allclose([*low, *(high - low)], annotation['bbox'], atol=0.05)
    assert annotation['depth'] == annotation['location'][2] and annotation['truncated'] <= 0.3
    ray = np.arctan2(annotation['location'][0], annotation['depth'])
    turn = annotation['rotation_y'] - ray - annotation['alpha']
    assert abs(np.sin(turn)) < 0.01 and np.cos(turn) > 0 and abs(annotation['alpha']) <= np.pi + 0.01


def test_label_line():
    """A label has KITTI's 15 fields in their order."""
    annotation = {'bbox': [1, 2, 30, 40], 'alpha': 0.5, 'truncated': 0.25, 'occluded': 1}
    annotation |= {'dim': [1.5, 1.6, 3.9], 'location': [-2, 1.65, 20], 'rotation_y': 0.4}
    expected = 'Car 0.25 1 0.50 1.00 2.00 31.00 42.00 1.50 1.60 3.90 -2.00 1.65 20.00 0.40'
    assert label_line('Car', annotation) == expected


@pytest.mark.parametrize(
    'arguments',
    [{'task': 'none'}, {'train': 0}, {'size': 20}, {'seed': -1}, {'classes': 9}, {'colors': 'blue'}]
    + [{'joints': 5}, {'task': 'multi_pose', 'joints': 9}, {'task': 'ddd', 'classes': 3}],
)
def test_refusals(tmp_path, arguments):
    """An argument that is out of range or not for the task is refused, and nothing is written."""
    with pytest.raises(UserError):
        make_toy_data(tmp_path / 'toy', **{'train': 1, 'val': 1} | arguments)
    assert not (tmp_path / 'toy').exists()


def test_other_data_stays(tmp_path):
    """Annotations that are not toy data are never replaced; toy data is."""
    make_toy_data(tmp_path, train=2, val=1)
    make_toy_data(tmp_path, train=1, val=1)
    assert len(load(tmp_path, 'train')['images']) == 1
    own = tmp_path / 'annotations' / 'val.json'
    own.write_text('{"images": []}')
    with pytest.raises(UserError, match='stays as it is'):
        make_toy_data(tmp_path, train=1, val=1)
    assert own.read_text() == '{"images": []}' and len(load(tmp_path, 'train')['images']) == 1


def test_tool(tool, tmp_path):
    """The command draws what it is asked for, and ends a mistake with one line and status 1."""
    chosen = ('--train', 2, '--val', 1, '--size', '96x64', '--classes', 5, '--seed', 3)
    tool('make_toy_data', tmp_path / 'toy', *chosen)
    content = load(tmp_path / 'toy', 'train')
    assert [(image['width'], image['height']) for image in content['images']] == [(96, 64)] * 2
    assert len(content['categories']) == 5
    failed = tool('make_toy_data', tmp_path / 'toy', '--task', 'ddd', '--joints', 5, code=1)
    assert failed == 'error: toy data for ddd has no joints to choose'
    assert "'96by64' is no size" in tool('make_toy_data', tmp_path / 'toy', '--size', '96by64', code=1)


def test_converters_agree(toy, tool, tmp_path):
    """The project's own tools make the same annotations from the toy segmentations and KITTI files."""
    tool('gen_coco_extreme_points', toy('ctdet') / 'annotations/train.json', tmp_path / 'exdet.json')
    expected = [a['extreme_points'] for a in load(toy('exdet'), 'train')['annotations']]
    assert [a['extreme_points'] for a in load(tmp_path, 'exdet', '{}.json')['annotations']] == expected

    tool('convert_kitti_to_coco', toy('ddd') / 'kitti', tmp_path / 'kitti', '--link')
    pattern = 'kitti/annotations/kitti_3dop_{}.json'
    converted, drawn = load(tmp_path, 'val', pattern), load(toy('ddd'), 'val', pattern)
    facts = ('dim', 'depth', 'alpha', 'location', 'rotation_y', 'truncated', 'occluded', 'bbox')
    assert len(converted['annotations']) == len(drawn['annotations']) > 0
    for a, b in zip(converted['annotations'], drawn['annotations'], strict=True):
        assert (a['category_id'], a['image_id']) == (b['category_id'], b['image_id'])
        for fact in facts:
            np.testing.assert_allclose(a[fact], b[fact], atol=0.011)
    for a, b in zip(converted['images'], drawn['images'], strict=True):
        assert (a['id'], a['file_name']) == (b['id'], b['file_name'])
        np.testing.assert_allclose(a['calib'], b['calib'], rtol=1e-5)


@pytest.mark.parametrize(
    ('task', 'place'), [('ddd', 'kitti/training/label_2/000000.txt'), ('ctdet', 'images/train/1.jpg')]
)
def test_images_of_others_are_left_alone(tmp_path, task, place):
    """A folder with images or labels that no toy annotations belong to is refused; an interrupted run's is not."""
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).write_text('mine')
    with pytest.raises(UserError, match='stay as they are'):
        make_toy_data(tmp_path, task=task, train=1, val=1)
    assert (tmp_path / place).read_text() == 'mine'
    root = tmp_path / 'kitti' if task == 'ddd' else tmp_path
    (root / '.toy_data').write_text('{}')
    make_toy_data(tmp_path, task=task, train=1, val=1)
