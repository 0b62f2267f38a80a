"""YOLO folders through convert_yolo_to_coco."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from .case import Case, read_strictly, tool
from .coco import assert_boxes, boxes_of_file, write_image
from .mutations import break_alike, break_bytes, break_file, break_files, break_text, pick

IMAGES, SIDE = 6, 100
LINES = '0 0.5 0.5 0.2 0.4\n1 0.25 0.25 0.1 0.2\n'
BOXES = [[40, 30, 20, 40], [20, 15, 10, 20]]  # x y w h of LINES in pixels
YAML = 'path: .\ntrain: images/train\nval: images/val\nnc: 2\nnames:\n  0: blue\n  1: red\n'
YAMLS = ['names: [blue, red]\n', 'names: {1: red, 0: blue}\n', 'names:\n- blue # sky\n- "red"\n', YAML]


def make_base(folder: Path) -> None:
    """A folder with images, labels and data.yaml."""
    for split in ('train', 'val'):
        for i in range(IMAGES):
            write_image(folder / f'images/{split}/{split}{i}.png', SIDE, SIDE, i)
            path = folder / f'labels/{split}/{split}{i}.txt'
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(LINES)
    (folder / 'data.yaml').write_text(YAML)


def make_case(rng: np.random.Generator, base: Path, folder: Path) -> Case:
    """One broken label file, image or data.yaml."""
    data, output = folder / 'data', folder / 'output'
    shutil.copytree(base, data)
    name = f'{pick(rng, ["train", "val"])}{rng.integers(IMAGES)}'
    split = name[:-1]
    kind = pick(rng, ['label'] * 4 + ['all', 'all'] + ['yaml'] * 3 + ['image', 'folder'])
    if kind == 'label':
        note = break_file(rng, data / f'labels/{split}/{name}.txt', break_text)
    elif kind == 'all':
        note = break_alike(rng, data, 'labels/*/*.txt', break_text)
    elif kind == 'image':
        note = break_file(rng, data / f'images/{split}/{name}.png', break_bytes)
    elif kind == 'yaml':
        (data / 'data.yaml').write_text(pick(rng, YAMLS))
        note = break_file(rng, data / 'data.yaml', break_text)
    else:
        note = break_files(rng, data)
    arguments = pick(rng, [[], [], ['--link'], ['--classes', 'blue', 'red']])

    def check(_: Any, shown: str) -> None:
        found, classes = {}, set()
        for path in (output / 'annotations').glob('*.json'):
            found |= boxes_of_file(path)
            classes.add(tuple(category['name'] for category in read_strictly(path)['categories']))
        for image in found:
            assert (output / 'images' / image).is_file(), f'{image} is listed but not there'
        assert any(found.values()), 'no object is left'
        assert len(classes) == 1, f'the splits have other classes: {classes}'
        if kind in ('label', 'image'):
            assert classes == {('blue', 'red')}, classes
            names = [f'{each}{i}' for each in ('train', 'val') for i in range(IMAGES)]
            assert_boxes({f'{each}.png': BOXES for each in names if each != name}, found, 'convert_yolo_to_coco')

    program = tool('convert_yolo_to_coco', data, output, *arguments)
    return Case(f'convert_yolo_to_coco {" ".join(arguments)}: {note}', program, check, [data], output)
