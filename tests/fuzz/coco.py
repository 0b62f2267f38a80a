"""COCO files: own data in training, and the tools that read annotation files."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from centernet.datasets.dataset_factory import get_dataset
from centernet.opts import opts

from .case import Case, read_strictly, tool
from .mutations import break_bytes, break_file, break_files, break_json, json_bytes, pick, rows_of

IMAGES, PER_IMAGE, SIDE = 6, 4, 96
TRAINING = ['--gpus', '-1', '--num_workers', '0', '--arch', 'res_18', '--pretrained', 'none', '--input_res', '64']
CALIB = [[100.0, 0, 48, 0], [0, 100, 48, 0], [0, 0, 1, 0]]


def annotated(first_image: int = 1) -> dict[str, Any]:
    """Return a COCO object whose annotations have what every task wants: boxes, joints, extreme points, solid boxes."""
    images, annotations = [], []
    for image_id in range(first_image, first_image + IMAGES):
        name = f'{image_id}.png'
        images.append({'id': image_id, 'file_name': name, 'width': SIDE, 'height': SIDE, 'calib': CALIB})
        for place in range(PER_IMAGE):
            x, y, w, h = 8 + 40 * (place % 2), 8 + 40 * (place // 2), 20 + place + image_id % 7, 30 - place
            corners = [x, y, x + w, y, x + w, y + h, x, y + h]
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'image_id': image_id,
                    'category_id': 1 + place % 2,
                    'bbox': [x, y, w, h],
                    'area': w * h,
                    'iscrowd': 0,
                    'segmentation': [corners],
                    'extreme_points': [[x + 5, y], [x, y + 5], [x + 5, y + h], [x + w, y + 5]],
                    'keypoints': [x + 5, y + 5, 2, x + 9, y + 9, 2, x + 12, y + 3, 1],
                    'num_keypoints': 3,
                    'dim': [1.5, 1.6, 3.9],
                    'location': [0.5, 1.5, 20.0],
                    'depth': 20.0,
                    'alpha': 0.3,
                    'rotation_y': 0.2,
                }
            )
    person = {'id': 1, 'name': 'person', 'keypoints': ['nose', 'left_eye', 'right_eye'], 'skeleton': [[1, 2], [1, 3]]}
    categories = [person, {'id': 2, 'name': 'dog'}]
    return {'info': {}, 'images': images, 'annotations': annotations, 'categories': categories}


def make_base(folder: Path) -> None:
    """A folder of own data; train and val have images of their own."""
    for split, first in (('train', 1), ('val', 101)):
        coco = annotated(first)
        path = folder / f'annotations/{split}.json'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(json_bytes(coco))
        for image in coco['images']:
            write_image(folder / 'images' / image['file_name'], SIDE, SIDE, image['id'])


def write_image(path: Path, width: int, height: int, seed: int = 0) -> None:
    """A PNG of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    assert cv2.imwrite(str(path), pixels)


def make_case(rng: np.random.Generator, base: Path, folder: Path) -> Case:
    """Return a broken annotation file, image or folder, through training's data check or one of the tools."""
    data, output = folder / 'data', folder / 'output'
    shutil.copytree(base, data)
    train = data / 'annotations/train.json'
    kind = pick(rng, ['values'] * 6 + ['image', 'folder'])
    if kind == 'values':
        note = break_file(rng, train, break_json)
    elif kind == 'image':
        note = break_file(rng, data / f'images/{rng.integers(1, IMAGES + 1)}.png', break_bytes)
    else:
        note = break_files(rng, data)
    program = pick(rng, [*(use_in_training,) * 4, overlap, merge, extreme_points, score])
    case = program(rng, data, output, kind == 'values')
    case.description += f': {note}'
    case.inputs = [data]
    return case


# ------------------------------------------------------------------------------------------- what must stay whole


def untouched_boxes(path: Path, first_image: int = 1) -> dict[str, list[list[float]]]:
    """{file name: boxes x y w h} of the images and annotations that a plain reader finds as they were written.

    Empty when the categories have changed, or ids are no longer unique: then little can be said.
    """
    base = annotated(first_image)
    data = path.read_bytes() if path.is_file() else b''
    images, annotations = rows_of(data, 'images'), rows_of(data, 'annotations')
    if images is None or annotations is None or rows_of(data, 'categories') != base['categories']:
        return {}
    ids = [image.get('id') for image in images if isinstance(image, dict)]
    known = {row['id']: row for row in base['images'] if row in images and ids.count(row['id']) == 1}
    if sum(str(name).strip() in map(str, known) for name in ids) > len(known):
        return {}
    boxes: dict[str, list] = {row['file_name']: [] for row in known.values()}
    for row in base['annotations']:
        if row in annotations and row['image_id'] in known:
            boxes[known[row['image_id']]['file_name']].append(row['bbox'])
    return boxes


def assert_boxes(expected: dict[str, list], found: dict[str, list], of: str) -> None:
    """Every expected image has all of its boxes."""
    for name, boxes in expected.items():
        if not boxes:
            continue
        assert name in found, f'{of}: the image {name}, which is whole, is lost'
        for box in boxes:
            assert any(np.allclose(box, other, atol=0.02) for other in found[name]), f'{of}: {name} lost its box {box}'


