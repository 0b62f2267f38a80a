"""The debugging views: named images that are drawn on, then shown, plotted or saved."""

import functools
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import ArrayLike

from . import drawing
from .detections import Detection, class_name, describe_pose, detections_from_results
from .media import has_display, show_images, write_image
from .thresholds import Thresholds, over

if TYPE_CHECKING:
    from ..opts import Options

logger = logging.getLogger(__name__)

PLOT_LEVEL, SAVE_LEVEL = 3, 4  # of --debug; 1 shows the final detections, 2 the network's maps too


def network_input_to_image(x: ArrayLike, mean: ArrayLike, std: ArrayLike) -> np.ndarray:
    """Return the image that a normalised network input was made from.

    Args:
        x: float [3, H, W], (pixel / 255 - mean) / std, an array or a tensor on the CPU.
        mean, std: of the three channels, in any shape of three numbers.

    Returns:
        BGR uint8 [H, W, 3].
    """
    pixels = np.asarray(x, np.float32).transpose(1, 2, 0)  # [H, W, 3]
    pixels = pixels * np.reshape(std, 3) + np.reshape(mean, 3)
    return np.rint(np.clip(pixels * 255, 0, 255)).astype(np.uint8)


class Debugger:
    """Images with names, and what the tasks draw on them.

    Args:
        theme: 'white' or 'black', the ground of heatmaps and bird's-eye views.
        class_names: of class 0, 1, ...; a class without a name is called by its 1-based number.
        skeleton: limbs as pairs of 0-based joints.

    Boxes and points are in the pixels of the image they are drawn on, classes 0-based.
    """

    def __init__(self, theme: str = 'white', class_names: Sequence[str] = (), skeleton: Sequence[tuple[int, int]] = ()):
        self.theme, self.class_names, self.skeleton = theme, class_names, skeleton
        self.imgs: dict[str, np.ndarray] = {}

    @classmethod
    def of(cls, opt: 'Options') -> 'Debugger':
        """Return a debugger with the theme, the class names and the skeleton of a run's options."""
        return cls(opt.debugger_theme, opt.class_names, opt.skeleton or ())

    # ---------------------------------------------------------------------------------- images

    def add_img(self, img: np.ndarray, img_id: str = 'default') -> None:
        """Keep a copy of image `img` (BGR uint8 [H, W, 3]) under a name."""
        self.imgs[img_id] = np.array(img, order='C')

    def add_blend_img(self, back: np.ndarray, fore: np.ndarray, img_id: str = 'blend', trans: float = 0.7) -> None:
        """Keep image `back` [H, W, 3] with a share `trans` of `fore` [h, w, 3] over it (stretched to it)."""
        self.imgs[img_id] = drawing.blend(back, fore, trans)

    def gen_colormap(self, maps: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
        """Draw class heatmaps [C, h, w] in [0, 1] as one image of `size` (width, height)."""
        return drawing.heatmap_to_color(maps, None, size, self.theme)

    def gen_colormap_hp(self, maps: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
        """Draw joint heatmaps [J, h, w] in [0, 1] as one image of `size` (width, height), in the joints' colours."""
        return drawing.heatmap_to_color(maps, drawing.rainbow(len(maps)), size, self.theme)

    def add_heatmap(self, image: np.ndarray, maps: np.ndarray, img_id: str, of_joints: bool = False) -> None:
        """Keep heatmaps [C, h, w] in [0, 1] blended over the network's input `image` [H, W, 3]."""
        colormap = self.gen_colormap_hp if of_joints else self.gen_colormap
        self.add_blend_img(image, colormap(maps, image.shape[1::-1]), img_id)

    def add_boxes(self, image: np.ndarray, rows: np.ndarray, img_id: str, thresh: Thresholds = 0.0) -> None:
        """Keep `image` [H, W, 3] with boxes on it: rows [n, 6] x1 y1 x2 y2 score class of score >= `thresh`."""
        self.add_img(image, img_id)
        for row in rows[over(thresh, rows[:, 4], rows[:, 5])]:
            self.add_box(row[:4], int(row[5]), row[4], img_id)

    def add_poses(
        self,
        image: np.ndarray,
        rows: np.ndarray,
        img_id: str,
        thresh: Thresholds = 0.0,
        joint_scores: np.ndarray | None = None,
    ) -> None:
        """Keep an image with people on it.

        Args:
            image: BGR uint8 [H, W, 3].
            rows: [n, 5 + 2J] of box, score, joints; those of score >= `thresh` are drawn. A joint at NaN is left out.
            img_id: the name to keep it under.
            thresh: the lowest score drawn.
            joint_scores: [n, J]; joints that are hardly seen are drawn hollow.
        """
        self.add_img(image, img_id)
        scores = None if joint_scores is None else {1: joint_scores}
        found = detections_from_results({1: rows}, describe_pose, self.class_names, scores)
        self.add_detections(found, img_id, thresh)

    # ------------------------------------------------------------------------------ detections

    def add_detections(
        self,
        detections: Iterable[Detection],
        img_id: str = 'default',
        thresh: Thresholds = 0.0,
        calib: np.ndarray | None = None,
    ) -> None:
        """Draw detections (see utils/detections.py) of score >= `thresh`; with `calib` [3, 4] their 3D boxes."""
        self.imgs[img_id] = drawing.draw_detections(self.imgs[img_id], detections, thresh, self.skeleton, calib)

    def add_box(self, box: Sequence[float], cat: int = 0, score: float | None = None, img_id: str = 'default') -> None:
        """Draw a box [x1, y1, x2, y2] with its class's name and its score."""
        name = class_name(self.class_names, int(cat) + 1)
        label = name if score is None else f'{name} {score:.2f}'
        drawing.draw_box(self.imgs[img_id], box, label, drawing.class_color(int(cat)))

    def add_extreme_points(self, points: np.ndarray, cat: int = 0, img_id: str = 'default') -> None:
        """Draw the extreme points [4, 2] (or 8 numbers; top, left, bottom, right) of one object."""
        drawing.draw_extreme_points(self.imgs[img_id], points, drawing.class_color(int(cat)))

    def add_bird_view(
        self,
        predicted: Iterable[Detection],
        truth: Iterable[Detection] = (),
        img_id: str = 'bird',
        thresh: Thresholds = 0.0,
    ) -> None:
        """Keep a view from above: predicted 3D boxes of score >= `thresh` outlined, true ones filled in grey."""
        self.imgs[img_id] = drawing.bird_view(predicted, truth, thresh, theme=self.theme)

    # ---------------------------------------------------------------------------------- output

    def finish(self, level: int, folder: str | Path, prefix: str = '') -> None:
        """Bring out the images as `--debug` asks: 1, 2 in windows, 3 with matplotlib, 4 into `folder`."""
        if level >= SAVE_LEVEL:
            self.save_all_imgs(folder, prefix)
        elif level == PLOT_LEVEL:
            self.plot_all_imgs(folder, prefix)
        elif has_display():
            show_images(self.imgs, pause=True)
        else:
            self.save_all_imgs(folder, prefix)

    def save_all_imgs(self, folder: str | Path, prefix: str = '') -> None:
        """Write each image to FOLDER/PREFIX + name + .png."""
        log_folder(Path(folder))
        for img_id, img in self.imgs.items():
            if img.size:
                write_image(Path(folder) / f'{prefix}{img_id}.png', img)

    def plot_all_imgs(self, folder: str | Path, prefix: str = '') -> None:
        """Plot all images in one matplotlib window, or without a display in FOLDER/PREFIX + plot.png."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        shown = {img_id: img for img_id, img in self.imgs.items() if img.size}
        if not shown:
            return
        columns = min(len(shown), 3)
        rows = -(-len(shown) // columns)
        size = (6 * columns, 5 * rows)
        if has_display():
            from matplotlib import pyplot

            figure = pyplot.figure(figsize=size)
        else:
            figure = Figure(figsize=size)
        for index, (img_id, img) in enumerate(shown.items(), start=1):
            axes = figure.add_subplot(rows, columns, index)
            axes.imshow(cv2.cvtColor(img, cv2.COLOR_BGR2RGB))
            axes.set_title(img_id)
            axes.axis('off')
        figure.tight_layout()
        if has_display():
            pyplot.show()
            return
        log_folder(Path(folder))
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        rgba = np.asarray(canvas.buffer_rgba())  # [height, width, 4]
        write_image(Path(folder) / f'{prefix}plot.png', cv2.cvtColor(rgba, cv2.COLOR_RGBA2BGR))


@functools.cache
def log_folder(folder: Path) -> None:
    """Log, once a folder, where the images go."""
    logger.info("debugging images are saved in '%s'", folder)
