"""The targets of 3D detection: centres, depths, sizes and orientations (paper, section 4.1 and appendix)."""

import logging
from dataclasses import replace

import numpy as np

from ...utils.ddd_utils import alpha_bins, common_calib, is_calibration
from ...utils.errors import UserError
from ...utils.image import gaussian_radius
from ...utils.rows import Box3d, DecodedBox3d
from ...utils.windows import Scale, Window, stretched_window
from ..categories import DROPPED, IGNORED_FOR_ALL, Categories, ignored_for
from ..evaluation.metric import Columns
from ..index import AnnotationIndex, Findings, Objects
from ..kitti_files import NO_ORIENTATION
from .base import Sample, Targets, View

logger = logging.getLogger(__name__)

NEARLY_ONE = 0.9999  # of a heatmap: no object stands there, yet nothing is learnt from it


class DddSample(Sample):
    """Targets of ddd. With C classes, M slots and an output map of h x w:

    `hm` [C, h, w] centre heatmap; `ind` [M] cell y * w + x; `dep` [M, 1] metres; `dim` [M, 3] height, width, length in
    metres; `rotbin` int64, `rotres` [M, 2] bins of alpha and residuals in radians; `wh` [M, 2] size of the 2D box in
    output pixels; `reg` [M, 2] centre minus cell; `rot_mask` [M] objects; `reg_mask` [M] those whose depth and size
    are learnt. `meta` adds `calib` [3, 4] and `gt_det` [n, 18]: x, y, 1, rot 8, depth, dim 3, w, h, class (16 columns,
    without w, h, under `--not_reg_bbox`); and `gt_box_3d` [n, 7]: dim 3, location 3, rotation_y of the labels
    themselves in metres and radians, NaN where a label has none.
    """

    task_metric = 'kitti'
    colors = False

    @classmethod
    def annotation_fields(cls) -> dict[str, tuple[int, ...]]:
        """Return the keys of KITTI's facts of an object, with their shapes."""
        return {'dim': (3,), 'depth': (), 'alpha': (), 'location': (3,), 'rotation_y': ()}

    @classmethod
    def image_fields(cls) -> dict[str, tuple[int, ...]]:
        """Return the key of the camera matrix [3, 4]."""
        return {'calib': (3, 4)}

    @classmethod
    def choose_categories(cls, categories: list[dict], path: str) -> Categories:
        """Learn all categories but DontCare, an area in which nothing is right or wrong."""
        ignored = frozenset(category['id'] for category in categories if category['name'].lower() == 'dontcare')
        return Categories([category for category in categories if category['id'] not in ignored], ignored)

    @classmethod
    def result_columns(cls) -> Columns:
        """Return the columns of result rows (`rows.Box3d`)."""
        return {
            'alpha': Box3d.ALPHA,
            'box': Box3d.BOX,
            'dim': Box3d.DIM,
            'location': Box3d.LOCATION,
            'rotation_y': Box3d.ROTATION_Y,
            'score': Box3d.SCORE,
        }

    def check_objects(self, index: AnnotationIndex) -> AnnotationIndex:
        """Give each image a calibration, and mark the objects invalid that cannot be learnt.

        Raises:
            UserError: there are objects of the classes to learn, and none can be used.
        """
        # the index's own arrays may be mapped from a file
        calibs, valid = index.image_fields['calib'].copy(), index.valid.copy()  # [N, 3, 4], [A]
        unknown = ~is_calibration(calibs)
        if unknown.any():
            calibs[unknown] = common_calib(self.opt.calib)
            instead = f"'{self.opt.calib}'" if self.opt.calib else "KITTI's published one (or give --calib FILE)"
            logger.warning('%d images without a usable calibration: for them stands %s', unknown.sum(), instead)

        dim, depth, alpha = (index.fields[name] for name in ('dim', 'depth', 'alpha'))
        learnt = valid & (index.classes >= 0)
        findings = Findings(self.annotation_file)
        image_of = np.repeat(np.arange(len(index)), index.counts())
        for wrong, kind in (
            (depth <= 0, 'objects left out, at depth 0 or behind the camera'),
            ((dim <= 0).any(1) | (alpha == NO_ORIENTATION), 'objects left out, of unknown size or orientation'),
        ):
            for i in np.flatnonzero(wrong & learnt):
                findings.add(f'{kind} (images)', index.name(image_of[i]))
            valid[wrong & learnt] = False
        findings.report()
        known = np.isfinite(dim).all(1) & np.isfinite(depth) & np.isfinite(alpha)
        valid[learnt & ~known] = False  # named when the file was read
        if learnt.any() and not (valid & (index.classes >= 0)).any():
            raise UserError(
                f"no object of '{self.annotation_file}' has a usable dim, depth and alpha: ddd needs KITTI's facts, "
                'as src/tools/convert_kitti_to_coco.py writes them'
            )
        return replace(index, valid=valid, image_fields=index.image_fields | {'calib': calibs})

    def image_meta(self, i: int) -> dict:
        """Return `calib` [3, 4], the camera matrix of image i."""
        return {'calib': self.index.image_fields['calib'][i]}

    def whole(self, width: int, height: int) -> Window:
        """Return the window round the whole image, whose scale is its sides; with `--keep_res` those of the input."""
        opt = self.opt
        return stretched_window((width, height), (opt.input_w, opt.input_h), opt.keep_res)

    def view(self, rng: np.random.Generator, size: tuple[int, int]) -> View:
        """View the whole image; in training shifted and scaled with the probability `--aug_ddd`, never mirrored."""
        width, height = size
        c, s, input_size = self.whole(width, height)
        jittered = bool(self.split == 'train' and rng.random() < self.opt.aug_ddd)
        if jittered:
            c, s = self.jitter(rng, c, s, width, height)
        return View(c, s, input_size, (self.opt.output_w, self.opt.output_h), width, jittered=jittered)

    def shift_unit(self, s: Scale, width: int, height: int) -> np.ndarray:
        """Return the image's sides, [2], by which a shift of 1 moves the window."""
        return np.array([width, height])

    def targets(self, objects: Objects, view: View, index: int) -> Targets:
        """Make the targets that the class lists."""
        out_w, out_h = view.output_size
        slots = self.max_objs
        hm = np.zeros((self.opt.num_classes, out_h, out_w), np.float32)
        dep, dim, wh, reg = (np.zeros((slots, size), np.float32) for size in (1, 3, 2, 2))
        rotbin, rotres = np.zeros((slots, 2), np.int64), np.zeros((slots, 2), np.float32)
        ind = np.zeros(slots, np.int64)
        reg_mask, rot_mask = np.zeros(slots, np.uint8), np.zeros(slots, np.uint8)
        truth, boxes_3d = [], []

        facts = objects.fields
        boxes = view.boxes(objects.boxes)
        for k in self.slots(objects):
            cls = objects.classes[k]
            width, height = boxes[k, 2:] - boxes[k, :2]
            if not objects.valid[k] or cls == DROPPED or height <= 0 or width <= 0:
                continue
            center = (boxes[k, :2] + boxes[k, 2:]) / 2
            cell = center.astype(np.int32)
            radius = max(0, int(gaussian_radius((height, width))))  # sides unrounded, unlike the other tasks
            if cls < 0:
                self.ignore(hm if cls == IGNORED_FOR_ALL else hm[ignored_for(cls)][None], boxes[k], cell, radius)
                continue
            self.draw(hm[cls], cell, radius)
            dep[k], dim[k] = facts['depth'][k], facts['dim'][k]
            rotbin[k], rotres[k] = alpha_bins(facts['alpha'][k])
            wh[k] = width, height
            reg[k] = center - cell
            ind[k] = cell[1] * out_w + cell[0]
            reg_mask[k] = not view.jittered  # an image that was scaled does not show these depths and sizes
            rot_mask[k] = 1
            rot = np.stack([np.zeros(2), rotbin[k], np.sin(rotres[k]), np.cos(rotres[k])], 1)  # [2, 4]
            size = wh[k] if self.opt.reg_bbox else ()
            truth.append([*center, 1, *rot.ravel(), *dep[k], *dim[k], *size, cls])
            boxes_3d.append([*dim[k], *facts['location'][k], facts['rotation_y'][k]])

        targets: dict[str, np.ndarray] = {
            'hm': hm,
            'dep': dep,
            'dim': dim,
            'ind': ind,
            'rotbin': rotbin,
            'rotres': rotres,
        }
        targets.update(reg_mask=reg_mask, rot_mask=rot_mask)
        if self.opt.reg_bbox:
            targets['wh'] = wh
        if self.opt.reg_offset:
            targets['reg'] = reg
        columns = DecodedBox3d.COLUMNS if self.opt.reg_bbox else DecodedBox3d.COLUMNS_WITHOUT_SIZE
        gt_det = np.array(truth or [[0] * columns], np.float32)
        gt_box_3d = np.array(boxes_3d or [[np.nan] * 7], np.float32)
        return targets, {'gt_det': gt_det, 'gt_box_3d': gt_box_3d, **self.image_meta(index)}

    def ignore(self, heatmaps: np.ndarray, box: np.ndarray, cell: np.ndarray, radius: int) -> None:
        """Take the place of an ignored object out of the loss of classes' heatmaps [n, h, w]."""
        x, y = cell
        if self.opt.rect_mask:
            x1, y1, x2, y2 = box.astype(np.int32)
            heatmaps[:, y1 : y2 + 1, x1 : x2 + 1] = NEARLY_ONE
            return
        for heatmap in heatmaps:
            self.draw(heatmap, cell, radius)
        heatmaps[:, y, x] = NEARLY_ONE
