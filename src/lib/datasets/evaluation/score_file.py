"""The command line that eval_coco, eval_coco_hp and eval_voc share: score a saved results file."""

from collections.abc import Callable

from ...utils.cli import OneLineParser
from ...utils.errors import UserError
from ...utils.files import read_json, write_json
from ..index import read_coco


def score_file(description: str, evaluate: Callable[[dict, list[dict]], dict[str, float]]) -> None:
    """Parse `ANNOTATIONS RESULTS [--json FILE]`, evaluate, and write the figures when asked to.

    Raises:
        UserError: a file is missing or not of the format expected.
    """
    parser = OneLineParser(description=description)
    parser.add_argument('annotations', help='annotation file in COCO format')
    parser.add_argument('results', help='results.json: a list of {image_id, category_id, bbox, score, ...}')
    parser.add_argument('--json', metavar='FILE', help='also write the figures to FILE')
    args = parser.parse_args()
    ground_truth, detections = read_coco(args.annotations, images=('id',)), read_json(args.results)
    if not isinstance(detections, list) or not all(isinstance(row, dict) for row in detections):
        raise UserError(f"'{args.results}' is not a results file: expected a JSON list of objects")
    figures = evaluate(ground_truth, detections)
    if args.json:
        write_json(args.json, figures, indent=2)
