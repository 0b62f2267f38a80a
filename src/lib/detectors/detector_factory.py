"""The detector of each task."""

from .ctdet import CtdetDetector

detector_factory = {
    'ctdet': CtdetDetector,
}
