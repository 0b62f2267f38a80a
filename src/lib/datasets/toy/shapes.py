"""Toy data for ctdet and exdet: flat shapes of a few classes on textured grounds."""

from collections.abc import Callable

import cv2
import numpy as np

from ...utils.errors import UserError
from ...utils.extreme_points import extreme_points
from .canvas import (
    Canvas,
    Colour,
    Scene,
    box_overlap,
    colour_unlike,
    coverage,
    random_ground,
    texture,
    tight_box,
)

SIDES = 1 / 8, 1 / 2  # of the image's shorter side: the least and the most that a box's sides measure
CROWDED = 0.5  # share of the images in which boxes may overlap
LEAST_VISIBLE = 0.5  # of each object, after everything that is drawn over it
MOST_OVERLAP = 0.5  # IoU of two boxes
TRIES = 20  # at placing an object; after them the image has one fewer


class ShapeScenes:
    """Images of 1 to 6 shapes, with random sizes, stretches, rotations, colours and textures.

    Boxes and polygons are those of the whole shape, also where another one hides a part (at most half of
    it); all of it lies inside the image, a little away from the border.

    Args:
        classes: how many classes, at most `len(SHAPES)`.
        colors: 'random' (colour says nothing about the class) or 'class' (each class has a favourite hue,
            from which its objects stray widely: a hint, not an answer).

    Raises:
        UserError: the number of classes or the colours are not among those.
    """

    def __init__(self, classes: int = 3, colors: str = 'random'):
        if not 1 <= classes <= len(SHAPES):
            raise UserError(f'toy data has 1 to {len(SHAPES)} classes of shapes; found {classes}')
        if colors not in ('random', 'class'):
            raise UserError(f"colors are 'random' or 'class'; found '{colors}'")
        self.outlines = list(SHAPES.values())[:classes]
        self.categories = [
            {'id': number + 1, 'name': name, 'supercategory': 'shape'}
            for number, name in enumerate(list(SHAPES)[:classes])
        ]
        self.colors = colors

    def draw(self, rng: np.random.Generator, width: int, height: int) -> Scene:
        """Draw an image of that size."""
        ground, ground_colours = random_ground(rng, width, height)
        canvas = Canvas(ground)
        annotations: list[dict] = []
        most_overlap = MOST_OVERLAP if rng.uniform() < CROWDED else 0
        for _ in range(rng.integers(1, 7)):
            label = int(rng.integers(len(self.outlines)))
            polygon = self._place(rng, label, canvas, annotations, most_overlap)
            if polygon is None:
                continue
            self._paint(rng, label, polygon, canvas, ground_colours)
            annotations.append(self._annotation(label, polygon, width, height))
        return Scene(canvas.finish(rng, noise=6), annotations)

    def _place(
        self, rng: np.random.Generator, label: int, canvas: Canvas, annotations: list[dict], most_overlap: float
    ) -> np.ndarray | None:
        """Return the outline of a new object [V, 2] at a place where it hides nothing too much, or None."""
        height, width = canvas.owner.shape
        side = min(width, height)
        for _ in range(TRIES):
            polygon = rotate(self.outlines[label](), rng.uniform(0, 2 * np.pi))
            polygon *= np.exp(rng.uniform(-0.15, 0.15, 2) * (1, -1))  # [V, 2]
            low, span = polygon.min(0), np.ptp(polygon, axis=0)
            size = span / span.max() * side * np.exp(rng.uniform(*np.log(SIDES)))  # [2]
            if size.min() < SIDES[0] * side + 0.01:  # 0.01: rounding must not push it below
                continue
            margin = side / 32
            corner = rng.uniform(margin, np.array((width, height)) - size - margin)
            polygon = np.round((polygon - low) / span * size + corner, 2)
            box = tight_box([polygon])
            if any(box_overlap(box, other['bbox']) > most_overlap for other in annotations):
                continue
            if canvas.spares(*coverage(polygon, width, height), LEAST_VISIBLE):
                return polygon
        return None

    def _paint(
        self, rng: np.random.Generator, label: int, polygon: np.ndarray, canvas: Canvas, ground_colours: list[Colour]
    ) -> None:
        height, width = canvas.owner.shape
        hue = None if self.colors == 'random' else label / len(self.outlines) + rng.normal(0, 0.08)
        colour = colour_unlike(rng, ground_colours, 110, hue)
        region, alpha = coverage(polygon, width, height)
        fill = texture(rng, alpha.shape[1], alpha.shape[0], colour, colour * rng.uniform(0.6, 0.9))
        rim = alpha - cv2.erode(alpha, np.ones((3, 3), np.uint8))
        fill *= 1 - rng.uniform(0.2, 0.6) * rim[..., None]
        canvas.paste(region, fill, alpha)

    def _annotation(self, label: int, polygon: np.ndarray, width: int, height: int) -> dict:
        return {
            'category_id': label + 1,
            'bbox': tight_box([polygon]),
            'area': round(float(cv2.contourArea(polygon.astype(np.float32))), 2),
            'iscrowd': 0,
            'segmentation': [polygon.ravel().tolist()],
        }


class ExtremeShapeScenes(ShapeScenes):
    """The same images, annotated with `extreme_points` too: [[x, y] of the top, left, bottom, right]."""

    def _annotation(self, label: int, polygon: np.ndarray, width: int, height: int) -> dict:
        annotation = super()._annotation(label, polygon, width, height)
        points = extreme_points(annotation['segmentation'], height, width)
        return annotation | {'extreme_points': np.round(points.astype(np.float64), 3).tolist()}


def rotate(points: np.ndarray, angle: float) -> np.ndarray:
    """Rotate points [V, 2] about the origin by an angle in radians."""
    cos, sin = np.cos(angle), np.sin(angle)
    return points @ np.array([[cos, sin], [-sin, cos]])


def regular(radii: list[float]) -> np.ndarray:
    """Return a polygon with vertices at equal angles and these distances from the centre: [V, 2]."""
    angles = np.arange(len(radii)) * 2 * np.pi / len(radii)
    return np.stack([np.sin(angles), -np.cos(angles)], axis=1) * np.array(radii)[:, None]


def cross() -> np.ndarray:
    """Return the outline [V, 2] of a cross."""
    arm = np.array([(0.3, 0.3), (0.3, 1), (-0.3, 1)])
    return np.concatenate([rotate(arm, turn * np.pi / 2) for turn in range(4)])


def heart() -> np.ndarray:
    """Return the outline [V, 2] of a heart."""
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x, -y], axis=1) / 17


def crescent() -> np.ndarray:
    """Return the outline [V, 2] of a crescent."""
    t = np.linspace(-1.9, 1.9, 24)
    outer = np.stack([np.cos(t), np.sin(t)], axis=1)
    tip = outer[0, 0]
    inner = (outer[::-1] - (tip, 0)) * (0.3, 1) + (tip, 0)
    return np.concatenate([outer, inner[1:-1]])


def arrow() -> np.ndarray:
    """Return the outline [V, 2] of an arrow."""
    right = np.array([(0, -1), (0.75, -0.1), (0.28, -0.1), (0.28, 1)])
    return np.concatenate([right, right[:0:-1] * (-1, 1)])


# In order of how easily they are distinguished: `classes=3` takes the first three.
SHAPES: dict[str, Callable[[], np.ndarray]] = {
    'disc': lambda: regular([1] * 40),
    'triangle': lambda: regular([1] * 3),
    'cross': cross,
    'star': lambda: regular([1, 0.42] * 5),
    'square': lambda: regular([1] * 4),
    'crescent': crescent,
    'heart': heart,
    'arrow': arrow,
}
