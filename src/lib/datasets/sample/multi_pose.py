"""The targets of pose estimation: people as centres, joints as offsets and heatmaps (paper, section 4.2)."""

from typing import ClassVar

import numpy as np

from ...models.utils import swapped_joints
from ...utils.errors import UserError
from ...utils.image import draw_dense_reg, draw_umich_gaussian
from ...utils.rows import Box
from ..categories import Categories, joint_facts
from ..evaluation.metric import Columns
from ..index import AnnotationIndex, Objects
from .base import Sample, Targets, View, radius_of

ROTATED_HM = 0.9999  # next to 1: the focal loss then asks nothing of the centre heatmap


class MultiPoseSample(Sample):
    """Targets of multi_pose. With J joints, M slots and an output map of h x w:

    `hm` [C, h, w] centre heatmap; `ind` [M] cell y * w + x; `reg` [M, 2] centre minus cell; `wh` [M, 2] box size in
    output pixels; `reg_mask` [M], 0 for a person without annotated joints; `hps`, `hps_mask` [M, 2J] joint minus
    centre cell, or with dense_hp `dense_hps`, `dense_hps_mask` [2J, h, w]; `hm_hp` [J, h, w] joint heatmaps;
    `hp_ind`, `hp_mask` [M * J] cells of the joints, `hp_offset` [M * J, 2] joint minus its cell.
    `meta` adds `gt_det` [n, 6 + 2J]: x1 y1 x2 y2 1, joints, class; and `gt_seen` [n, J], which joints are annotated.

    A rotated sample teaches the joint heatmaps alone: its boxes are not turned with it, so their targets are off
    [keep: published].
    """

    task_metric = 'keypoints'
    num_joints: ClassVar[int]
    flip_idx: ClassVar[list]

    @classmethod
    def annotation_fields(cls) -> dict[str, tuple[int, ...]]:
        """Return the key of the joints [J, 3]."""
        return {'keypoints': (cls.num_joints, 3)}

    @classmethod
    def choose_categories(cls, categories: list[dict], path: str) -> Categories:
        """Learn the one category that has joints, and leave the others out."""
        learnt = [category for category in categories if category.get('keypoints')]
        if len(learnt) != 1:
            raise UserError(f"multi_pose needs one category with 'keypoints' in '{path}', found {len(learnt)}")
        others = frozenset(category['id'] for category in categories if not category.get('keypoints'))
        return Categories(learnt, others=others, joints=joint_facts(learnt[0], path))

    @classmethod
    def result_columns(cls) -> Columns:
        """Return the columns of result rows (`rows.Box`)."""
        return {'box': Box.BOX, 'score': Box.SCORE, 'keypoints': Box.POINTS}

    def check_objects(self, index: AnnotationIndex) -> AnnotationIndex:
        """Check that there are joints to learn.

        Raises:
            UserError: this is the training split, and nobody in it has joints.
        """
        if self.split == 'train' and not annotated(index.fields['keypoints']).any():
            raise UserError(
                f"nobody in '{self.annotation_file}' has a joint: multi_pose needs 'keypoints', lists of "
                f'{3 * self.num_joints} numbers (x, y and v, which is 0 for a joint that is not annotated)'
            )
        return index

    def rotation(self, rng: np.random.Generator) -> float:
        """Draw a rotation by `--rotate`, with the probability `--aug_rot`; in degrees."""
        if rng.random() >= self.opt.aug_rot:
            return 0.0
        spread = self.opt.rotate
        return float(np.clip(rng.standard_normal() * spread, -2 * spread, 2 * spread))

    def targets(self, objects: Objects, view: View, index: int) -> Targets:
        """Make the targets that the class lists."""
        targets, rotated = self.blank_targets(view.output_size), view.rot != 0
        boxes = view.boxes(objects.boxes)
        sizes, centers = boxes[:, 2:] - boxes[:, :2], (boxes[:, :2] + boxes[:, 2:]) / 2  # [n, 2]
        places, seen = self.places(objects, view)  # [n, J, 2], [n, J]
        inside = seen & (places >= 0).all(2) & (places < view.output_size).all(2)  # [n, J]
        # A turned person may be in the image though the box, which is not turned, is outside.
        people = [k for k in self.slots(objects) if objects.valid[k] and (rotated or (sizes[k] > 0).all())]
        for k in people:
            targets['reg_mask'][k] = seen[k].any()
            self.add_person(targets, k, objects.classes[k], centers[k], sizes[k], places[k], inside[k])
        if rotated:
            targets['hm'].fill(ROTATED_HM)
            for mask in ('reg_mask', 'hps_mask', 'dense_hps_mask'):
                targets[mask].fill(0)

        gt_det = np.zeros((max(len(people), 1), 6 + 2 * self.num_joints), np.float32)
        gt_seen = np.zeros((len(gt_det), self.num_joints), bool)
        for row, k in enumerate(people):
            low, high = centers[k] - sizes[k] / 2, centers[k] + sizes[k] / 2
            gt_det[row] = [*low, *high, 1, *places[k].ravel(), objects.classes[k]]
            gt_seen[row] = seen[k]
        return self.as_learnt(targets), {'gt_det': gt_det, 'gt_seen': gt_seen}

    def blank_targets(self, output_size: tuple[int, int]) -> dict[str, np.ndarray]:
        """Make the targets of an image of nobody, joints in a dimension of their own [J]; unused ones empty."""
        (out_w, out_h), joints, slots = output_size, self.num_joints, self.max_objs
        dense = joints if self.opt.dense_hp else 0
        return {
            'hm': np.zeros((self.opt.num_classes, out_h, out_w), np.float32),
            'ind': np.zeros(slots, np.int64),
            'wh': np.zeros((slots, 2), np.float32),
            'reg': np.zeros((slots, 2), np.float32),
            'reg_mask': np.zeros(slots, np.uint8),
            'hps': np.zeros((slots, joints, 2), np.float32),
            'hps_mask': np.zeros((slots, joints, 2), np.uint8),
            'dense_hps': np.zeros((dense, 2, out_h, out_w), np.float32),
            'dense_hps_mask': np.zeros((dense, out_h, out_w), np.float32),
            'hm_hp': np.zeros((joints, out_h, out_w), np.float32),
            'hp_ind': np.zeros((slots, joints), np.int64),
            'hp_offset': np.zeros((slots, joints, 2), np.float32),
            'hp_mask': np.zeros((slots, joints), np.int64),
        }

    def add_person(
        self,
        targets: dict[str, np.ndarray],
        k: int,
        cls: int,
        center: np.ndarray,
        size: np.ndarray,
        places: np.ndarray,
        inside: np.ndarray,
    ) -> None:
        """Fill slot k and draw on the maps, in place.

        Args:
            targets: as `blank_targets` makes them, people before this one added.
            center, size: [2] of the box on the output map; size is width, height.
            places: [J, 2], joints on the output map; inside: [J], which of them are annotated and on it.
        """
        out_w = targets['hm'].shape[2]
        (width, height), cell = size, center.astype(np.int32)
        radius = radius_of(height, width)
        targets['wh'][k] = size
        targets['reg'][k] = center - cell
        targets['ind'][k] = cell @ (1, out_w)
        there = inside.nonzero()[0]  # [m], of J
        joint_cells = places[there].astype(np.int32)  # [m, 2]
        targets['hps'][k, there] = places[there] - cell
        targets['hps_mask'][k, there] = 1
        targets['hp_offset'][k, there] = places[there] - joint_cells
        targets['hp_ind'][k, there] = joint_cells @ (1, out_w)
        targets['hp_mask'][k, there] = 1
        for j, joint_cell in zip(there, joint_cells, strict=True):
            self.draw(targets['hm_hp'][j], joint_cell, radius)
        if self.opt.dense_hp:
            for j in there:  # against the centres of the people before, so before this one's is drawn
                offset, hm = targets['hps'][k, j], targets['hm'][cls]
                draw_dense_reg(targets['dense_hps'][j], hm, cell, offset, radius, is_offset=True)
                draw_umich_gaussian(targets['dense_hps_mask'][j], cell, radius)  # as wide as what was filled
        self.draw(targets['hm'][cls], cell, radius)

    def as_learnt(self, targets: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Choose the targets that the options ask for, and merge [M, J, 2] and the like into the class's shapes."""
        opt, slots = self.opt, self.max_objs
        learnt = {name: targets[name] for name in ('hm', 'reg_mask', 'ind', 'wh')}
        if opt.dense_hp:
            learnt['dense_hps'] = targets['dense_hps'].reshape(-1, *targets['hm'].shape[1:])
            learnt['dense_hps_mask'] = np.repeat(targets['dense_hps_mask'], 2, axis=0)
        else:
            learnt.update({name: targets[name].reshape(slots, -1) for name in ('hps', 'hps_mask')})
        if opt.reg_offset:
            learnt['reg'] = targets['reg']
        if opt.hm_hp:
            learnt['hm_hp'] = targets['hm_hp']
        if opt.reg_hp_offset:
            learnt['hp_offset'] = targets['hp_offset'].reshape(-1, 2)
            learnt.update({name: targets[name].ravel() for name in ('hp_ind', 'hp_mask')})
        return learnt

    def places(self, objects: Objects, view: View) -> tuple[np.ndarray, np.ndarray]:
        """Map joints to the output map, [n, J, 2], not clipped; return them and which are annotated, [n, J].

        Those that are not keep their coordinates in the image, as published.
        """
        keypoints = objects.fields['keypoints']  # [n, J, 3]
        seen = annotated(keypoints)
        stored = np.where(np.isfinite(keypoints), keypoints, 0)[..., :2]  # [n, J, 2]
        places = np.where(seen[..., None], view.points(stored.reshape(-1, 2)).reshape(stored.shape), stored)
        if view.flipped:
            order = swapped_joints(self.num_joints, self.flip_idx)
            places, seen = places[:, order], seen[:, order]
        return places, seen


def annotated(keypoints: np.ndarray) -> np.ndarray:
    """Return which joints [n, J] of COCO keypoints [n, J, 3] have a place (v over 0); none where one is NaN."""
    return np.isfinite(keypoints).all((1, 2))[:, None] & (keypoints[..., 2] > 0)
