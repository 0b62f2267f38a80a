"""The targets of ExtremeNet: heatmaps of the four extreme points and of the centre between them."""

import os

import numpy as np

from ...models.decode import BOTTOM, LEFT, RIGHT, TOP
from ...utils.errors import UserError
from ...utils.rows import Extremes
from ...utils.windows import Scale
from ..evaluation.metric import Columns
from ..index import AnnotationIndex, Objects
from .base import Sample, Targets, View, radius_of

SIDES = 'tlbr'
Drawn = tuple[int, list[np.ndarray], int]  # class, cells of the extreme points and the centre [2] each, radius
MIRRORED = [TOP, RIGHT, BOTTOM, LEFT]  # which point is which once left and right are swapped


class ExdetSample(Sample):
    """Targets of exdet. With C classes, M slots, an output map of h x w, and X each of t, l, b, r:

    `hm_X` [C, h, w] heatmap of that extreme point, [1, h, w] with agnostic_ex; `hm_c` [C, h, w] heatmap of the
    centre of the extreme points' box (of many classes `hm_X_gaussians`, see `heatmap`); `ind_X` [M] cell
    y * w + x; `reg_X` [M, 2] point minus cell; `reg_mask` [M]. `meta` adds `gt_det` [n, 14]: x1 y1 x2 y2 1, x and y
    of the four points, class.
    """

    annotation_variant = '_extreme'
    recenters_flip = False  # [keep]: the published sample mirrors the image, but leaves the window where it was

    @classmethod
    def annotation_fields(cls) -> dict[str, tuple[int, ...]]:
        """Return the key of the extreme points [4, 2]."""
        return {'extreme_points': (4, 2)}

    @classmethod
    def result_columns(cls) -> Columns:
        """Return the columns of result rows (`rows.Extremes`)."""
        return {'box': Extremes.BOX, 'score': Extremes.SCORE, 'extreme_points': Extremes.POINTS}

    def check_file(self, path: str) -> None:
        """Refuse a missing file that can be made of one without extreme points, and say how."""
        plain = self.source.locate(self.opt, self.split)[0]
        if not os.path.exists(path) and os.path.exists(plain):
            raise UserError(f"annotation file '{path}' is missing: make it with {generator(plain, path)}")

    def check_objects(self, index: AnnotationIndex) -> AnnotationIndex:
        """Check that there are extreme points.

        Objects without them stay, though their slots will be empty: evaluation counts their boxes.

        Raises:
            UserError: there are objects, and none has extreme points.
        """
        if len(index.boxes) and not known(index.fields['extreme_points']).any():
            path = self.annotation_file
            how = 'they are made of segmentations, which COCO-format files alone keep'
            if self.annotations.is_coco:
                how = f'add them with {generator(path, "OUT.json")}'
            raise UserError(f"no object of '{path}' has extreme_points: {how}")
        return index

    def shift_unit(self, s: Scale, width: int, height: int) -> np.ndarray:
        """Return the image's sides, [2], by which a shift of 1 moves the window."""
        return np.array([width, height])

    def targets(self, objects: Objects, view: View, index: int) -> Targets:
        """Make the targets that the class lists."""
        out_w, out_h = view.output_size
        slots = self.max_objs
        reg = np.zeros((4, slots, 2), np.float32)
        ind = np.zeros((4, slots), np.int64)
        reg_mask = np.zeros(slots, np.uint8)
        drawn: list[Drawn] = []
        truth = []

        points = objects.fields['extreme_points']  # [n, 4, 2]
        usable = objects.valid & known(points)
        points = view.clip(view.points(points.reshape(-1, 2))).reshape(-1, 4, 2).astype(np.float32)
        if view.flipped:
            points = points[:, MIRRORED]
        for k in self.slots(objects):
            low = np.array([points[k, LEFT, 0], points[k, TOP, 1]])
            high = np.array([points[k, RIGHT, 0], points[k, BOTTOM, 1]])
            width, height = high - low
            if not usable[k] or height <= 0 or width <= 0:
                continue
            cls = objects.classes[k]
            cells = points[k].astype(np.int32)  # [4, 2]
            center = ((low + high) / 2).astype(np.int32)
            drawn.append((cls, [*cells, center], radius_of(height, width)))
            reg[:, k] = points[k] - cells
            ind[:, k] = cells[:, 1] * out_w + cells[:, 0]
            reg_mask[k] = 1
            truth.append([*low, *high, 1, *points[k].ravel(), cls])

        targets = self.heatmaps(drawn, (out_h, out_w))
        if self.opt.reg_offset:
            targets['reg_mask'] = reg_mask
            for i, name in enumerate(SIDES):
                targets[f'reg_{name}'], targets[f'ind_{name}'] = reg[i], ind[i]
        return targets, {'gt_det': np.array(truth or [[0] * Extremes.COLUMNS], np.float32)}

    def heatmaps(self, drawn: list[Drawn], size: tuple[int, int]) -> dict[str, np.ndarray]:
        """Make `hm_X` and `hm_c` of the objects on an output map of that height and width, as `Sample.heatmap` does."""
        classes, radii = [cls for cls, _, _ in drawn], [radius for *_, radius in drawn]
        made: dict[str, np.ndarray] = {}
        for i, name in enumerate((*SIDES, 'c')):
            places = [cells[i] for _, cells, _ in drawn]
            if self.opt.agnostic_ex and name in SIDES:
                made |= self.heatmap(f'hm_{name}', [0] * len(drawn), places, radii, size, num_classes=1)
            else:
                made |= self.heatmap(f'hm_{name}', classes, places, radii, size, self.opt.num_classes)
        return made


def known(points: np.ndarray) -> np.ndarray:
    """Return which objects have extreme points [n, 4, 2], bool [n]; the points of the others hold NaN."""
    return np.isfinite(points).all((1, 2))


def generator(source: str, target: str) -> str:
    """Return the command that makes an annotation file with extreme points from one with segmentations."""
    return f"'python src/tools/gen_coco_extreme_points.py {source} {target}'"
