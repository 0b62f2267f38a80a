"""The report of an evaluation: report.html and thresholds.json beside metrics.json."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..datasets.evaluation.metric import Results
from ..utils.cli import one_line
from ..utils.errors import UserError
from ..utils.thresholds import FILE, write_thresholds
from ..utils.words import plural
from .boxes3d import add_boxes_3d
from .confusion import add_confusion
from .curves import add_curves
from .errors import add_errors
from .events import write_events
from .joints import add_joints
from .judged import Judged, judge
from .page import Cell, Page
from .sizes import add_sizes
from .worst import add_worst

if TYPE_CHECKING:
    from ..opts import Options

logger = logging.getLogger(__name__)

REPORT = 'report.html'


def report_safely(opt: 'Options', dataset: Any, results: Results, metrics: dict[str, float]) -> Judged | None:
    """Write the report of results that were scored; a failure is said, with its place, and nothing else is lost.

    Args:
        opt: options; `save_dir` is where the metrics lie.
        dataset: a `TaskDataset`.
        results: `{image id: {1-based class: rows [n, columns]}}`.
        metrics: what `dataset.run_eval` returned of them; without any there is nothing to report.

    Returns:
        The results, judged; None where there is no report.
    """
    judged = None
    if metrics:
        with surviving(f"the report cannot be written ('{opt.save_dir}/metrics.json' has all metrics)"):
            judged = write_report(opt, dataset, results, metrics)
            write_events(opt, judged)
    return judged


@contextlib.contextmanager
def surviving(what: str) -> Iterator[None]:
    """Let nothing that goes wrong inside end the program: hours of training or testing hang on more than a report.

    A full disk and the like is said in one line, a fault of ours with its traceback.

    Args:
        what: the beginning of that line.
    """
    try:
        yield
    except (OSError, UserError, ImportError, MemoryError) as error:
        logger.warning('%s: %s', what, one_line(error))
    except Exception as error:
        logger.warning('%s: %s: %s', what, type(error).__name__, one_line(error), exc_info=True)


def write_report(opt: 'Options', dataset: Any, results: Results, metrics: dict[str, float]) -> Judged:
    """Write `report.html` and `thresholds.json`; arguments as `report_safely` takes them.

    Raises:
        UserError: they cannot be written.
    """
    judged = judge(dataset, results, metrics)
    folder = Path(opt.save_dir)
    write_best(folder / FILE, opt, judged)
    page = Page(f'{opt.exp_id}: {opt.task} on {split_name(dataset)}', subtitle(opt, judged))
    add_metrics(page, judged)
    add_curves(page, judged)
    add_confusion(page, judged)
    add_sizes(page, judged)
    add_errors(page, judged)
    add_joints(page, judged)
    add_boxes_3d(page, judged, folder)
    add_worst(page, judged, results)
    page.write(folder / REPORT)
    logger.info('report: %s, best thresholds: %s', folder / REPORT, folder / FILE)
    return judged


def write_best(path: Path, opt: 'Options', judged: Judged) -> None:
    """Write the best threshold of each class, and of all together, for `--vis_thresh best`."""
    of_all = judged.best_of_all
    write_thresholds(
        path,
        None if of_all is None else of_all.threshold,
        {
            name: None if best is None else best.threshold
            for name, best in zip(judged.class_names, judged.best, strict=True)
        },
        checkpoint=os.path.basename(opt.load_model),
        annotations=judged.dataset.annotation_file,
    )


def split_name(dataset: Any) -> str:
    """Return the name of a dataset's split for a title."""
    return f'{dataset.opt.dataset} {dataset.split}'


def subtitle(opt: 'Options', judged: Judged) -> str:
    """Return what was tested and on what."""
    images, objects = plural(len(judged.dataset), 'image'), plural(judged.curve_of_all.objects, 'object')
    return f'{opt.load_model} on {images} with {objects}: {plural(len(judged.detections), "detection")}'


def add_metrics(page: Page, judged: Judged) -> None:
    """Add the metrics of `metrics.json`, but for those of single classes, which have a table of their own."""
    page.section('Metrics', 'As metrics.json has them; a dash where there is nothing to find.')
    rows: list[list[Cell]] = [
        [name, value if value != -1 else None] for name, value in judged.metrics.items() if '/' not in name
    ]
    page.table(['metric', 'value'], rows)