def boxes_of_file(path: Path) -> dict[str, list]:
    """{file name: boxes} of a written COCO file."""
    coco = read_strictly(path)
    names = {image['id']: image['file_name'] for image in coco['images']}
    boxes: dict[str, list] = {name: [] for name in names.values()}
    for row in coco['annotations']:
        if isinstance(row, dict) and row.get('image_id') in names and 'bbox' in row:
            boxes[names[row['image_id']]].append(row['bbox'])
    return boxes


# -------------------------------------------------------------------------------------------------------- programs


def use_in_training(rng: np.random.Generator, data: Path, output: Path, whole_images: bool) -> Case:
    """Parse options, read the data, take two samples."""
    task = pick(rng, ['ctdet', 'ctdet', 'multi_pose', 'exdet', 'ddd'])

    def program() -> Any:
        opt = opts().parse([task, '--dataset', str(data), '--exp_dir', str(output), *TRAINING])
        dataset_class = get_dataset(opt.dataset, opt.task)
        opts.update_dataset_info_and_set_heads(opt, dataset_class)
        dataset = dataset_class(opt, 'train')
        np.random.seed(0)
        return dataset, [dataset[i] for i in sorted({0, len(dataset) - 1})]

    def check(result: Any, shown: str) -> None:
        dataset, samples = result
        for sample in samples:
            assert_finite(sample)
        index = dataset.index
        assert np.isfinite(index.boxes[index.valid]).all(), 'an object that counts has no finite box'
        if whole_images and task in ('ctdet', 'exdet'):
            found = {}
            for i in range(len(index)):
                objects = index.objects(i)
                boxes = objects.boxes[objects.valid]
                found[index.name(i)] = np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]).tolist()
            assert_boxes(untouched_boxes(Path(dataset.annotation_file)), found, f'training of {task}')

    return Case(f'training of {task}', program, check)


def assert_finite(value: Any) -> None:
    """All arrays and tensors in nested dicts and lists are finite."""
    if isinstance(value, dict):
        for item in value.values():
            assert_finite(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            assert_finite(item)
    elif isinstance(value, torch.Tensor):
        assert value.isfinite().all(), 'a sample is not finite'
    elif isinstance(value, np.ndarray) and value.dtype.kind == 'f':
        assert np.isfinite(value).all(), 'a sample is not finite'


def overlap(rng: np.random.Generator, data: Path, output: Path, whole_images: bool) -> Case:
    """calc_coco_overlap."""

    def check(_: Any, shown: str) -> None:
        expected = sum(map(len, untouched_boxes(data / 'annotations/train.json').values()))
        number = int(re.search(r'^(\d+) objects$', shown, re.MULTILINE)[1])
        assert number >= expected, f'{number} objects counted, {expected} are whole'

    return Case('calc_coco_overlap', tool('calc_coco_overlap', data / 'annotations/train.json'), check)


def merge(rng: np.random.Generator, data: Path, output: Path, whole_images: bool) -> Case:
    """merge_pascal_json."""
    files, merged = [data / f'annotations/{split}.json' for split in ('train', 'val')], output / 'merged.json'

    def check(_: Any, shown: str) -> None:
        found = boxes_of_file(merged)
        for path, first in zip(files, (1, 101), strict=True):
            assert_boxes(untouched_boxes(path, first), found, 'merge_pascal_json')

    return Case('merge_pascal_json', tool('merge_pascal_json', *files, merged), check, output=output)


def extreme_points(rng: np.random.Generator, data: Path, output: Path, whole_images: bool) -> Case:
    """gen_coco_extreme_points."""
    source, written = data / 'annotations/train.json', output / 'extreme.json'

    def check(_: Any, shown: str) -> None:
        before = rows_of(source.read_bytes(), 'annotations') or []
        after = read_strictly(written)['annotations']
        for row in annotated()['annotations']:
            if before.count(row) == 1:
                x, y, w, h = row['bbox']
                known = {key: value for key, value in row.items() if key != 'extreme_points'}
                same = [other for other in after if isinstance(other, dict) and known.items() <= other.items()]
                assert same, f'the annotation {row["id"]}, which is whole, is lost or changed'
                top, left, bottom, right = same[0]['extreme_points']
                assert (top[1], left[0], bottom[1], right[0]) == (y, x, y + h, x + w), same[0]['extreme_points']

    return Case('gen_coco_extreme_points', tool('gen_coco_extreme_points', source, written), check, output=output)


def score(rng: np.random.Generator, data: Path, output: Path, whole_images: bool) -> Case:
    """eval_coco with all that train.json says when it is whole as results."""
    truth, results = data / 'annotations/train.json', data / 'results.json'
    rows = [{key: row[key] for key in ('image_id', 'category_id', 'bbox')} for row in annotated()['annotations']]
    results.write_text(json.dumps([row | {'score': 0.9} for row in rows]))
    metrics = output / 'metrics.json'
    output.mkdir()
    return Case('eval_coco', tool('eval_coco', truth, results, '--json', metrics), output=output)
