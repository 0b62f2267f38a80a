"""Score a saved results.json of people by COCO's keypoint metric, then their boxes, if any, by its box metric."""

from centernet.datasets.evaluation.coco_eval import categories_with_keypoints, evaluate_coco
from centernet.datasets.evaluation.score_file import score_file
from centernet.utils.cli import run_cli


def evaluate(ground_truth: dict, detections: list[dict]) -> dict[str, float]:
    """Compute the metrics of the joints; those of the boxes too unless no detection has a box."""
    metrics = evaluate_coco(ground_truth, detections, 'keypoints')
    if detections and not any('bbox' in row for row in detections):
        print('the results have no boxes: only joints are scored')
        return metrics
    return metrics | evaluate_coco(ground_truth, detections, 'bbox', categories_with_keypoints(ground_truth))


def main() -> None:
    score_file(__doc__, evaluate)


if __name__ == '__main__':
    run_cli(main)
