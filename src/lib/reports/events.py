"""Curves of an evaluation in TensorBoard."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..datasets.evaluation.matching import Curve
from ..logger import open_events
from .curves import classes_shown, f1_plots, precision_plots
from .judged import Judged
from .page import pixels_of

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from ..opts import Options

MOST_CLASSES = 20  # with a curve each
STEPS = 127  # thresholds of a curve, as TensorBoard has by default


def add_events(writer: 'SummaryWriter', judged: Judged, epoch: int) -> None:
    """Add the curves of an evaluation after an epoch: precision over recall, to be looked at by threshold, and F1."""
    shown = classes_shown(judged)
    if not shown:
        return
    add_curve(writer, 'precision_recall/all classes', judged.curve_of_all, epoch)
    for cls in shown[:MOST_CLASSES] if len(judged.class_names) > 1 else []:
        add_curve(writer, f'precision_recall/{judged.class_names[cls]}', judged.curves[cls], epoch)
    for name, plots in (('precision', precision_plots(judged, shown)), ('F1', f1_plots(judged, shown))):
        writer.add_image(name, pixels_of(next(plots)), epoch, dataformats='HWC')
    writer.flush()


def add_curve(writer: 'SummaryWriter', tag: str, curve: Curve, epoch: int) -> None:
    """Add one curve, as the numbers of right and wrong detections at each of `STEPS` thresholds."""
    thresholds = np.linspace(0, 1, STEPS)
    kept = np.searchsorted(-curve.scores, -thresholds, 'right')  # [STEPS]; detections at a threshold or over it
    right = np.append(0, curve.right.cumsum())[kept]
    wrong, missed = kept - right, curve.objects - right
    precision = np.divide(right, kept, out=np.ones(STEPS), where=kept > 0)
    writer.add_pr_curve_raw(
        tag, right, wrong, np.zeros(STEPS, int), missed, precision, right / curve.objects, epoch, STEPS
    )


def write_events(opt: 'Options', judged: Judged) -> None:
    """Write the curves of a test into `logs/test` of the run's folder, in the place of those of an earlier test.

    Without TensorBoard a note says that there are none.
    """
    folder = Path(opt.save_dir, 'logs', 'test')
    for earlier in folder.glob('events.out.tfevents.*'):
        earlier.unlink()
    writer = open_events(str(folder))
    if writer is not None:
        with writer:
            add_events(writer, judged, opt.facts.get('epoch', 0))
