"""The converters and evaluators of src/tools, each run as a user runs it."""

import importlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from conftest import SRC
from tools import convert_hourglass_weight as converter

FIXTURE = Path(__file__).parent / 'fixtures' / 'kitti_eval'
TOOLS = {
    'convert_voc_to_coco': ['nowhere', 'out'],
    'convert_yolo_to_coco': ['nowhere', 'out'],
    'merge_pascal_json': ['nowhere.json', 'out.json'],
    'convert_kitti_to_coco': ['nowhere', 'out'],
    'gen_coco_extreme_points': ['nowhere.json', 'out.json'],
    'convert_hourglass_weight': ['nowhere.pkl', 'out.pth'],
    'eval_coco': ['nowhere.json', 'results.json'],
    'eval_coco_hp': ['nowhere.json', 'results.json'],
    'eval_voc': ['nowhere.json', 'results.json'],
    'eval_kitti': ['nowhere', 'results'],
    'calc_coco_overlap': ['nowhere.json'],
    'vis_pred': ['nowhere.json', 'results.json', 'images'],
    'make_toy_data': [f'{__file__}/nowhere'],
    'inspect_data': ['--dataset', 'nowhere'],
}


def write_image(path, width=40, height=30):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((height, width, 3), 99, np.uint8))


def write_text(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def voc_xml(name, objects, size=(40, 30)):
    items = ''.join(
        f'<object><name>{label}</name><difficult>{difficult}</difficult><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>'
        f'<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>'
        for label, (x1, y1, x2, y2), difficult in objects
    )
    return (
        f'<annotation><filename>{name}.png</filename><size><width>{size[0]}</width><height>{size[1]}</height></size>'
        f'{items}</annotation>'
    )


def read(path):
    return json.loads(Path(path).read_text())


@pytest.mark.parametrize('name', TOOLS)
def test_help_and_wrong_path(tool, tmp_path, name):
    """Guards that a tool prints its use, and answers a wrong path with one line and status 1, writing nothing."""
    assert 'usage' in tool(name, '--help')
    assert 'nowhere' in tool(name, *TOOLS[name], code=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('path', sorted((SRC / 'tools').glob('[!_]*.py')), ids=lambda path: path.stem)
def test_wrong_arguments(monkeypatch, capsys, path):
    """Guards that a missing argument and a misspelled option end in one line, which says what to do, and status 1."""
    program = importlib.import_module(f'tools.{path.stem}')
    for args, words in (([], 'required'), ([*TOOLS[path.stem], '--hlep'], "'--hlep'; did you mean '--help'?")):
        monkeypatch.setattr('sys.argv', [str(path), *args])
        with pytest.raises(SystemExit) as stop:
            program.run_cli(program.main)
        said = capsys.readouterr()
        assert stop.value.code == 1 and said.err.startswith('error: ') and said.err.count('\n') == 1, said
        assert words in said.err


def make_voc(folder, count=10):
    for i in range(count):
        write_image(folder / 'images' / f'p{i}.png')
        boxes = [('dog', (1, 1, 21, 11), 0), ('cat', (5, 6, 15, 26), 1)]
        write_text(folder / 'annotations' / f'p{i}.xml', voc_xml(f'p{i}', boxes))


def test_voc(tool, tmp_path):
    """Guards the conversion of VOC: 0-based boxes, sorted classes, `ignore`, a fifth for val, the same each time."""
    make_voc(tmp_path / 'voc')
    tool('convert_voc_to_coco', 'voc', 'own')
    train, val = read(tmp_path / 'own/annotations/train.json'), read(tmp_path / 'own/annotations/val.json')
    assert (len(train['images']), len(val['images'])) == (8, 2)
    assert train['categories'] == [{'id': 1, 'name': 'cat'}, {'id': 2, 'name': 'dog'}]
    dog, cat = train['annotations'][:2]
    assert (dog['category_id'], dog['bbox'], dog['ignore']) == (2, [0, 0, 20, 10], 0)
    assert (cat['category_id'], cat['bbox'], cat['ignore']) == (1, [4, 5, 10, 20], 1)
    image = train['images'][0]
    assert (image['width'], image['height']) == (40, 30)
    assert (tmp_path / 'own/images' / image['file_name']).read_bytes() == (
        tmp_path / 'voc/images' / image['file_name']
    ).read_bytes()
    tool('convert_voc_to_coco', 'voc', 'again', '--link')
    assert read(tmp_path / 'again/annotations/val.json') == val
    tool('convert_voc_to_coco', 'voc', 'other', '--seed', '1')
    assert read(tmp_path / 'other/annotations/val.json') != val


def test_links_leave_the_source_alone(tool, tmp_path):
    """Guards --link: the images are links, and the user's own files keep their permissions."""
    make_voc(tmp_path / 'voc')
    for path in (tmp_path / 'voc/images').iterdir():
        path.chmod(0o444)
    tool('convert_voc_to_coco', 'voc', 'own', '--link')
    links = list((tmp_path / 'own/images').iterdir())
    assert len(links) == 10 and all(link.is_symlink() for link in links)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / 'voc/images').iterdir()} == {0o444}


