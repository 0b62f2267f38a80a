"""Own data: any folder with `annotations/train.json`, `annotations/val.json` (COCO format) and `images/`."""

import os
from argparse import Namespace
from pathlib import Path

from ...utils.errors import UserError
from ..evaluation.coco_eval import own_sigmas
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
        self.check_categories()
        most = int(self.index.counts().max())
        self.max_objs = max(32, -(-most // 16) * 16)

    def check_categories(self) -> None:
        """The split numbers its categories as the file that told the class facts.

        Raises:
            UserError: an id means another class here.
        """
        for row in read_coco(self.annotation_file).get('categories', []):
            category = category_of(row, self.annotation_file)
            cls = self.cat_ids.get(category['id'], -1)
            if cls >= 0 and category['name'] != self.class_names[cls]:
                raise UserError(
                    f"'{self.annotation_file}' calls category {category['id']} '{category['name']}', but "
                    f"'{annotation_file(self.folder)}' calls it '{self.class_names[cls]}': number them alike"
                )

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
    """The file that tells the folder's classes: train.json, or val.json where there is no other.

    Raises:
        UserError: there is neither.
    """
    files = [os.path.join(folder, 'annotations', f'{split}.json') for split in ('train', 'val')]
    for path in files:
        if os.path.exists(path):
            return path
    raise UserError(f"own data in '{folder}' needs '{files[0]}' and '{files[1]}' (COCO format)")


def category_of(row: dict, path: str) -> dict:
    """A category of the file `path` as it is, once it is checked.

    Raises:
        UserError: it has no integer id or no name.
    """
    if not isinstance(row.get('id'), int) or not isinstance(row.get('name'), str):
        raise UserError(f"'{path}': a category needs an integer id and a name, found {row}")
    return row


def joint_facts(category: dict, path: str) -> dict:
    """Joints, limbs and left/right pairs of a category.

    `keypoints` (names) and `skeleton` (pairs from 1) are COCO's keys. Optional are `flip_pairs` (pairs from 0; else the
    names `left_X` and `right_X` tell them) and `sigmas`, which evaluation reads.

    Raises:
        UserError: one of them is of another form; names the file.
    """
    names = category['keypoints']
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"'{path}': expected 'keypoints' of '{category['name']}' to be a list of names, found {names}")
    count = len(names)
    skeleton = joint_pairs(category.get('skeleton') or [], 1, count, f"'{path}': skeleton")
    pairs = category.get('flip_pairs')
    pairs = pairs_by_name(names) if pairs is None else joint_pairs(pairs, 0, count, f"'{path}': flip_pairs")
    if len({joint for pair in pairs for joint in pair}) < 2 * len(pairs):
        raise UserError(f"'{path}': flip_pairs names a joint twice")
    try:
        own_sigmas(category, count)  # what the metric would refuse after training is refused before it
    except UserError as error:
        raise UserError(f"'{path}': {error}") from None
    return {'num_joints': count, 'skeleton': skeleton, 'flip_idx': pairs}


def joint_pairs(value: object, first: int, count: int, what: str) -> list[list[int]]:
    """Pairs of `count` joints, counted from `first` in the file, as pairs of 0-based ones.

    Raises:
        UserError: they are no such pairs; begins with `what`.
    """
    valid = isinstance(value, list) and all(
        isinstance(pair, list)
        and len(pair) == 2
        and all(isinstance(i, int) and first <= i < first + count for i in pair)
        for pair in value
    )
    if not valid:
        raise UserError(f'{what}: expected pairs of joints from {first} to {first + count - 1}, found {value}')
    return [[a - first, b - first] for a, b in value]


def pairs_by_name(names: list[str]) -> list[list[int]]:
    """Left/right pairs of joints named `left_X` and `right_X`."""
    at = {name: i for i, name in enumerate(names)}
    return [
        [i, at['right_' + name[len('left_') :]]]
        for i, name in enumerate(names)
        if name.startswith('left_') and 'right_' + name[len('left_') :] in at
    ]
