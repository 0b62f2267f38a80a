"""COCO 2017 people, with 17 joints."""

from typing import TYPE_CHECKING

from ..source import BOXES, JOINTS
from .coco import COCO

if TYPE_CHECKING:
    from ..index import AnnotationIndex

# fmt: off
COCO_JOINTS = [
    'nose', 'left_eye', 'right_eye', 'left_ear', 'right_ear', 'left_shoulder', 'right_shoulder',
    'left_elbow', 'right_elbow', 'left_wrist', 'right_wrist', 'left_hip', 'right_hip',
    'left_knee', 'right_knee', 'left_ankle', 'right_ankle',
]
COCO_SKELETON = [  # 0-based, where COCO's files count from 1
    [15, 13], [13, 11], [16, 14], [14, 12], [11, 12], [5, 11], [6, 12], [5, 6], [5, 7], [6, 8],
    [7, 9], [8, 10], [1, 2], [0, 1], [0, 2], [1, 3], [2, 4], [3, 5], [4, 6],
]
# fmt: on


class COCOHP(COCO):
    """COCO 2017's people (`data/coco`, person_keypoints); trains on the images that have one."""

    offers = (BOXES, JOINTS)
    annotations = 'person_keypoints'
    class_names = ['person']
    cat_ids = {1: 0}
    max_objs = 32
    num_joints = len(COCO_JOINTS)
    joint_names = COCO_JOINTS
    flip_idx = [[left, left + 1] for left in range(1, len(COCO_JOINTS), 2)]
    skeleton = COCO_SKELETON

    def arrange(self, index: 'AnnotationIndex', split: str) -> 'AnnotationIndex':
        """Leave images without people out of training: they teach nothing about people. Evaluation keeps them."""
        return index.select(index.counts().nonzero()[0]) if split == 'train' else index
