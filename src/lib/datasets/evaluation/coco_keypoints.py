"""COCO's keypoint metric of a dataset's results, beside its box metric."""

from collections.abc import Sequence

from .coco_boxes import CocoBoxes, learnt_truth
from .coco_eval import BOX_METRICS, KEYPOINT_METRICS, evaluate_coco


class CocoKeypoints(CocoBoxes):
    """AP and AR of joints at OKS .5 to .95, as COCO defines them, and those of the boxes."""

    needs = ('box', 'score', 'keypoints')
    names = BOX_METRICS + KEYPOINT_METRICS
    main = 'kp_AP'

    def score(self, ground_truth: dict, saved: Sequence[dict]) -> dict[str, float]:
        """Score detections by COCO's box and keypoint metrics: `{metric: value}`."""
        ground_truth = learnt_truth(ground_truth, self.cat_ids)
        return super().score(ground_truth, saved) | evaluate_coco(ground_truth, saved, 'keypoints')
