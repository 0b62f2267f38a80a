"""The debugging views: named pictures that are drawn on, then shown, plotted or saved."""

import functools
from argparse import Namespace
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from . import drawing
from .drawing import Detection
from .media import has_display, show_pictures, write_image

PLOT_LEVEL, SAVE_LEVEL = 3, 4  # of --debug; 1 shows the final detections, 2 the network's maps too


def network_input_to_image(x: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """The BGR uint8 picture [H, W, 3] that a normalised network input [3, H, W] was made from.

    Args:
        x: (pixel / 255 - mean) / std, an array or a tensor on the CPU.
        mean, std: of the three channels, in any shape of three numbers.
    """
    pixels = np.asarray(x, np.float32).transpose(1, 2, 0)  # [H, W, 3]
    pixels = pixels * np.reshape(std, 3) + np.reshape(mean, 3)
    return np.rint(np.clip(pixels * 255, 0, 255)).astype(np.uint8)


class Debugger:
    """Pictures with names, and what the tasks draw on them.

    Args:
        theme: 'white' or 'black', the ground of heatmaps and bird's-eye views.
        class_names: of class 0, 1, ...; a class without a name is called by its 1-based number.
        skeleton: limbs as pairs of 0-based joints.

    Boxes and points are in the pixels of the picture they are drawn on, classes 0-based.
    """

    def __init__(self, theme: str = 'white', class_names: Sequence[str] = (), skeleton: Sequence[tuple[int, int]] = ()):
        self.theme, self.class_names, self.skeleton = theme, class_names, skeleton
        self.imgs: dict[str, np.ndarray] = {}

    @classmethod
    def of(cls, opt: Namespace) -> 'Debugger':
        """A debugger with the theme, the class names and the skeleton of a run's options."""
        return cls(opt.debugger_theme, opt.class_names, opt.skeleton or ())

    # -------------------------------------------------------------------------------- pictures

    def add_img(self, img: np.ndarray, img_id: str = 'default') -> None:
        """Keep a copy of picture `img` (BGR uint8 [H, W, 3]) under a name."""
        self.imgs[img_id] = np.array(img, order='C')

    def add_blend_img(self, back: np.ndarray, fore: np.ndarray, img_id: str = 'blend', trans: float = 0.7) -> None:
        """Keep picture `back` with a share `trans` of `fore` over it (stretched to it)."""
        self.imgs[img_id] = drawing.blend(back, fore, trans)

    def gen_colormap(self, maps: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
        """Class heatmaps [C, h, w] in [0, 1] as one picture of `size` (width, height)."""
        return drawing.heatmap_to_color(maps, None, size, self.theme)

    def gen_colormap_hp(self, maps: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
        """Joint heatmaps [J, h, w] in [0, 1] as one picture, in the colours that the joints have."""
        return drawing.heatmap_to_color(maps, drawing.rainbow(len(maps)), size, self.theme)

    def add_heatmap(self, picture: np.ndarray, maps: np.ndarray, img_id: str, of_joints: bool = False) -> None:
        """Keep heatmaps [C, h, w] in [0, 1] blended over the network's input `picture`."""
        colormap = self.gen_colormap_hp if of_joints else self.gen_colormap
        self.add_blend_img(picture, colormap(maps, picture.shape[1::-1]), img_id)

    def add_boxes(self, picture: np.ndarray, rows: np.ndarray, img_id: str, thresh: float = 0.0) -> None:
        """Keep `picture` with boxes on it: rows [n, 6] x1 y1 x2 y2 score class, those with a score >= `thresh`."""
        self.add_img(picture, img_id)
        for row in rows[rows[:, 4] >= thresh]:
            self.add_box(row[:4], int(row[5]), row[4], img_id)

    def add_poses(
        self,
        picture: np.ndarray,
        rows: np.ndarray,
        img_id: str,
        thresh: float = 0.0,
        joint_scores: np.ndarray | None = None,
    ) -> None:
        """Keep `picture` with people on it: rows [n, 5 + 2J] of box, score, joints, those with a score >= `thresh`.

        `joint_scores` [n, J]: joints that are hardly seen are drawn hollow. A joint at NaN is left out.
        """
        self.add_img(picture, img_id)
        scores = None if joint_scores is None else {1: joint_scores}
        found = drawing.detections_from_results({1: rows}, 'multi_pose', self.class_names, scores)
        self.add_detections(found, img_id, thresh)

    # ------------------------------------------------------------------------------ detections

    def add_detections(
        self,
        detections: Iterable[Detection],
        img_id: str = 'default',
        thresh: float = 0.0,
        calib: np.ndarray | None = None,
    ) -> None:
        """Everything about the detections (see drawing.py) of score >= `thresh`; with `calib` [3, 4] 3D boxes."""
        self.imgs[img_id] = drawing.draw_detections(self.imgs[img_id], detections, thresh, self.skeleton, calib)

    def add_box(self, box: Sequence[float], cat: int = 0, score: float | None = None, img_id: str = 'default') -> None:
        """A box [x1, y1, x2, y2] with its class's name and its score."""
        name = drawing.class_name(self.class_names, int(cat) + 1)
        label = name if score is None else f'{name} {score:.2f}'
        drawing.draw_box(self.imgs[img_id], box, label, drawing.class_color(int(cat)))

    def add_extreme_points(self, points: np.ndarray, cat: int = 0, img_id: str = 'default') -> None:
        """The extreme points [4, 2] (or 8 numbers; top, left, bottom, right) of one object."""
        drawing.draw_extreme_points(self.imgs[img_id], points, drawing.class_color(int(cat)))

    def add_bird_view(
        self,
        predicted: Iterable[Detection],
        truth: Iterable[Detection] = (),
        img_id: str = 'bird',
        thresh: float = 0.0,
    ) -> None:
        """A picture of 3D boxes from above: predicted ones of score >= `thresh` outlined, true ones filled in grey."""
        self.imgs[img_id] = drawing.bird_view(predicted, truth, thresh, theme=self.theme)

    # ---------------------------------------------------------------------------------- output

    def finish(self, level: int, folder: str | Path, prefix: str = '') -> None:
        """Bring out the pictures as `--debug` asks: 1, 2 in windows, 3 with matplotlib, 4 into `folder`."""
        if level >= SAVE_LEVEL:
            self.save_all_imgs(folder, prefix)
        elif level == PLOT_LEVEL:
            self.plot_all_imgs(folder, prefix)
        elif has_display():
            show_pictures(self.imgs, pause=True)
        else:
            self.save_all_imgs(folder, prefix)

    def save_all_imgs(self, folder: str | Path, prefix: str = '') -> None:
        """Write each picture to FOLDER/PREFIX + name + .png."""
        say_where(Path(folder))
        for img_id, img in self.imgs.items():
            if img.size:
                write_image(Path(folder) / f'{prefix}{img_id}.png', img)

    def plot_all_imgs(self, folder: str | Path, prefix: str = '') -> None:
        """All pictures in one matplotlib figure: a window, or without a display FOLDER/PREFIX + plot.png."""
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
        say_where(Path(folder))
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        rgba = np.asarray(canvas.buffer_rgba())  # [height, width, 4]
        write_image(Path(folder) / f'{prefix}plot.png', cv2.cvtColor(rgba, cv2.COLOR_RGBA2BGR))


@functools.cache
def say_where(folder: Path) -> None:
    """Tell once where the pictures go."""
    print(f"debugging pictures are saved in '{folder}'", flush=True)
