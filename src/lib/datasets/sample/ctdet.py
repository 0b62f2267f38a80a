"""What 2D detection learns from an image: a centre heatmap, box sizes and sub-pixel offsets (paper, section 3)."""

import numpy as np

from ...utils.image import draw_dense_reg, draw_umich_gaussian
from ..index import Objects
from .base import Sample, View, radius_of


class CtdetSample(Sample):
    """Targets of ctdet. With C classes, M slots and an output map of h x w:

    `hm` [C, h, w] centre heatmap; `ind` [M] cell y * w + x; `reg` [M, 2] centre minus cell; `reg_mask` [M];
    `wh` [M, 2] box size in output pixels, or with cat_spec_wh `cat_spec_wh`, `cat_spec_mask` [M, 2C], or with
    dense_wh `dense_wh`, `dense_wh_mask` [2, h, w]. `meta` adds `gt_det` [n, 6]: x1 y1 x2 y2 1 class.
    """

    def whole(self, width: int, height: int):
        if not self.opt.keep_res:
            return super().whole(width, height)
        input_w, input_h = (width | self.opt.pad) + 1, (height | self.opt.pad) + 1
        center = np.array([width / 2, height / 2], np.float32)
        return center, np.array([input_w, input_h], np.float32), (input_w, input_h)

    def targets(self, rng: np.random.Generator, objects: Objects, view: View, index: int):
        out_w, out_h = view.output_size
        num_classes, slots = self.opt.num_classes, self.max_objs
        hm = np.zeros((num_classes, out_h, out_w), np.float32)
        wh = np.zeros((slots, 2), np.float32)
        dense_wh = np.zeros((2, out_h, out_w), np.float32)
        any_class = np.zeros((out_h, out_w), np.float32)
        reg = np.zeros((slots, 2), np.float32)
        ind = np.zeros(slots, np.int64)
        reg_mask = np.zeros(slots, np.uint8)
        cat_spec_wh = np.zeros((slots, num_classes, 2), np.float32)
        cat_spec_mask = np.zeros((slots, num_classes, 2), np.uint8)
        truth = []

        boxes = view.boxes(objects.boxes)
        for k in self.slots(objects):
            width, height = boxes[k, 2:] - boxes[k, :2]
            if not objects.valid[k] or height <= 0 or width <= 0:
                continue
            cls = objects.classes[k]
            center = (boxes[k, :2] + boxes[k, 2:]) / 2
            cell = center.astype(np.int32)
            radius = radius_of(height, width)
            self.draw(hm[cls], cell, radius)
            wh[k] = width, height
            reg[k] = center - cell
            ind[k] = cell[1] * out_w + cell[0]
            reg_mask[k] = 1
            cat_spec_wh[k, cls] = wh[k]
            cat_spec_mask[k, cls] = 1
            if self.opt.dense_wh:
                draw_umich_gaussian(any_class, cell, radius)  # as wide as what draw_dense_reg fills
                draw_dense_reg(dense_wh, any_class, cell, wh[k], radius)
            truth.append([*(center - wh[k] / 2), *(center + wh[k] / 2), 1, cls])

        targets = {'hm': hm, 'reg_mask': reg_mask, 'ind': ind}
        if self.opt.dense_wh:
            targets.update(dense_wh=dense_wh, dense_wh_mask=np.stack([any_class, any_class]))
        elif self.opt.cat_spec_wh:
            targets.update(cat_spec_wh=cat_spec_wh.reshape(slots, -1), cat_spec_mask=cat_spec_mask.reshape(slots, -1))
        else:
            targets['wh'] = wh
        if self.opt.reg_offset:
            targets['reg'] = reg
        return targets, {'gt_det': np.array(truth or [[0] * 6], np.float32)}