def test_voc_split_files_and_classes(tool, tmp_path):
    """Guards ImageSets lists (which name the outputs), unknown names in them, and --classes."""
    make_voc(tmp_path / 'voc', 12)
    write_text(tmp_path / 'sets/train.txt', '\n'.join([f'p{i}' for i in range(10)] + ['absent']))
    write_text(tmp_path / 'sets/val.txt', 'p11 1\n')
    args = ['--split_file', 'sets/train.txt', 'sets/val.txt', '--classes', 'dog']
    assert 'absent' in tool('convert_voc_to_coco', 'voc', 'own', *args)
    train, val = read(tmp_path / 'own/annotations/train.json'), read(tmp_path / 'own/annotations/val.json')
    assert [image['file_name'] for image in train['images']] == [f'p{i}.png' for i in range(10)]
    assert [image['file_name'] for image in val['images']] == ['p11.png']
    assert train['categories'] == [{'id': 1, 'name': 'dog'}] and len(train['annotations']) == 10


def test_voc_survives_bad_data(tool, tmp_path):
    """Guards that broken XML, missing and damaged images and bad boxes are named; a lying size is corrected."""
    make_voc(tmp_path / 'voc', 36)
    folder = tmp_path / 'voc/annotations'
    write_text(folder / 'p0.xml', '<annotation><filename>')
    write_text(folder / 'gone.xml', voc_xml('gone', []))
    boxes = [
        ('dog', (20, 5, 10, 9), 0),
        ('dog', (7, 7, 7, 9), 0),
        ('dog', (30, 20, 99, 99), 0),
        ('dog', ('x', 1, 2, 3), 0),
    ]
    write_text(folder / 'p1.xml', voc_xml('p1', boxes, size=(500, 500)))
    write_image(tmp_path / 'voc/images/hurt.png')
    hurt = (tmp_path / 'voc/images/hurt.png').read_bytes()
    (tmp_path / 'voc/images/hurt.png').write_bytes(hurt[: len(hurt) // 2])
    write_text(folder / 'hurt.xml', voc_xml('hurt', []))
    printed = tool('convert_voc_to_coco', 'voc', 'own', '--val_fraction', '0.3')
    for name in ('p0.xml', 'gone.xml', 'hurt.png', '2 boxes', '1 objects left out'):
        assert name in printed
    rows = [read(tmp_path / f'own/annotations/{split}.json') for split in ('train', 'val')]
    sizes = {(image['width'], image['height']) for coco in rows for image in coco['images']}
    assert sizes == {(40, 30)}
    boxes = [row['bbox'] for coco in rows for row in coco['annotations']]
    assert len(boxes) == 2 * 34 + 1 and [29, 19, 11, 11] in boxes  # clipped to the image


def test_same_names_from_two_folders(tool, tmp_path):
    """Guards that images of one name from two VOC folders do not overwrite each other."""
    for folder, width in (('a', 40), ('b', 44)):
        write_image(tmp_path / folder / 'p.png', width=width)
        write_text(tmp_path / folder / 'p.xml', voc_xml('p', [('dog', (1, 1, 9, 9), 0)]))
    tool('convert_voc_to_coco', 'a', 'b', 'own', '--val_fraction', '0.5')
    images = [
        image for split in ('train', 'val') for image in read(tmp_path / f'own/annotations/{split}.json')['images']
    ]
    assert {image['width'] for image in images} == {40, 44}
    for image in images:
        assert cv2.imread(str(tmp_path / 'own/images' / image['file_name'])).shape[1] == image['width']


@pytest.mark.parametrize(
    'names',
    [
        'names: [\'a cat\', "dog"]',
        'names: [a cat, dog]',
        'names:\n- a cat\n- dog\nnc: 2',
        'names:\n  0: a cat  # x\n  1: dog',
    ],
)
def test_yolo(tool, tmp_path, names):
    """Guards YOLO's formats: every way to write names, boxes in parts of the image, bad lines, background images."""
    write_text(tmp_path / 'yolo/data.yaml', f'train: images/train\n{names}\n')
    for split in ('train', 'val'):
        write_image(tmp_path / f'yolo/images/{split}/1.png')
        write_image(tmp_path / f'yolo/images/{split}/empty.png')
        good = '1 0.5 0.5 0.25 0.2\n' * 30
        write_text(tmp_path / f'yolo/labels/{split}/1.txt', f'{good}0 0.5 0.5\n7 0.5 0.5 0.1 0.1\n0 0.5 0.5 0 0.1\n')
    printed = tool('convert_yolo_to_coco', 'yolo', 'own')
    assert '1.txt:31' in printed and 'class 7' in printed and '2 boxes' in printed
    train = read(tmp_path / 'own/annotations/train.json')
    assert train['categories'] == [{'id': 1, 'name': 'a cat'}, {'id': 2, 'name': 'dog'}]
    assert len(train['images']) == 2
    assert [(row['category_id'], row['bbox']) for row in train['annotations']] == [(2, [15, 12, 10, 6])] * 30
    assert len(list((tmp_path / 'own/images').iterdir())) == 4


def test_yolo_without_split(tool, tmp_path):
    """Guards undivided YOLO folders with classes.txt, and that missing names are an error with a way out."""
    for i in range(5):
        write_image(tmp_path / f'yolo/images/{i}.png')
        write_text(tmp_path / f'yolo/labels/{i}.txt', '0 0.5 0.5 0.5 0.5\n')
    assert '--classes' in tool('convert_yolo_to_coco', 'yolo', 'own', code=1)
    write_text(tmp_path / 'yolo/classes.txt', 'raccoon\n')
    tool('convert_yolo_to_coco', 'yolo', 'own')
    assert [len(read(tmp_path / f'own/annotations/{split}.json')['images']) for split in ('train', 'val')] == [4, 1]


def test_merge_pascal_json(tool, tmp_path):
    """Guards the merge: no id is lost to a collision, categories go by name, doubled images are named."""

    def coco(files, categories):
        return {
            'images': [{'id': i, 'file_name': name} for i, name in files],
            'annotations': [
                {'id': i, 'image_id': i, 'category_id': categories[0][0], 'bbox': [i, 0, 5, 5]} for i, _ in files
            ],
            'categories': [{'id': i, 'name': name} for i, name in categories],
        }

    write_text(tmp_path / 'a.json', json.dumps(coco([(1, 'a1'), (2, 'a2')], [(1, 'cat'), (2, 'dog')])))
    write_text(tmp_path / 'b.json', json.dumps(coco([(2, 'b2'), (3, 'b3'), (4, 'a1')], [(1, 'dog'), (2, 'cow')])))
    assert 'a1' in tool('merge_pascal_json', 'a.json', 'b.json', 'merged.json')
    merged = read(tmp_path / 'merged.json')
    assert [image['file_name'] for image in merged['images']] == ['a1', 'a2', 'b2', 'b3']
    assert len({image['id'] for image in merged['images']}) == len({row['id'] for row in merged['annotations']}) == 4
    names = {category['id']: category['name'] for category in merged['categories']}
    files = {image['id']: image['file_name'] for image in merged['images']}
    assert sorted(names.values()) == ['cat', 'cow', 'dog']
    objects = [(files[row['image_id']], names[row['category_id']], row['bbox'][0]) for row in merged['annotations']]
    assert objects == [('a1', 'cat', 1), ('a2', 'cat', 2), ('b2', 'dog', 2), ('b3', 'dog', 3)]


CAR = 'Car 0.25 2 1.85 387.63 181.54 423.81 203.12 1.67 1.87 3.69 -16.53 2.39 58.49 1.57\n'
DONT_CARE = 'DontCare -1 -1 -10 503.89 169.71 590.61 190.13 -1 -1 -1 -1000 -1000 -1000 -10\n'
KITTI_LABELS = f'{CAR}{DONT_CARE}{CAR * 20}Car 0.00 0\n'  # the last line is cut short


def make_kitti(folder, frames=12):
    for i in range(frames):
        write_image(folder / f'training/image_2/{i:06d}.png', 600, 210)
        write_text(folder / f'training/label_2/{i:06d}.txt', KITTI_LABELS)
        write_text(folder / f'training/calib/{i:06d}.txt', 'P0: 1\nP2: 700 0 600 45 0 700 170 -0.5 0 0 1 0.005\n')


def test_kitti_without_image_sets(tool, tmp_path):
    """Guards the fields of KITTI's annotations, all frames with a split drawn, and that bad lines are named."""
    make_kitti(tmp_path / 'raw')
    (tmp_path / 'raw/training/calib/000003.txt').unlink()
    printed = tool('convert_kitti_to_coco', 'raw', 'kitti', '--split', 'subcnn')
    assert '000000.txt:23' in printed and '000003' in printed
    folder = tmp_path / 'kitti/annotations'
    subsets = [len(read(folder / f'kitti_subcnn_{subset}.json')['images']) for subset in ('train', 'val')]
    assert sum(subsets) == 11 and min(subsets) > 0
    coco = read(folder / 'kitti_trainval.json')
    assert [category['name'] for category in coco['categories']][::8] == ['Pedestrian', 'DontCare']
    np.testing.assert_allclose(
        coco['images'][0]['calib'], [[700, 0, 600, 45], [0, 700, 170, -0.5], [0, 0, 1, 0.005]], rtol=1e-6
    )
    assert len(list((tmp_path / 'kitti/images/trainval').iterdir())) == 11
    car, dont_care = coco['annotations'][:2]
    expected = {
        'image_id': 0,
        'category_id': 2,
        'bbox': [387.63, 181.54, 36.18, 21.58],
        'dim': [1.67, 1.87, 3.69],
        'depth': 58.49,
        'alpha': 1.85,
        'truncated': 0.25,
        'occluded': 2,
        'location': [-16.53, 2.39, 58.49],
        'rotation_y': 1.57,
    }
    assert {key: car[key] for key in expected} == expected
    assert dont_care['category_id'] == 9


def test_kitti_image_sets(tool, tmp_path):
    """Guards the lists of both published splits, and the test set, which has no labels."""
    make_kitti(tmp_path / 'kitti')
    (tmp_path / 'kitti/training/label_2/000002.txt').rename(tmp_path / 'kitti/training/label_2/absent.txt')
    write_image(tmp_path / 'kitti/testing/image_2/000007.png')
    write_text(tmp_path / 'kitti/testing/calib/000007.txt', 'P2: 700 0 600 45 0 700 170 -0.5 0 0 1 0.005\n')
    numbered = '\n'.join(f'{i:06d}' for i in range(3, 12))
    lists = {'3dop/train': numbered, '3dop/val': '000001\n000002', 'subcnn/train': '000001', '3dop/test': '000007'}
    for name, frames in lists.items():
        write_text(tmp_path / f'kitti/ImageSets_{name}.txt', frames + '\n')
    tool('convert_kitti_to_coco', 'kitti')
    ids = {
        path.stem: [image['id'] for image in read(path)['images']]
        for path in (tmp_path / 'kitti/annotations').iterdir()
    }
    assert ids == {
        'kitti_3dop_train': [*range(3, 12)],
        'kitti_3dop_val': [1],
        'kitti_subcnn_train': [1],
        'kitti_test': [7],
    }
    assert (tmp_path / 'kitti/images/test/000007.png').is_file()


def test_extreme_points(tool, tmp_path):
    """Guards the extreme points of polygons and masks, the default name, and objects without segmentation."""
    flat = [10, 10, 30, 10, 35, 20, 20, 30, 5, 22]  # its top side is flat: the midpoint counts
    mask = np.zeros((30, 40), np.uint8)
    mask[4:9, 6:11] = 1
    runs = np.flatnonzero(np.diff(mask.ravel(order='F'), prepend=0)).tolist()
    counts = np.diff([0, *runs, mask.size]).tolist()
    rows = [
        {'id': 1, 'segmentation': [flat], 'bbox': [5, 10, 30, 20]},
        {'id': 2, 'segmentation': {'size': [30, 40], 'counts': counts}, 'bbox': [6, 4, 5, 5]},
        {'id': 3, 'bbox': [1, 1, 5, 5]},
    ]
    coco = {
        'images': [{'id': 1, 'file_name': 'a.png', 'width': 40, 'height': 30}],
        'annotations': [row | {'image_id': 1, 'category_id': 1} for row in rows],
        'categories': [{'id': 1, 'name': 'a'}],
    }
    write_text(tmp_path / 'instances_val.json', json.dumps(coco))
    assert '(ids): 3' in tool('gen_coco_extreme_points', 'instances_val.json')
    first, second, third = read(tmp_path / 'instances_extreme_val.json')['annotations']
    assert first['extreme_points'] == [[20, 10], [5, 22], [20, 30], [35, 20]]
    assert second['extreme_points'] == [[8, 4], [6, 6], [8, 8], [10, 6]]
    assert 'extreme_points' not in third
    write_text(tmp_path / 'val.json', json.dumps(coco))
    assert 'OUTPUT' in tool('gen_coco_extreme_points', 'val.json', code=1)


def test_hourglass_weights(tool, tmp_path):
    """Guards the new names of an ExtremeNet checkpoint: `ct_heats` is not mistaken for `t_heats`."""
    backbone = ('pre.0.conv', 'kps.0.up1.0.conv1', 'cnvs.0.conv', 'inters.0.conv1', 'inters_.0.0', 'cnvs_.0.0')
    heads = ('t_heats.0.1', 'ct_heats.1.0.conv', 'r_regrs.0.1')
    old = [f'module.{name}.weight' for name in (*backbone, *heads, 'tl_tags.0.1')]
    torch.save({name: torch.full((2,), float(i)) for i, name in enumerate(old)}, tmp_path / 'old.pkl')
    assert 'tl_tags' in tool('convert_hourglass_weight', 'old.pkl', 'new.pth')
    checkpoint = torch.load(tmp_path / 'new.pth', weights_only=True)
    new = (*backbone, 'hm_t.0.1', 'hm_c.1.0.conv', 'reg_r.0.1')
    assert {name: int(value[0]) for name, value in checkpoint['state_dict'].items()} == {
        f'{name}.weight': i for i, name in enumerate(new)
    }


def test_hourglass_refuses_other_files(tmp_path):
    """Guards one-line errors for another network's checkpoint, one cut short, and one that holds code."""
    path = tmp_path / 'file.pth'
    torch.save({'state_dict': {'conv1.weight': torch.zeros(2)}}, path)
    weights = converter.load_checkpoint(path)['state_dict']
    with pytest.raises(converter.UserError, match='not an ExtremeNet'):
        converter.convert(weights)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(converter.UserError, match='cut short'):
        converter.load_checkpoint(path)
    torch.save({'state_dict': Path('code')}, path)
    with pytest.raises(converter.UserError, match='holds code'):
        converter.load_checkpoint(path)


def test_score_saved_results(tool, tmp_path):
    """Guards the three evaluators of results.json: perfect detections score 1, in the file as well."""
    joints = [10, 10, 2] * 17
    row = {'image_id': 1, 'category_id': 1, 'bbox': [5, 5, 20, 20], 'keypoints': joints}
    coco = {
        'images': [{'id': 1, 'file_name': 'a.png'}],
        'annotations': [row | {'id': 1, 'area': 4000}],
        'categories': [{'id': 1, 'name': 'person'}],
    }
    write_text(tmp_path / 'truth.json', json.dumps(coco))
    write_text(tmp_path / 'results.json', json.dumps([row | {'score': 0.5}]))
    for name, keys in (('eval_coco', ['AP', 'AP/person']), ('eval_coco_hp', ['kp_AP', 'AP']), ('eval_voc', ['mAP'])):
        assert 'AP' in tool(name, 'truth.json', 'results.json', '--json', f'{name}.json')
        metrics = read(tmp_path / f'{name}.json')
        assert [metrics[key] for key in keys] == pytest.approx([1] * len(keys))
    write_text(tmp_path / 'broken.json', '{"a": 1}')
    assert 'results file' in tool('eval_coco', 'truth.json', 'broken.json', code=1)


def test_eval_coco_hp_scores_as_training_does(tool, tmp_path):
    """Guards own sigmas, and that boxes of classes without joints count neither as found nor as missed."""
    row = {'image_id': 1, 'category_id': 1, 'bbox': [5, 5, 20, 20], 'keypoints': [10, 10, 2] * 5}
    ball = {'id': 2, 'image_id': 1, 'category_id': 2, 'bbox': [50, 50, 9, 9]}
    found = [row | {'score': 0.5, 'keypoints': [13, 10, 2] * 5}]
    write_text(tmp_path / 'results.json', json.dumps(found))
    for sigma, value in ((1, 1), (0.001, 0)):
        person = {'id': 1, 'name': 'person', 'keypoints': [*'abcde'], 'sigmas': [sigma] * 5}
        coco = {'images': [{'id': 1, 'file_name': 'a.png'}], 'annotations': [row | {'id': 1, 'area': 4000}, ball]}
        coco['categories'] = [person, {'id': 2, 'name': 'ball'}]
        write_text(tmp_path / 'truth.json', json.dumps(coco))
        tool('eval_coco_hp', 'truth.json', 'results.json', '--json', 'metrics.json')
        metrics = read(tmp_path / 'metrics.json')
        assert (metrics['kp_AP'], metrics['AP']) == pytest.approx((value, 1)) and 'AP/ball' not in metrics


def test_eval_kitti(tool, tmp_path):
    """Guards eval_kitti's table and its JSON, which has the structure of the official metrics."""
    assert 'car_3d' in tool('eval_kitti', FIXTURE / 'label_2', FIXTURE / 'results', '--json', 'metrics.json')
    assert read(tmp_path / 'metrics.json').keys() == read(FIXTURE / 'expected.json').keys()


def test_calc_coco_overlap(tool, tmp_path):
    """Guards the counting of pairs: a shared cell and a high overlap, within an image and class only."""
    places = [  # image, class, box
        (1, 1, [0, 0, 10, 10]),
        (1, 1, [1, 1, 10, 10]),  # near the first: IoU .68, centres (5, 5) and (6, 6) in one cell
        (1, 2, [0, 0, 10, 10]),
        (2, 1, [0, 0, 10, 10]),
        (2, 1, [-20, -20, 51, 51]),  # shares the cell, but is much larger
    ]
    coco = {
        'images': [{'id': 1, 'file_name': 'a'}, {'id': 2, 'file_name': 'b'}],
        'annotations': [
            {'id': i, 'image_id': a, 'category_id': c, 'bbox': box} for i, (a, c, box) in enumerate(places)
        ],
        'categories': [{'id': 1, 'name': 'a'}, {'id': 2, 'name': 'b'}],
    }
    write_text(tmp_path / 'truth.json', json.dumps(coco))
    printed = tool('calc_coco_overlap', 'truth.json').splitlines()
    assert [int(line.split()[0]) for line in printed] == [5, 2, 1]
