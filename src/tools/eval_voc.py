"""Score a saved results.json by Pascal VOC's mAP at IoU 0.5, 11-point and area under the curve."""

from centernet.datasets.evaluation.score_file import score_file
from centernet.datasets.evaluation.voc_eval import evaluate_voc
from centernet.utils.cli import run_cli


def main() -> None:
    score_file(__doc__, evaluate_voc)


if __name__ == '__main__':
    run_cli(main)
