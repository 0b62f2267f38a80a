"""Base of the sources: where the images and annotations of a dataset lie, and the facts of its classes."""

import os
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .annotations import Annotations, CocoFile

if TYPE_CHECKING:
    from ..opts import Options
    from .index import AnnotationIndex

# Kinds of annotations: a source offers some, a task needs some.
BOXES, JOINTS, EXTREME_POINTS, SOLID_BOXES = 'boxes', 'joints', 'extreme points', '3D boxes'


class Source:
    """Where a dataset's files lie, and the facts of its classes.

    A source neither reads nor scores: `TaskDataset` reads its files as a task's sample needs them. A subclass gives
    the facts below and `locate`, and perhaps other methods. Facts of built-in datasets are class attributes.

    Attributes:
        offers: what the annotations hold, of `BOXES`, `JOINTS`, `EXTREME_POINTS`, `SOLID_BOXES`.
        metric: name of the dataset's official metric in `metric_factory`; '' leaves the choice to the task.
        class_names: names of the classes 0 to C - 1. num_classes: C.
        cat_ids: category id of the files -> class, or one of the negative kinds of categories.py.
        other_categories: ids of categories whose objects are left out.
        default_resolution: [h, w] of the network input.
        mean, std (float32 [1, 1, 3]): of the channels B, G, R on [0, 1].
        max_objs: slots of the targets.
        num_joints, flip_idx, skeleton: number of joints, their left/right pairs and their limbs (0-based), or None.
        joint_names: names of the joints, or None.
    """

    offers: ClassVar[tuple[str, ...]] = ()
    metric: str = ''
    class_names: list[str]
    num_classes: int
    cat_ids: dict[int, int]
    other_categories: frozenset[int] = frozenset()
    default_resolution: ClassVar[list[int]] = [512, 512]
    mean = np.array([0.40789654, 0.44719302, 0.47026115], np.float32).reshape(1, 1, 3)
    std = np.array([0.28863828, 0.27408164, 0.27809835], np.float32).reshape(1, 1, 3)
    max_objs = 128
    num_joints: int | None = None
    joint_names: list[str] | None = None
    flip_idx: list[list[int]] | None = None
    skeleton: list[list[int]] | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if 'class_names' in vars(cls):
            cls.num_classes = len(cls.class_names)

    def locate(self, opt: 'Options', split: str, variant: str = '') -> tuple[str, str]:
        """Return the paths of the annotation file and of the images folder of a split.

        Args:
            opt: options; `data_dir` and the like are read.
            split: 'train', 'val' or 'test'.
            variant: ending of the name of annotation files with what a task needs beyond the usual ones, such as
                `instances_extreme` beside `instances`; sources with one file a split ignore it.
        """
        raise NotImplementedError

    def has(self, opt: 'Options', split: str, variant: str = '') -> bool:
        """Return whether there are annotations of a split; arguments as `locate` takes them."""
        return os.path.exists(self.locate(opt, split, variant)[0])

    def further_files(self, opt: 'Options', split: str) -> list[str]:
        """Return annotation files beyond the one of `split` that belong to it too, of images in the same folder."""
        return []

    def annotations_of(self, opt: 'Options', split: str, variant: str = '') -> list[Annotations]:
        """Return the annotations of a split, and after them further ones that belong to it too.

        By default these are the COCO-format files that `locate` and `further_files` name.
        """
        return [CocoFile(path) for path in (self.locate(opt, split, variant)[0], *self.further_files(opt, split))]

    def check(self, annotations: Annotations) -> None:
        """Raise a `UserError` if annotations contradict the facts."""

    def arrange(self, index: 'AnnotationIndex', split: str) -> 'AnnotationIndex':
        """Choose and order the images of a split; by default all, in the file's order."""
        return index

    def slots(self, index: 'AnnotationIndex') -> int:
        """Return the number of slots of the targets; by default `max_objs`."""
        return self.max_objs

    def label_folder(self, opt: 'Options') -> str | None:
        """Return the folder of the images' KITTI label files, if there is one."""
        return None
