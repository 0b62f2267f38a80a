"""What all sources of COCO-format data share: reading annotations, and evaluating results."""

import os
from argparse import Namespace
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import ClassVar

import numpy as np

from ..utils.errors import UserError
from ..utils.files import write_json
from .evaluation.coco_eval import BOX_FIGURES, evaluate_coco
from .index import AnnotationIndex, build_index, read_coco


class Source:
    """Where data comes from: images, annotations, class facts, and the metric.

    A subclass gives the class facts and `locate`. The dataset factory mixes it with a sample, which says
    what a task learns from an image.

    Class facts:
        tasks: tasks that it serves.
        class_names: 0-based class -> name.  num_classes: their number.  cat_ids: category id -> class.
        default_resolution: [h, w] of the network input.
        mean, std: [1, 1, 3] float32, of BGR channels on [0, 1].
        max_objs: slots of the targets.
        num_joints, flip_idx, skeleton: joints, their left/right pairs and limbs (0-based), or None.
    """

    tasks: ClassVar[tuple[str, ...]] = ()
    class_names: ClassVar[list[str]]
    num_classes: ClassVar[int]
    cat_ids: ClassVar[dict[int, int]]
    other_categories: ClassVar[frozenset[int]] = frozenset()
    default_resolution: ClassVar[list[int]] = [512, 512]
    mean = np.array([0.40789654, 0.44719302, 0.47026115], np.float32).reshape(1, 1, 3)
    std = np.array([0.28863828, 0.27408164, 0.27809835], np.float32).reshape(1, 1, 3)
    max_objs = 128
    num_joints: ClassVar[int | None] = None
    flip_idx: ClassVar[list | None] = None
    skeleton: ClassVar[list | None] = None
    metrics: ClassVar[tuple[str, ...]] = BOX_FIGURES
    main_metric = 'AP'

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        if 'class_names' in vars(cls):
            cls.num_classes = len(cls.class_names)

    def __init__(self, opt: Namespace, split: str):
        """Locate, read and check the annotations of `split` ('train', 'val' or 'test').

        Raises:
            UserError: files are missing, no usable image is left, or there is nothing to train on.
        """
        super().__init__()
        self.opt, self.split = opt, split
        self.annotation_file, self.image_dir = self.locate(opt, split)
        parts = [self.read(path) for path in (self.annotation_file, *self.further_files(opt, split))]
        self.index = self.arrange(reduce(AnnotationIndex.joined, parts))
        print(f'{split}: {len(self.index)} images, {int(self.index.valid.sum())} objects ({self.annotation_file})')
        if split == 'train' and not (self.index.valid & (self.index.classes >= 0)).any():
            raise UserError(
                f"'{self.annotation_file}' has no object to learn: expected a usable annotation of one of the classes "
                f'({", ".join(self.class_names[:5])}{", ..." if len(self.class_names) > 5 else ""})'
            )

    def __len__(self) -> int:
        return len(self.index)

    def read(self, annotation_file: str) -> AnnotationIndex:
        """Check and pack one annotation file."""
        return build_index(
            annotation_file,
            self.image_dir,
            self.cat_ids,
            self.annotation_fields(),
            self.image_fields(),
            self.other_categories,
        )

    @classmethod
    def further_files(cls, opt: Namespace, split: str) -> list[str]:
        """Annotation files beyond the one of `split`, of images in the same folder, that belong to it too."""
        return []

    @classmethod
    def locate(cls, opt: Namespace, split: str) -> tuple[str, str]:
        """Annotation file and images folder of `split`."""
        raise NotImplementedError

    @classmethod
    def annotation_fields(cls) -> Mapping[str, tuple[int, ...]]:
        """Annotation keys that the task's sample reads beside boxes, with the shapes of their values."""
        return {}

    @classmethod
    def image_fields(cls) -> Mapping[str, tuple[int, ...]]:
        """Image keys that the task's sample reads, with the shapes of their values."""
        return {}

    def arrange(self, index: AnnotationIndex) -> AnnotationIndex:
        """Choose and order images; by default all, in the file's order."""
        return index

    def image_path(self, i: int) -> str:
        """File of image i."""
        return os.path.join(self.image_dir, self.index.name(i))

    def image_size(self, i: int) -> tuple[int, int]:
        """Width and height of image i."""
        width, height = self.index.sizes[i]
        return int(width), int(height)

    def image_meta(self, i: int) -> dict:
        """What a detector must be told of image i beside its pixels."""
        return {}

    def label_folder(self) -> str | None:
        """Folder of KITTI label files for the images, where there is one."""
        return None

    def ground_truth(self) -> dict:
        """The annotation file without what the pre-flight check left out, as a COCO dict."""
        coco = read_coco(self.annotation_file)
        ids = set(self.index.image_ids.tolist())
        rows = coco.get('annotations', [])
        return {
            'images': [image for image in coco['images'] if image.get('id') in ids],
            'annotations': [rows[i] for i in np.sort(self.index.rows[self.index.valid])],
            'categories': [c for c in coco.get('categories', []) if c.get('id') in self.cat_ids],
        }

    def to_coco(self, results: Mapping[int, Mapping[int, np.ndarray]]) -> list[dict]:
        """`{image_id: {1-based class: rows}}` as COCO's list of results; `results` is left untouched.

        Rows are [n, 5] x1 y1 x2 y2 score, followed by the 8 coordinates of extreme points (exdet) or 2J of
        joints (multi_pose). Coordinates are rounded to 2 decimals, scores are not.
        """
        category_of = {cls: category for category, cls in self.cat_ids.items() if cls >= 0}
        detections = []
        for image_id, by_class in results.items():
            for cls, rows in by_class.items():
                rows = np.array(rows, np.float64).reshape(-1, np.shape(rows)[-1] if len(rows) else 5)
                scores = rows[:, 4].copy()
                rows[:, 2:4] -= rows[:, :2]
                rows = np.round(rows, 2)
                for row, score in zip(rows, scores, strict=True):
                    detections.append(
                        {
                            'image_id': int(image_id),
                            'category_id': int(category_of[int(cls) - 1]),
                            'bbox': row[:4].tolist(),
                            'score': float(score),
                            **self.extra_result(row[5:]),
                        }
                    )
        return detections

    def extra_result(self, values: np.ndarray) -> dict:
        """What a task's sample adds to a COCO result from the columns after the score."""
        return {}

    def run_eval(self, results: Mapping[int, Mapping[int, np.ndarray]], save_dir: str) -> dict[str, float]:
        """Score `results`; writes them and `metrics.json` to `save_dir`, prints and returns the metrics.

        A test set without ground truth gives the results alone and {}.
        """
        detections = self.save_results(results, save_dir)
        ground_truth = self.ground_truth()
        if self.split == 'test' and not ground_truth['annotations']:
            print(f'{self.annotation_file} holds no objects: nothing to score against')
            return {}
        metrics = self.score(ground_truth, detections)
        path = Path(save_dir) / 'metrics.json'
        write_json(path, metrics, indent=1)
        by_class = [f'{name[3:]} {metrics[name]:.3f}' for name in metrics if name.startswith('AP/')]
        if 0 < len(by_class) <= 20:
            print(', '.join(by_class))
        print(f'{self.main_metric} {metrics[self.main_metric]:.4f} ({path})')
        return metrics

    def save_results(self, results: Mapping[int, Mapping[int, np.ndarray]], save_dir: str) -> list[dict]:
        """Write `results.json` to `save_dir`; returns what `score` takes."""
        detections = self.to_coco(results)
        path = Path(save_dir) / 'results.json'
        write_json(path, detections)
        print(f'{len(detections)} detections written to {path}')
        return detections

    @staticmethod
    def is_headline(figure: str) -> bool:
        """Whether a figure is worth a place in the log of every validation; `metrics.json` has all."""
        return '/' not in figure

    def score(self, ground_truth: dict, detections: list[dict]) -> dict[str, float]:
        """COCO's box figures, and its keypoint figures where the task predicts joints."""
        metrics = evaluate_coco(ground_truth, detections, 'bbox')
        if 'keypoints' in self.annotation_fields():
            metrics.update(evaluate_coco(ground_truth, detections, 'keypoints'))
        return metrics
