"""The detector of each task."""

from ..tasks import TASKS, load_class
from .base_detector import BaseDetector

detector_factory: dict[str, type[BaseDetector]] = {
    name: load_class('detectors', name, task.detector) for name, task in TASKS.items()
}
