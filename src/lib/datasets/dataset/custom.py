"""Own data: any folder with `annotations/train.json`, `annotations/val.json` (COCO format) and `images/`."""

import os
from argparse import Namespace
from pathlib import Path

import numpy as np

from ...utils.errors import UserError
from ..evaluation.kitti_eval import figure_names
from ..index import read_coco
from ..kitti_files import field_name
from ..source import Source
from .kitti import IGNORED_FOR_ALL


class Custom(Source):
    """A folder of own data; `custom_source` makes the class for one folder."""

    tasks = ('ctdet', 'exdet', 'multi_pose', 'ddd')
    folder = ''

    def __init__(self, opt: Namespace, split: str):
        super().__init__(opt, split)
        most = int(self.index.counts().max())
        self.max_objs = max(32, -(-most // 16) * 16)

    @classmethod
    def locate(cls, opt: Namespace, split: str) -> tuple[str, str]:
        root = Path(cls.folder)
        annotations = root / 'annotations' / f'{"val" if split == "test" else split}.json'
        return str(annotations), str(root / 'images')

    @classmethod
    def further_files(cls, opt: Namespace, split: str) -> list[str]:
        if not (opt.trainval and split == 'train'):
            return []
        print('--trainval: training on train.json and val.json')
        return [cls.locate(opt, 'val')[0]]


def custom_source(folder: str, task: str) -> type[Custom]:
    """The source class of a folder: classes, names, ids and joints come from its annotation file.

    Raises:
        UserError: no annotation file, no usable category, or (multi_pose) no joints or several categories with joints.
    """
    folder = os.path.abspath(folder)
    path = annotation_file(folder)
    categories = [category_of(row, path) for row in read_coco(path).get('categories', [])]
    others, ignored = frozenset(), {}
    if task == 'multi_pose':
        others = frozenset(category['id'] for category in categories if not category.get('keypoints'))
        categories = [category for category in categories if category.get('keypoints')]
        if len(categories) != 1:
            raise UserError(f"multi_pose needs one category with 'keypoints' in '{path}', found {len(categories)}")
    if task == 'ddd':
        ignored = {each['id']: IGNORED_FOR_ALL for each in categories if each['name'].lower() == 'dontcare'}
        categories = [category for category in categories if category['id'] not in ignored]
    if not categories:
        raise UserError(f"'{path}' lists no categories")
    if len({category['id'] for category in categories}) < len(categories):
        raise UserError(f"'{path}' lists a category id twice")
    facts = {
        'folder': folder,
        'class_names': [category['name'] for category in categories],
        'cat_ids': {category['id']: i for i, category in enumerate(categories)} | ignored,
        'other_categories': others,
        '__doc__': f'Own data in {folder}.',
        '__module__': __name__,
    }
    if task == 'multi_pose':
        facts.update(joint_facts(categories[0], path))
    if task == 'ddd':
        names = [field_name(name).lower() for name in facts['class_names']]
        first = 'car' if 'car' in names else names[0]
        facts.update(metrics=figure_names(names), main_metric=f'{first}_3d_moderate_AP40')
    return type('Custom', (Custom,), facts)


def annotation_file(folder: str) -> str:
    """The file that tells the folder's classes: train.json, or val.json where there is no other."""
    files = [os.path.join(folder, 'annotations', f'{split}.json') for split in ('train', 'val')]
    for path in files:
        if os.path.exists(path):
            return path
    raise UserError(f"own data in '{folder}' needs '{files[0]}' and '{files[1]}' (COCO format)")


def category_of(row: dict, path: str) -> dict:
    if not isinstance(row.get('id'), int) or not isinstance(row.get('name'), str):
        raise UserError(f"'{path}': a category needs an integer id and a name, found {row}")
    return row


def joint_facts(category: dict, path: str) -> dict:
    """Joints, limbs, left/right pairs and OKS sigmas of a category (data.md, api.md "Own data with joints")."""
    names = category['keypoints']
    count = len(names)
    skeleton = [[a - 1, b - 1] for a, b in category.get('skeleton', [])]
    pairs = category.get('flip_pairs')
    pairs = pairs_by_name(names) if pairs is None else [list(pair) for pair in pairs]
    sigmas = category.get('sigmas')
    for what, indices in (('skeleton', skeleton), ('flip_pairs', pairs)):
        if any(not 0 <= i < count for pair in indices for i in pair):
            raise UserError(f"'{path}': {what} names a joint that is not among the {count} keypoints")
    if sigmas is not None and len(sigmas) != count:
        raise UserError(f"'{path}': {len(sigmas)} sigmas for {count} keypoints")
    return {
        'num_joints': count,
        'skeleton': skeleton,
        'flip_idx': pairs,
        'sigmas': None if sigmas is None else np.array(sigmas, np.float64),
    }


def pairs_by_name(names: list[str]) -> list[list[int]]:
    """Left/right pairs of joints named `left_X` and `right_X`."""
    at = {name: i for i, name in enumerate(names)}
    return [
        [i, at['right_' + name[len('left_') :]]]
        for i, name in enumerate(names)
        if name.startswith('left_') and 'right_' + name[len('left_') :] in at
    ]
