"""What pose estimation learns from an image: people as centres, joints as offsets and heatmaps (paper, section 4.2)."""

import numpy as np

from ...models.utils import swapped_joints
from ...utils.errors import UserError
from ...utils.image import draw_dense_reg, draw_umich_gaussian
from ..index import AnnotationIndex, Objects
from ..source import COCO_METRICS, KEYPOINT_METRICS
from .base import Sample, View, radius_of

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

    metrics = COCO_METRICS + KEYPOINT_METRICS
    main_metric = 'kp_AP'

    @classmethod
    def annotation_fields(cls) -> dict[str, tuple[int, ...]]:
        return {'keypoints': (cls.num_joints, 3)}

    def arrange(self, index: AnnotationIndex) -> AnnotationIndex:
        """The index as the source arranges it.

        Raises:
            UserError: this is the training split, and nobody in it has joints.
        """
        index = super().arrange(index)
        if self.split == 'train' and not annotated(index.fields['keypoints']).any():
            raise UserError(
                f"nobody in '{self.annotation_file}' has a joint: multi_pose needs 'keypoints', lists of "
                f'{3 * self.num_joints} numbers (x, y and v, which is 0 for a joint that is not annotated)'
            )
        return index

    def extra_result(self, values: np.ndarray) -> dict:
        joints = values.reshape(-1, 2)
        return {'keypoints': np.column_stack([joints, np.ones(len(joints))]).ravel().tolist()}

    def rotation(self, rng: np.random.Generator) -> float:
        if rng.random() >= self.opt.aug_rot:
            return 0.0
        spread = self.opt.rotate
        return float(np.clip(rng.standard_normal() * spread, -2 * spread, 2 * spread))

    def targets(self, rng: np.random.Generator, objects: Objects, view: View, index: int):
        out_w, out_h = view.output_size
        joints, slots, rotated = self.num_joints, self.max_objs, view.rot != 0
        hm = np.zeros((self.opt.num_classes, out_h, out_w), np.float32)
        wh = np.zeros((slots, 2), np.float32)
        reg = np.zeros((slots, 2), np.float32)
        ind = np.zeros(slots, np.int64)
        reg_mask = np.zeros(slots, np.uint8)
        hps = np.zeros((slots, joints, 2), np.float32)
        hps_mask = np.zeros((slots, joints, 2), np.uint8)
        dense = joints if self.opt.dense_hp else 0
        dense_hps = np.zeros((dense, 2, out_h, out_w), np.float32)
        dense_hps_mask = np.zeros((dense, out_h, out_w), np.float32)
        hm_hp = np.zeros((joints, out_h, out_w), np.float32)
        hp_offset = np.zeros((slots, joints, 2), np.float32)
        hp_ind = np.zeros((slots, joints), np.int64)
        hp_mask = np.zeros((slots, joints), np.int64)
        truth, truth_seen = [], []

        boxes = view.boxes(objects.boxes)
        places, seen = self.places(objects, view)  # [n, J, 2], [n, J]
        inside = seen & (places >= 0).all(2) & (places < view.output_size).all(2)  # [n, J]
        joint_cells = np.where(inside[..., None], places, 0).astype(np.int32)  # [n, J, 2]
        for k in self.slots(objects):
            width, height = boxes[k, 2:] - boxes[k, :2]
            empty = (height <= 0 or width <= 0) and not rotated  # a turned person may be in the picture all the same
            if not objects.valid[k] or empty:
                continue
            cls = objects.classes[k]
            center = (boxes[k, :2] + boxes[k, 2:]) / 2
            cell = center.astype(np.int32)
            radius = radius_of(height, width)
            wh[k] = width, height
            reg[k] = center - cell
            ind[k] = cell[1] * out_w + cell[0]
            reg_mask[k] = seen[k].any()
            there = inside[k].nonzero()[0]
            hps[k, there] = places[k, there] - cell
            hps_mask[k, there] = 1
            hp_offset[k, there] = places[k, there] - joint_cells[k, there]
            hp_ind[k, there] = joint_cells[k, there] @ (1, out_w)
            hp_mask[k, there] = 1
            for j in there:
                self.draw(hm_hp[j], joint_cells[k, j], radius)
                if self.opt.dense_hp:  # against the centres of the people before, so before this one's is drawn
                    draw_dense_reg(dense_hps[j], hm[cls], cell, hps[k, j], radius, is_offset=True)
                    draw_umich_gaussian(dense_hps_mask[j], cell, radius)  # as wide as what was filled
            self.draw(hm[cls], cell, radius)
            truth.append([*(center - wh[k] / 2), *(center + wh[k] / 2), 1, *places[k].ravel(), cls])
            truth_seen.append(seen[k])
        if rotated:
            hm.fill(ROTATED_HM)
            for mask in (reg_mask, hps_mask, dense_hps_mask):
                mask.fill(0)

        targets = {'hm': hm, 'reg_mask': reg_mask, 'ind': ind, 'wh': wh}
        if self.opt.dense_hp:
            targets['dense_hps'] = dense_hps.reshape(2 * joints, out_h, out_w)
            targets['dense_hps_mask'] = np.repeat(dense_hps_mask, 2, axis=0)
        else:
            targets.update(hps=hps.reshape(slots, -1), hps_mask=hps_mask.reshape(slots, -1))
        if self.opt.reg_offset:
            targets['reg'] = reg
        if self.opt.hm_hp:
            targets['hm_hp'] = hm_hp
        if self.opt.reg_hp_offset:
            targets.update(hp_offset=hp_offset.reshape(-1, 2), hp_ind=hp_ind.ravel(), hp_mask=hp_mask.ravel())
        gt_det = np.array(truth or [[0] * (6 + 2 * joints)], np.float32)
        return targets, {'gt_det': gt_det, 'gt_seen': np.array(truth_seen or [[False] * joints])}

    def places(self, objects: Objects, view: View) -> tuple[np.ndarray, np.ndarray]:
        """Joints [n, J, 2] on the output map, not clipped, and which of them are annotated, [n, J].

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
    """Which joints [n, J] of COCO keypoints [n, J, 3] have a place (v over 0); none of a person with a NaN in them."""
    return np.isfinite(keypoints).all((1, 2))[:, None] & (keypoints[..., 2] > 0)
