"""Score a folder of KITTI result files: 2D AP, AOS, bird's-eye AP and 3D AP by class and difficulty."""

from pathlib import Path

from centernet.datasets.evaluation.kitti_eval import evaluate_kitti, format_kitti
from centernet.utils.cli import OneLineParser, run_cli
from centernet.utils.files import refuse_overwriting, write_json


def main() -> None:
    parser = OneLineParser(description=__doc__)
    parser.add_argument('gt_dir', help='folder of labels (training/label_2)')
    parser.add_argument('results_dir', help='folder of NNNNNN.txt results; frames without a file do not count')
    parser.add_argument('--loose', action='store_true', help="the published project's BEV and 3D overlaps")
    parser.add_argument('--json', metavar='FILE', help='also write the metrics to FILE')
    args = parser.parse_args()
    if args.json:
        folders = [Path(args.gt_dir), Path(args.results_dir)]
        read = [path for folder in folders if folder.is_dir() for path in folder.glob('*.txt')]
        refuse_overwriting(args.json, read, '--json')
    metrics = evaluate_kitti(args.gt_dir, args.results_dir, args.loose, require_truth=True)
    print(format_kitti(metrics))
    if args.json:
        write_json(args.json, metrics, indent=2)


if __name__ == '__main__':
    run_cli(main)
