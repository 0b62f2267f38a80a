"""KITTI folders: convert_kitti_to_coco and eval_kitti."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from .case import Case, read_strictly, tool
from .coco import assert_boxes, boxes_of_file, write_image
from .mutations import break_alike, break_bytes, break_file, break_files, break_text, pick

FRAMES, WIDTH, HEIGHT = 12, 160, 60
LABELS = (
    'Car 0.25 2 1.85 37.63 11.54 73.81 33.12 1.67 1.87 3.69 -16.53 2.39 58.49 1.57\n'
    'Pedestrian 0.00 0 -0.20 80.40 14.00 101.10 57.92 1.89 0.48 1.20 1.84 1.47 8.41 0.01\n'
    'DontCare -1 -1 -10 3.89 1.71 10.61 10.13 -1 -1 -1 -1000 -1000 -1000 -10\n'
)
BOXES = [[37.63, 11.54, 36.18, 21.58], [80.40, 14.00, 20.70, 43.92]]  # x y w h
CALIBRATION = 'P0: 700 0 60 0 0 700 17 0 0 0 1 0\nP2: 700 0 60 45 0 700 17 -0.5 0 0 1 0.005\n'


def make_base(folder: Path) -> None:
    """training/ with its frames, lists of the frames, and results that are right."""
    frames = [f'{i:06d}' for i in range(FRAMES)]
    results = ''.join(f'{line} 0.9\n' for line in LABELS.splitlines()[:2])
    contents = {'training/label_2': LABELS, 'training/calib': CALIBRATION, 'results': results}
    for place, text in contents.items():
        (folder / place).mkdir(parents=True)
        for frame in frames:
            (folder / place / f'{frame}.txt').write_text(text)
    for i, frame in enumerate(frames):
        write_image(folder / f'training/image_2/{frame}.png', WIDTH, HEIGHT, i)
    (folder / 'ImageSets_3dop').mkdir()
    for split, part in (('train', frames[:6]), ('val', frames[6:])):
        (folder / f'ImageSets_3dop/{split}.txt').write_text('\n'.join(part) + '\n')


def make_case(rng: np.random.Generator, base: Path, folder: Path) -> Case:
    """One broken label, calibration, list, image or result."""
    data, output = folder / 'data', folder / 'output'
    shutil.copytree(base, data)
    output.mkdir()
    frame = f'{rng.integers(FRAMES):06d}'
    evaluated = rng.random() < 0.4
    places = ['training/label_2', 'results'] if evaluated else ['training/label_2', 'training/calib']
    kind = pick(rng, [*places, *places, *places, 'all', 'image', 'list', 'folder'])
    if kind in places:
        note = f'{kind} ' + break_file(rng, data / kind / f'{frame}.txt', break_text)
    elif kind == 'all':
        note = break_alike(rng, data, f'{pick(rng, places)}/*.txt', break_text)
    elif kind == 'image':
        note = break_file(rng, data / f'training/image_2/{frame}.png', break_bytes)
    elif kind == 'list':
        note = break_file(rng, data / f'ImageSets_3dop/{pick(rng, ["train", "val"])}.txt', break_text)
    else:
        note = break_files(rng, data)
    if evaluated:
        return evaluation(data, output, note)

    def check(_: Any, shown: str) -> None:
        found = {}
        for path in (output / 'annotations').glob('*.json'):
            found |= boxes_of_file(path)
        assert any(found.values()), 'no object is left'
        if kind not in ('all', 'list', 'folder'):
            whole = [f'{i:06d}' for i in range(FRAMES) if f'{i:06d}' != frame]
            assert_boxes({f'{each}.png': BOXES for each in whole}, found, 'convert_kitti_to_coco')

    return Case(f'convert_kitti_to_coco: {note}', tool('convert_kitti_to_coco', data, output), check, [data], output)


def evaluation(data: Path, output: Path, note: str) -> Case:
    """eval_kitti."""
    metrics = output / 'metrics.json'

    def check(_: Any, shown: str) -> None:
        values = [value for row in read_strictly(metrics).values() for value in numbers_in(row)]
        assert values and all(-1 <= value <= 100 for value in values), f'the metrics are {values}'

    program = tool('eval_kitti', data / 'training/label_2', data / 'results', '--json', metrics)
    return Case(f'eval_kitti: {note}', program, check, [data], output)


def numbers_in(value: Any) -> list[float]:
    """Return all numbers in nested dicts and lists."""
    if isinstance(value, dict):
        return numbers_in(list(value.values()))
    return [number for item in value for number in numbers_in(item)] if isinstance(value, list) else [value]
