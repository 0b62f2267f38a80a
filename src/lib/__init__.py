"""CenterNet ("Objects as Points", Zhou et al. 2019): an object is the centre point of its box.

Installed, this package is called `centernet`:

    import centernet

    detector = centernet.load_detector('model_best.pth')
    for cls, rows in detector.run('image.jpg')['results'].items():
        for x1, y1, x2, y2, score in rows[rows[:, 4] > 0.3]:
            print(detector.opt.class_names[cls - 1], score, (x1, y1, x2, y2))
"""

from typing import TYPE_CHECKING, Any

from .utils.allocator import keep_freed_memory
from .utils.errors import UserError
from .version import __version__

if TYPE_CHECKING:
    from .detectors.base_detector import BaseDetector

__all__ = ['UserError', '__version__', 'keep_freed_memory', 'load_detector']


def load_detector(checkpoint: str, task: str | None = None, **options: Any) -> 'BaseDetector':
    """Load a detector from a checkpoint.

    Args:
        checkpoint: file; one of ours records its task, network and classes.
        task: ctdet, exdet, ddd or multi_pose; by default the checkpoint's, or ctdet when it does not say.
        options: command-line options by name (`--help` lists them), such as `arch='resdcn_18'` for a published
            checkpoint, `gpus=-1`, `flip_test=True`, `input_res=256`, `dataset='pascal'`. The number type is the
            faster one on this processor, which takes seconds to measure once; `dtype='float32'` is the same everywhere.
            `vis_thresh='best'` takes the thresholds that test.py has found best into `detector.thresholds`.

    Returns:
        A detector of the task; `detector.run(path or BGR array)['results']` is {1-based class: rows}, and
        `detector.opt.class_names` the classes' names.

    Raises:
        centernet.UserError: the file or an option is wrong, in one line.
    """
    from .detectors.detector_factory import detector_factory
    from .models.checkpoints import checkpoint_facts
    from .opts import opts

    task = task or checkpoint_facts(checkpoint).get('task', 'ctdet')
    args = [task, '--load_model', str(checkpoint)]
    for name, value in options.items():
        if value is True:
            args.append(f'--{name}')
        elif value is not False and value is not None:
            args += [f'--{name}', ','.join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)]
    opt = opts().init(args)
    detector = detector_factory[opt.task](opt)
    detector.compute_in(*detector.fastest_way())
    return detector
