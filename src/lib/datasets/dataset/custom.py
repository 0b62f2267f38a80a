"""Own data: any folder with `annotations/train.json`, `annotations/val.json` (COCO format) and `images/`."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ...utils.errors import UserError
from ..categories import IGNORED_FOR_ALL, Categories, check_category
from ..coco_file import read_categories
from ..index import AnnotationIndex
from ..source import BOXES, EXTREME_POINTS, JOINTS, SOLID_BOXES, Source
from ..source_factory import annotation_file

if TYPE_CHECKING:
    from ...opts import Options

logger = logging.getLogger(__name__)

LEAST_SLOTS, SLOT_STEP = 32, 16  # of the targets


class Custom(Source):
    """A folder of own data; classes, names, ids and joints come from its annotation file."""

    offers = (BOXES, JOINTS, EXTREME_POINTS, SOLID_BOXES)  # whether the file has them, the task's sample finds

    def __init__(self, folder: str, choose_categories: Callable[[list[dict], str], Categories]):
        """Read the facts of a folder.

        Args:
            folder: its path.
            choose_categories: given the file's categories and the file's path, what a task makes of them.

        Raises:
            UserError: there is no annotation file, or no usable category, or the task lacks something.
        """
        self.folder = os.path.abspath(folder)
        path = annotation_file(self.folder)
        rows = [dict(check_category(row, path)) for row in read_categories(path)]
        if len({row['id'] for row in rows}) < len(rows):
            raise UserError(f"'{path}' lists a category id twice")
        categories = choose_categories(rows, path)
        if not categories.learnt:
            raise UserError(f"'{path}' lists no categories")
        self.class_names = [row['name'] for row in categories.learnt]
        self.num_classes = len(self.class_names)
        self.cat_ids = {row['id']: cls for cls, row in enumerate(categories.learnt)}
        self.cat_ids |= dict.fromkeys(categories.ignored, IGNORED_FOR_ALL)
        self.other_categories = categories.others
        self.num_joints = categories.joints.get('num_joints')
        self.flip_idx = categories.joints.get('flip_idx')
        self.skeleton = categories.joints.get('skeleton')

    def locate(self, opt: 'Options', split: str, variant: str = '') -> tuple[str, str]:
        """Return the paths of the annotation file and of the images folder of a split, as `Source.locate`."""
        root = Path(self.folder)
        annotations = root / 'annotations' / f'{"val" if split == "test" else split}.json'
        return str(annotations), str(root / 'images')

    def further_files(self, opt: 'Options', split: str) -> list[str]:
        """Return val.json too when training with `--trainval`."""
        if not (opt.trainval and split == 'train'):
            return []
        logger.info('--trainval: training on train.json and val.json')
        return [self.locate(opt, 'val')[0]]

    def check_file(self, path: str) -> None:
        """Refuse a file that numbers its categories otherwise than the file of the class facts."""
        for row in read_categories(path):
            category = check_category(row, path)
            cls = self.cat_ids.get(category['id'], -1)
            if cls >= 0 and category['name'] != self.class_names[cls]:
                raise UserError(
                    f"'{path}' calls category {category['id']} '{category['name']}', but "
                    f"'{annotation_file(self.folder)}' calls it '{self.class_names[cls]}': number them alike"
                )

    def slots(self, index: AnnotationIndex) -> int:
        """Return the most objects on one image, rounded up to `SLOT_STEP`, at least `LEAST_SLOTS`."""
        most = int(index.counts().max())
        return max(LEAST_SLOTS, -(-most // SLOT_STEP) * SLOT_STEP)
