"""Own data: any folder in one of the formats of `formats`, such as COCO's, YOLO's or VOC's."""

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ...utils.errors import UserError
from ..annotations import Annotations, Share
from ..categories import IGNORED_FOR_ALL, Categories, check_category
from ..index import AnnotationIndex
from ..source import BOXES, EXTREME_POINTS, JOINTS, SOLID_BOXES, Source
from .formats import open_folder
from .formats.splits import WHOLE

if TYPE_CHECKING:
    from ...opts import Options

logger = logging.getLogger(__name__)

LEAST_SLOTS, SLOT_STEP = 32, 16  # of the targets


class Custom(Source):
    """A folder of own data; classes, names, ids and joints come from its annotation files."""

    offers = (BOXES, JOINTS, EXTREME_POINTS, SOLID_BOXES)  # whether the files have them, the task's sample finds

    def __init__(
        self, folder: str, choose_categories: Callable[[list[dict], str], Categories], needs: Sequence[str] = ()
    ):
        """Read the facts of a folder.

        Args:
            folder: its path.
            choose_categories: given the categories and the path of their file, what a task makes of them.
            needs: what the task needs of the annotations.

        Raises:
            UserError: the folder is in no format or in several, or there is no usable category, or the task lacks
                something.
        """
        self.format = open_folder(folder, needs)
        if said := self.format.description():
            logger.info('%s', said)
        path = self.format.first_part().place
        rows = [dict(check_category(row, path)) for row in self.format.categories()]
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
        self.joint_names = categories.joints.get('joint_names')
        self.flip_idx = categories.joints.get('flip_idx')
        self.skeleton = categories.joints.get('skeleton')

    def locate(self, opt: 'Options', split: str, variant: str = '') -> tuple[str, str]:
        """Return the paths of the annotation file and of the images folder of a split, as `Source.locate`."""
        return self.part(opt, split).place, self.format.image_dir

    def has(self, opt: 'Options', split: str, variant: str = '') -> bool:
        """Return whether there are images of a split, or a share of them to take; see `Source.has`."""
        parts = self.format.found
        there = split in parts or 'train' in parts or WHOLE in parts
        return there and super().has(opt, split, variant)

    def annotations_of(self, opt: 'Options', split: str, variant: str = '') -> list[Annotations]:
        """Return the annotations of a split; when training with `--trainval` those of val too."""
        if not (opt.trainval and split == 'train'):
            return [self.part(opt, split)]
        logger.info('--trainval: training on the images of train and of val')
        return [self.part(opt, 'train'), self.part(opt, 'val')]

    def part(self, opt: 'Options', split: str) -> Annotations:
        """Return the annotations of a split; those of 'test' are those of 'val' where the folder has none.

        Raises:
            UserError: the folder has no images for the split.
        """
        parts = self.format.found
        if split == 'test' and 'test' not in parts:
            split = 'val'
        if split in parts and (split != 'train' or 'val' in parts):
            return parts[split]
        undivided = parts.get('train') or parts.get(WHOLE)
        if undivided is None:
            raise UserError(
                f"'{self.format.folder}' has no images for {split} ({self.format.name}: {self.format.contents()})"
            )
        return Share(undivided, split, opt.val_share)

    def check(self, annotations: Annotations) -> None:
        """Refuse annotations that number their categories otherwise than those of the class facts."""
        if not annotations.is_coco:  # of one list of names for all parts
            return
        for row in annotations.categories():
            category = check_category(row, annotations.place)
            cls = self.cat_ids.get(category['id'], -1)
            if cls >= 0 and category['name'] != self.class_names[cls]:
                raise UserError(
                    f"'{annotations.place}' calls category {category['id']} '{category['name']}', but "
                    f"'{self.format.first_part().place}' calls it '{self.class_names[cls]}': number them alike"
                )

    def slots(self, index: AnnotationIndex) -> int:
        """Return the most objects on one image, rounded up to `SLOT_STEP`, at least `LEAST_SLOTS`."""
        most = int(index.counts().max())
        return max(LEAST_SLOTS, -(-most // SLOT_STEP) * SLOT_STEP)
