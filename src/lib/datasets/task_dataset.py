"""A dataset: the files of a source, read as a task needs them, and scored by a metric."""

import logging
import os
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from torch.utils.data import Dataset

from ..utils.errors import UserError
from ..utils.files import write_json
from ..utils.rows import Box
from ..utils.words import plural
from .annotations import Annotations
from .categories import Categories
from .evaluation.metric import Columns, Metric, Results
from .evaluation.metric_factory import create_metric
from .index import AnnotationIndex, build_index
from .source import Source

if TYPE_CHECKING:
    from ..opts import Options

logger = logging.getLogger(__name__)

GROUND_TRUTH = 'ground_truth.json'
# Facts of a source that the dataset's class has too.
SOURCE_FACTS = (
    *('class_names', 'num_classes', 'cat_ids', 'default_resolution', 'mean', 'std'),
    *('max_objs', 'num_joints', 'flip_idx', 'skeleton'),
)


class TaskDataset(Dataset):
    """Images and annotations of a source, read and scored for one task.

    A sample (sample/base.py) subclasses it and says what the task learns from an image; `bind` gives it a source.

    Class attributes:
        task: the task's name.
        source: where the files lie. Its facts (`SOURCE_FACTS`) are attributes of the class too.
        task_metric: name of the task's metric in `metric_factory`, for sources that have none of their own.
        annotation_variant: which of the source's annotation files the task reads (see `Source.locate`).
        metrics, main_metric: names of the metrics, and of the one that `--metric AP` means, without `--eval_metric`.

    Attributes:
        opt, split: options, and 'train', 'val' or 'test'.
        annotation_file, image_dir: paths; where the annotations lie in many files, the first is that of their folder.
        annotations: what the split's annotations are read from.
        index: the images and their objects, checked.
        metric: the metric that `run_eval` scores with.
    """

    task: ClassVar[str]
    source: ClassVar[Source]
    task_metric: ClassVar[str] = 'bbox'
    annotation_variant: ClassVar[str] = ''
    metrics: ClassVar[tuple[str, ...]]
    main_metric: ClassVar[str]
    cat_ids: ClassVar[dict[int, int]]
    class_names: ClassVar[list[str]]
    num_classes: ClassVar[int]
    default_resolution: ClassVar[list[int]]
    mean: ClassVar[np.ndarray]
    std: ClassVar[np.ndarray]
    num_joints: ClassVar[int | None] = None
    max_objs: int

    @classmethod
    def bind(cls, source: Source, task: str) -> None:
        """Give the class its source, whose facts it takes over, and its task's name."""
        cls.source, cls.task = source, task
        for name in SOURCE_FACTS:
            setattr(cls, name, getattr(source, name))
        metric = cls.create_metric()
        cls.metrics, cls.main_metric = metric.names, metric.main

    def __init__(self, opt: 'Options', split: str):
        """Locate, read and check the annotations of a split ('train', 'val' or 'test').

        Raises:
            UserError: files are missing, no usable image is left, there is nothing to train on, or the results of the
                task cannot be scored by `--eval_metric`.
        """
        self.opt, self.split = opt, split
        self.metric = self.create_metric(opt.eval_metric, self.source.label_folder(opt))
        self.annotation_file, self.image_dir = self.source.locate(opt, split, self.annotation_variant)
        parts = self.source.annotations_of(opt, split, self.annotation_variant)
        self.annotations = parts[0]
        index = self.source.arrange(reduce(AnnotationIndex.join, map(self.read, parts)), split)
        self.index = self.check_objects(index)
        self.max_objs = self.source.slots(self.index)
        num_objects = int(self.index.valid.sum())
        size = f'{plural(len(self), "image")}, {plural(num_objects, "object")}'
        logger.info('%s: %s (%s)', split, size, self.annotation_file)
        if split == 'train' and not (self.index.valid & (self.index.classes >= 0)).any():
            raise UserError(
                f"'{self.annotation_file}' has no object to learn: expected a usable annotation of one of the classes "
                f'({", ".join(self.class_names[:5])}{", ..." if len(self.class_names) > 5 else ""})'
            )

    def __len__(self) -> int:
        return len(self.index)

    def facts(self) -> dict[str, object]:
        """Return `{what: value}`, by which two processes see whether they have the same images and objects."""
        count, objects = len(self), int(self.index.valid.sum())
        return {f'{self.split} data of': f'{count} images and {objects} objects (hash {self.index.digest()})'}

    # ------------------------------------------------------------ what a task's sample states of its annotations

    @classmethod
    def annotation_fields(cls) -> Mapping[str, tuple[int, ...]]:
        """Return the annotation keys that the task reads beside boxes, with the shapes of their values."""
        return {}

    @classmethod
    def image_fields(cls) -> Mapping[str, tuple[int, ...]]:
        """Return the image keys that the task reads, with the shapes of their values."""
        return {}

    @classmethod
    def choose_categories(cls, categories: list[dict], path: str) -> Categories:
        """Choose which categories of a file of own data are learnt; by default all.

        Args:
            categories: the file's entries, each with an integer id and a name.
            path: the file, for messages.

        Raises:
            UserError: the categories lack what the task needs.
        """
        return Categories(categories)

    @classmethod
    def result_columns(cls) -> Columns:
        """Return the columns of the task's result rows: {name: slice}."""
        return {'box': Box.BOX, 'score': Box.SCORE}

    def check_file(self, path: str) -> None:
        """Raise a `UserError` if an annotation file cannot serve the task, before it is read."""

    def check_objects(self, index: AnnotationIndex) -> AnnotationIndex:
        """Check that the objects have what the task learns from.

        Returns:
            the index, in which objects that the task cannot use are marked invalid.

        Raises:
            UserError: there is nothing that the task can use.
        """
        return index

    def image_meta(self, i: int) -> dict[str, np.ndarray]:
        """Return the facts of image i that a detector needs beside its pixels, such as `calib` [3, 4]."""
        return {}

    # ------------------------------------------------------------------------------------------------- reading

    def read(self, annotations: Annotations) -> AnnotationIndex:
        """Check and pack one part of the annotations."""
        self.check_file(annotations.place)
        self.source.check(annotations)
        return build_index(
            annotations,
            self.image_dir,
            self.cat_ids,
            self.annotation_fields(),
            self.image_fields(),
            self.source.other_categories,
            self.opt.max_pixels,
        )

    def image_path(self, i: int) -> str:
        """Return the path of image i."""
        return os.path.join(self.image_dir, self.index.name(i))

    def image_size(self, i: int) -> tuple[int, int]:
        """Return width and height of image i in pixels."""
        width, height = self.index.sizes[i]
        return int(width), int(height)

    # ------------------------------------------------------------------------------------------------- scoring

    @classmethod
    def create_metric(cls, name: str = '', label_folder: str | None = None) -> Metric:
        """Create the metric of a name, or by default the source's own, or else the task's.

        Args:
            name: a name of `metric_factory`, or ''.
            label_folder: folder of the images' KITTI label files, if there is one.

        Raises:
            UserError: there is no such metric, or it needs what the task's results lack.
        """
        return create_metric(
            name,
            (cls.source.metric, cls.task_metric),
            cls.task,
            class_names=cls.class_names,
            cat_ids=cls.cat_ids,
            columns=cls.result_columns(),
            label_folder=label_folder,
        )

    def is_headline(self, name: str) -> bool:
        """Return whether a metric or loss belongs in the log of every validation; `metrics.json` has all metrics."""
        return self.metric.is_headline(name)

    def ground_truth(self) -> dict:
        """Return the annotations as a COCO dict, without the images and objects that the check left out."""
        coco = self.annotations.read()
        ids = set(self.index.image_ids.tolist())
        rows = coco.get('annotations', [])
        return {
            'images': [image for image in coco['images'] if image.get('id') in ids],
            'annotations': [rows[i] for i in np.sort(self.index.rows[self.index.valid])],
            'categories': [c for c in coco.get('categories', []) if c.get('id') in self.cat_ids],
        }

    def run_eval(self, results: Results, save_dir: str) -> dict[str, float]:
        """Save results, score them, and write the metrics to `save_dir/metrics.json`.

        Where the annotations are no COCO-format file, `save_dir/ground_truth.json` is one: the ids of the results are
        those of its images.

        Args:
            results: `{image id: {1-based class: rows [n, columns]}}`, laid out as `result_columns`; left untouched.
            save_dir: folder to write to.

        Returns:
            `{metric: value}`; {} for a test set without ground truth.
        """
        saved = self.metric.save(results, Path(save_dir))
        ground_truth = self.ground_truth()
        if not self.annotations.is_coco:
            write_json(Path(save_dir) / GROUND_TRUTH, ground_truth)
        if self.split == 'test' and not ground_truth['annotations']:
            logger.info('%s holds no objects: nothing to score against', self.annotation_file)
            return {}
        metrics = self.metric.score(ground_truth, saved)
        path = Path(save_dir) / 'metrics.json'
        write_json(path, metrics, indent=1)
        by_class = [f'{name[3:]} {metrics[name]:.3f}' for name in metrics if name.startswith('AP/')]
        if 0 < len(by_class) <= 20:
            logger.info(', '.join(by_class))
        logger.info('%s %.4f (%s)', self.metric.main, metrics[self.metric.main], path)
        return metrics
