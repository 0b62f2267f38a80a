"""Folders of own data in other formats, read by training as they are."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from centernet.datasets.dataset_factory import get_dataset
from centernet.opts import opts

from . import voc, yolo
from .case import Case
from .coco import TRAINING, annotated, assert_boxes, assert_finite, write_image
from .mutations import break_bytes, break_file, break_files, break_json, break_text, pick

BOX, SIDE = [10, 12, 30, 24], 64  # x y w h of labelme's objects, and their images


def make_labelme(folder: Path) -> None:
    """labelme's files beside their images."""
    x, y, w, h = BOX
    for i in range(6):
        write_image(folder / f'{i}.png', SIDE, SIDE, i)
        shapes = [{'label': 'dog', 'shape_type': 'rectangle', 'points': [[x, y], [x + w, y + h]], 'group_id': None}]
        content = {'shapes': shapes, 'imagePath': f'{i}.png', 'imageWidth': SIDE, 'imageHeight': SIDE}
        (folder / f'{i}.json').write_text(json.dumps(content))


def make_roboflow(folder: Path) -> None:
    """COCO files beside their images, with a root of the categories."""
    for split, first in (('train', 1), ('valid', 101)):
        content = annotated(first)
        below = [row | {'supercategory': 'all'} for row in content['categories']]
        content['categories'] = [{'id': 0, 'name': 'all'}, *below]
        (folder / split).mkdir(parents=True)
        (folder / split / '_annotations.coco.json').write_text(json.dumps(content))
        for image in content['images']:
            write_image(folder / split / image['file_name'], image['width'], image['height'], image['id'])


def make_cvat(folder: Path) -> None:
    """CVAT's two files with their images."""
    for kind in ('instances', 'person_keypoints'):
        (folder / 'annotations').mkdir(parents=True, exist_ok=True)
        (folder / f'annotations/{kind}_default.json').write_text(json.dumps(annotated()))
    for image in annotated()['images']:
        write_image(folder / 'images/default' / image['file_name'], image['width'], image['height'], image['id'])


LAYOUTS: dict[str, tuple[Callable[[Path], None], str, Any]] = {  # what makes it, its label files, and how they break
    'labelme': (make_labelme, '*.json', break_json),
    'roboflow': (make_roboflow, '*/*.json', break_json),
    'cvat': (make_cvat, 'annotations/*.json', break_json),
    'voc': (voc.make_base, 'Annotations/*.xml', voc.break_xml),
    'yolo': (yolo.make_base, 'labels/*/*.txt', break_text),
    'yaml': (yolo.make_base, 'data.yaml', break_text),
}
WHOLE = {  # boxes of each image where its own files are whole and those of all images are
    'labelme': lambda name: [BOX],
    'voc': lambda name: voc.BOXES,
    'yolo': lambda name: yolo.BOXES,
}


def make_base(folder: Path) -> None:
    """A folder of each layout."""
    for name, (make, _, _) in LAYOUTS.items():
        make(folder / name)


def make_case(rng: np.random.Generator, base: Path, folder: Path) -> Case:
    """One label file, image or list broken, or a file or folder gone or of another kind."""
    layout = pick(rng, list(LAYOUTS))
    data = folder / 'data'
    shutil.copytree(base / layout, data)
    _, pattern, how = LAYOUTS[layout]
    kind = pick(rng, ['label', 'label', 'image', 'folder'])
    touched = ''
    if kind == 'label':
        path = pick(rng, sorted(data.glob(pattern)))
        note, touched = break_file(rng, path, how), path.stem
    elif kind == 'image':
        path = pick(rng, sorted(data.rglob('*.png')))
        note, touched = break_file(rng, path, break_bytes), path.stem
    else:
        note = break_files(rng, data)
    task = pick(rng, ['ctdet', 'ctdet', 'multi_pose', 'exdet'])

    def program() -> Any:
        get_dataset.cache_clear()
        opt = opts().parse([task, '--dataset', str(data), '--exp_dir', str(folder / 'exp'), *TRAINING])
        dataset_class = get_dataset(opt.dataset, opt.task)
        opts.update_dataset_info_and_set_heads(opt, dataset_class)
        datasets = [dataset_class(opt, split) for split in ('train', 'val')]
        return datasets, [datasets[0][i] for i in sorted({0, len(datasets[0]) - 1})]

    def check(result: Any, shown: str) -> None:
        datasets, samples = result
        assert_finite(samples)
        found: dict[str, list] = {}
        for dataset in datasets:
            for i in range(len(dataset)):
                objects = dataset.index.objects(i)
                boxes = objects.boxes[objects.valid]
                found[os.path.basename(dataset.index.name(i))] = np.hstack(
                    [boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]
                ).tolist()
        if task == 'ctdet' and kind != 'folder' and layout in WHOLE:
            names = [path.name for path in data.rglob('*.png') if path.stem != touched]
            assert_boxes({name: WHOLE[layout](name) for name in names}, found, f'{layout} read by {task}')

    return Case(f'{layout} read by {task}: {note}', program, check, [data])
