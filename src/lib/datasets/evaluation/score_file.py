"""The command line that eval_coco, eval_coco_hp and eval_voc share: score a saved results file."""

from collections.abc import Callable

from ...utils.cli import OneLineParser
from ...utils.errors import UserError
from ...utils.files import refuse_overwriting, write_json
from ..coco_file import read_coco, read_results


def score_file(description: str, evaluate: Callable[[dict, list[dict]], dict[str, float]]) -> None:
    """Parse `ANNOTATIONS RESULTS [--json FILE]`, evaluate, and write the metrics if asked to.

    Args:
        description: what the program does, for `--help`.
        evaluate: gives `{metric: value}` of a COCO dict and a list of detections; -1 where there is nothing to find.

    Raises:
        UserError: a file is missing or not of the format expected, there is nothing to find in the annotations, or
            FILE is one of the files that are read.
    """
    parser = OneLineParser(description=description)
    parser.add_argument('annotations', help='annotation file in COCO format')
    parser.add_argument('results', help='results.json: a list of {image_id, category_id, bbox, score, ...}')
    parser.add_argument('--json', metavar='FILE', help='also write the metrics to FILE')
    args = parser.parse_args()
    if args.json:
        refuse_overwriting(args.json, [args.annotations, args.results], '--json')
    ground_truth, detections = read_coco(args.annotations), read_results(args.results)
    metrics = evaluate(ground_truth, detections)
    if all(value == -1 for value in metrics.values()):
        raise UserError(f"'{args.annotations}' has no usable object to find: nothing can be scored")
    if args.json:
        write_json(args.json, metrics, indent=2)
