"""Score a saved results.json by COCO's box metric: the usual 12 metrics and the AP of each class."""

from centernet.datasets.evaluation.coco_eval import evaluate_coco
from centernet.datasets.evaluation.score_file import score_file
from centernet.utils.cli import run_cli


def main() -> None:
    score_file(__doc__, evaluate_coco)


if __name__ == '__main__':
    run_cli(main)
