"""Toy data: a real, small problem for each task, drawn from a seed."""

import inspect
import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np

from ...utils.cli import track
from ...utils.errors import UserError
from ...utils.files import read_json, write_json
from .folders import KittiFolder, OwnFolder
from .people import PeopleScenes
from .road import RoadScenes
from .shapes import ExtremeShapeScenes, ShapeScenes

# Task -> (what draws its images, how they lie on disk, width and height).
KINDS: dict[str, tuple[type[Any], type[Any], tuple[int, int]]] = {
    'ctdet': (ShapeScenes, OwnFolder, (160, 160)),
    'exdet': (ExtremeShapeScenes, OwnFolder, (160, 160)),
    'multi_pose': (PeopleScenes, OwnFolder, (160, 160)),
    'ddd': (RoadScenes, KittiFolder, (640, 192)),
}
SMALLEST = 64  # pixels a side
DESCRIPTION = 'CenterNet toy data'
MARKER = '.toy_data'  # written first: what lies here may be replaced


def make_toy_data(
    out_dir: str | os.PathLike,
    task: str = 'ctdet',
    train: int = 600,
    val: int = 100,
    size: int | tuple[int, int] | None = None,
    seed: int = 0,
    **options: int | str,
) -> Path:
    """Draw a data set of `train` and `val` images into a folder.

    Picture i of a split is drawn from (seed, split, i) alone: the same call gives the same files, and the two splits
    share no image. The annotations are written last, so that a folder cut short is not taken for a whole one.

    Args:
        out_dir: for `ddd` a `--data_dir` with `kitti/` in it, otherwise a folder for `--dataset`.
        task: 'ctdet' (shapes), 'exdet' (the same with extreme points), 'multi_pose' (people) or 'ddd' (a road).
        train, val: how many images.
        size: width and height in pixels, or one number for both; by default 160, for `ddd` 640 x 192.
        seed: 0 or more.
        options: what the task's images take: `classes` (1 to 8) and `colors` ('random' or 'class') for shapes,
            `joints` (17 or 5) for people.

    Returns:
        `out_dir`.

    Raises:
        UserError: an argument is out of range or not for this task, or the folder holds other annotations.
    """
    if task not in KINDS:
        raise UserError(f"toy data is for the tasks {', '.join(KINDS)}; found '{task}'")
    scene_class, folder_class, default_size = KINDS[task]
    width, height = (size, size) if isinstance(size, int) else size or default_size
    if min(train, val) < 1 or seed < 0 or min(width, height) < SMALLEST:
        raise UserError(
            f'toy data needs 1 or more images a split, a seed of 0 or more and {SMALLEST} pixels or more a '
            f'side; found {train} train, {val} val, seed {seed}, {width} x {height}'
        )
    for name in options.keys() - inspect.signature(scene_class).parameters.keys():
        raise UserError(f'toy data for {task} has no {name} to choose')
    scenes, folder = scene_class(**options), folder_class(Path(out_dir))
    files = [folder.annotation_file(split) for split in ('train', 'val')]
    marker = folder.root / MARKER
    if folder.holds_images() and not marker.exists() and not any(file.exists() for file in files):
        raise UserError(f"'{folder.root}' holds images of others, which stay as they are: choose another folder")
    clear(files)
    write_json(marker, {'description': DESCRIPTION})
    info = {'description': DESCRIPTION, 'task': task, 'seed': seed, **options}
    image_ids, annotation_ids = itertools.count(folder.first_id), itertools.count(1)
    for number, (split, count) in enumerate({'train': train, 'val': val}.items()):
        images, annotations = [], []
        for index in track(range(count), f'drawing {split}'):
            scene = scenes.draw(np.random.default_rng([seed, number, index]), width, height)
            image_id = next(image_ids)
            name = folder.name(split, image_id)
            folder.add(name, scene)
            entry = {'id': image_id, 'file_name': name, 'width': width, 'height': height}
            images.append(entry | scene.facts)
            for annotation in scene.annotations:
                annotations.append({'id': next(annotation_ids), 'image_id': image_id, **annotation})
        folder.finish(split, [image['file_name'] for image in images])
        content = {'images': images, 'annotations': annotations, 'categories': scenes.categories}
        write_json(folder.annotation_file(split), {'info': info, **content})
    return Path(out_dir)


def clear(annotation_files: list[Path]) -> None:
    """Remove the annotations of earlier toy data; refuse, before any is gone, to replace others."""
    earlier = [file for file in annotation_files if file.exists()]
    for file in earlier:
        content = read_json(file)
        info = content.get('info') if isinstance(content, dict) else None
        if not isinstance(info, dict) or info.get('description') != DESCRIPTION:
            raise UserError(f"'{file}' is not toy data and stays as it is: choose another folder")
    for file in earlier:
        file.unlink()
