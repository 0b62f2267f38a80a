"""Results files: the evaluators and vis_pred."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from . import coco
from .case import Case, read_strictly, tool
from .mutations import break_file, break_json, pick, rows_of

LEAST_AP = 0.4  # of all results but one


def make_base(folder: Path) -> None:
    """Own data with a results file that is right."""
    coco.make_base(folder)
    (folder / 'results.json').write_text(json.dumps(right_results()))


def right_results() -> list[dict[str, Any]]:
    """Return the annotations of train.json as detections."""
    keys = ('image_id', 'category_id', 'bbox', 'keypoints')
    rows = [{key: row[key] for key in keys} for row in coco.annotated()['annotations']]
    return [row | {'score': 0.9 - i / 100} for i, row in enumerate(rows)]


def make_case(rng: np.random.Generator, base: Path, folder: Path) -> Case:
    """Return a broken results or annotation file, scored or drawn."""
    data, output = folder / 'data', folder / 'output'
    shutil.copytree(base, data)
    output.mkdir()
    truth, results = data / 'annotations/train.json', data / 'results.json'
    broken = pick(rng, [results, results, results, truth])
    note = break_file(rng, broken, break_json)
    name = pick(rng, ['eval_coco', 'eval_coco_hp', 'eval_voc', 'vis_pred'])
    if name == 'vis_pred':
        drawing = tool(name, truth, results, data / 'images', '--output', output, *pick(rng, [[], ['--truth']]))

        def check_drawings(_: Any, shown: str) -> None:
            expected = coco.untouched_boxes(truth)
            lost = [image for image in expected if not (output / image).exists()]
            assert not lost, f'no drawing of {lost}'

        return Case(f'{name}: {note}', drawing, check_drawings, [data], output)

    def check(_: Any, shown: str) -> None:
        metrics = read_strictly(output / 'metrics.json')
        for metric, value in metrics.items():
            assert -1 <= value <= 100, f'{metric} is {value}'
        rows = rows_of(results.read_bytes())
        right = right_results()
        if broken == results and rows is not None and sum(row in rows for row in right) >= len(right) - 1:
            first = next(iter(metrics.values()))
            assert first >= LEAST_AP, f'one broken row of {len(rows)} brings the AP to {first}'

    return Case(f'{name}: {note}', tool(name, truth, results, '--json', output / 'metrics.json'), check, [data], output)
