"""The metrics by the names that `--eval_metric` takes."""

from collections.abc import Sequence
from typing import Any

from ...utils.errors import UserError, did_you_mean
from .coco_boxes import CocoBoxes
from .coco_keypoints import CocoKeypoints
from .kitti_eval import Kitti
from .metric import Columns, Metric
from .voc_eval import Voc

metric_factory: dict[str, type[Metric]] = {
    'bbox': CocoBoxes,
    'keypoints': CocoKeypoints,
    'voc': Voc,
    'kitti': Kitti,
}


def create_metric(name: str, defaults: Sequence[str], task: str, columns: Columns, **facts: Any) -> Metric:
    """Create a metric that can score a task's results.

    Args:
        name: a name of `metric_factory`; '' for the first of `defaults` that can score the results.
        defaults: names, or '' where there is none.
        task: the task's name, for messages.
        columns: the layout of the task's result rows.
        facts: the other arguments of `Metric`.

    Raises:
        UserError: there is no such metric, or it needs columns that the results lack.
    """
    fitting = [each for each, metric in metric_factory.items() if set(metric.needs) <= set(columns)]
    if name and name not in metric_factory:
        raise UserError(
            f"--eval_metric '{name}' is not one of {', '.join(metric_factory)}" + did_you_mean(name, metric_factory)
        )
    chosen = name or next((each for each in defaults if each in fitting), '')
    if chosen not in fitting:
        lacking = [need for need in metric_factory[chosen].needs if need not in columns] if chosen else ['a metric']
        raise UserError(
            f"--eval_metric '{chosen}' needs {', '.join(lacking)}, which results of {task} lack; "
            f'{", ".join(fitting) or "none"} can score them'
        )
    return metric_factory[chosen](columns=columns, **facts)
