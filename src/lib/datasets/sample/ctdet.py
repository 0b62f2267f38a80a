"""The targets of 2D detection: a centre heatmap, box sizes and sub-pixel offsets (paper, section 3)."""

import numpy as np

from ...utils.image import draw_dense_reg, draw_umich_gaussian
from ...utils.windows import Window, unresized_window
from ..index import Objects
from .base import Sample, Targets, View, radius_of


class CtdetSample(Sample):
    """Targets of ctdet. With C classes, M slots and an output map of h x w:

    `hm` [C, h, w] centre heatmap (of many classes `hm_gaussians`, see `heatmap`); `ind` [M] cell y * w + x; `reg`
    [M, 2] centre minus cell; `reg_mask` [M]; `wh` [M, 2] box size in output pixels, or with cat_spec_wh
    `cat_spec_wh`, `cat_spec_mask` [M, 2C], or with dense_wh `dense_wh`, `dense_wh_mask` [2, h, w]. `meta` adds
    `gt_det` [n, 6]: x1 y1 x2 y2 1 class.
    """

    def whole(self, width: int, height: int) -> Window:
        """Return the window round the whole image; with `--keep_res` at its resolution, padded for the network."""
        if not self.opt.keep_res:
            return super().whole(width, height)
        return unresized_window((width, height), self.opt.pad)

    def targets(self, objects: Objects, view: View, index: int) -> Targets:
        """Make the targets that the class lists."""
        opt, slots, (out_w, out_h) = self.opt, self.max_objs, view.output_size
        boxes = view.boxes(objects.boxes[:slots])
        slot = np.flatnonzero(objects.valid[:slots] & (boxes[:, 2:] > boxes[:, :2]).all(1))  # [n], of M
        boxes, classes = boxes[slot], objects.classes[slot]
        sizes, centers = boxes[:, 2:] - boxes[:, :2], (boxes[:, :2] + boxes[:, 2:]) / 2  # [n, 2]
        cells = centers.astype(np.int32)  # [n, 2]
        radii = [radius_of(height, width) for width, height in sizes.tolist()]

        ind, reg_mask = np.zeros(slots, np.int64), np.zeros(slots, np.uint8)
        ind[slot], reg_mask[slot] = cells @ (1, out_w), 1
        targets = self.heatmap('hm', classes, cells, radii, (out_h, out_w), opt.num_classes)
        targets.update(reg_mask=reg_mask, ind=ind)
        if opt.reg_offset:
            targets['reg'] = reg = np.zeros((slots, 2), np.float32)
            reg[slot] = centers - cells
        if opt.dense_wh:
            any_class, dense_wh = np.zeros((out_h, out_w), np.float32), np.zeros((2, out_h, out_w), np.float32)
            for cell, size, radius in zip(cells.tolist(), sizes, radii, strict=True):
                draw_umich_gaussian(any_class, cell, radius)  # as wide as what draw_dense_reg fills
                draw_dense_reg(dense_wh, any_class, cell, size, radius)
            targets.update(dense_wh=dense_wh, dense_wh_mask=np.stack([any_class, any_class]))
        elif opt.cat_spec_wh:
            shape = (slots, opt.num_classes, 2)
            wh, mask = np.zeros(shape, np.float32), np.zeros(shape, np.uint8)
            wh[slot, classes], mask[slot, classes] = sizes, 1
            targets.update(cat_spec_wh=wh.reshape(slots, -1), cat_spec_mask=mask.reshape(slots, -1))
        else:
            targets['wh'] = wh = np.zeros((slots, 2), np.float32)
            wh[slot] = sizes
        truth = np.column_stack([centers - sizes / 2, centers + sizes / 2, np.ones(len(slot)), classes])  # [n, 6]
        return targets, {'gt_det': (truth if len(truth) else np.zeros((1, 6))).astype(np.float32)}
