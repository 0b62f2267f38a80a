"""The two layouts on disk that toy data is written in."""

import os
from pathlib import Path

import cv2
import numpy as np

from ...utils.media import write_image
from ..kitti_files import CATEGORIES, label_line, write_text
from .canvas import Scene

JPEG = [cv2.IMWRITE_JPEG_QUALITY, 92]


class OwnFolder:
    """`annotations/{train,val}.json` and `images/{train,val}/`: what `--dataset PATH` takes."""

    first_id = 1

    def __init__(self, root: Path):
        self.root = root

    def annotation_file(self, split: str) -> Path:
        """Return the path of a split's annotation file."""
        return self.root / 'annotations' / f'{split}.json'

    def holds_images(self) -> bool:
        """Return whether there is anything in the place of the images."""
        return any((self.root / 'images').glob('*/*'))

    def name(self, split: str, image_id: int) -> str:
        """Return the file name of an image: a folder a split."""
        return f'{split}/{image_id:06d}.jpg'

    def add(self, name: str, scene: Scene) -> None:
        """Write one image under a file name."""
        write_image(self.root / 'images' / name, scene.image, JPEG)

    def finish(self, split: str, names: list[str]) -> None:
        """Write what lists the images of a split, beside the annotation file."""


class KittiFolder:
    """KITTI's `training/{image_2,label_2,calib}` and `ImageSets_3dop`, and what the converter makes of them.

    `kitti/images/trainval` is a link to the images in `training/image_2`.
    """

    first_id = 0

    def __init__(self, root: Path):
        self.root = root / 'kitti'
        self.training = self.root / 'training'
        link = self.root / 'images' / 'trainval'
        if not os.path.lexists(link):
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to('../training/image_2', target_is_directory=True)

    def annotation_file(self, split: str) -> Path:
        """Return the path of a split's annotation file."""
        return self.root / 'annotations' / f'kitti_3dop_{split}.json'

    def holds_images(self) -> bool:
        """Return whether there is anything in the place of images, labels and calibrations."""
        return any(self.training.glob('*/*'))

    def name(self, split: str, image_id: int) -> str:
        """Return the file name of an image: KITTI keeps all splits in one folder."""
        return f'{image_id:06d}.png'

    def add(self, name: str, scene: Scene) -> None:
        """Write one image with its label and calibration files."""
        write_image(self.training / 'image_2' / name, scene.image)
        frame = Path(name).stem
        lines = [label_line(CATEGORIES[each['category_id'] - 1], each) for each in scene.annotations]
        labels = ''.join(f'{line}\n' for line in lines)
        write_text(self.training / 'label_2' / f'{frame}.txt', labels)
        write_text(self.training / 'calib' / f'{frame}.txt', calibration(np.array(scene.facts['calib'])))

    def finish(self, split: str, names: list[str]) -> None:
        """Write the list of a split's frames."""
        frames = ''.join(f'{Path(name).stem}\n' for name in names)
        write_text(self.root / 'ImageSets_3dop' / f'{split}.txt', frames)


def calibration(camera: np.ndarray) -> str:
    """Format a KITTI calibration file whose four cameras are one [3, 4], with its lidar at the same place."""
    axes = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0]])  # lidar: x forward, y left, z up
    matrices = {f'P{number}': camera for number in range(4)}
    matrices |= {'R0_rect': np.eye(3), 'Tr_velo_to_cam': axes, 'Tr_imu_to_velo': np.eye(3, 4)}
    return ''.join(
        f'{name}: {" ".join(f"{value:.12e}" for value in matrix.ravel())}\n' for name, matrix in matrices.items()
    )
