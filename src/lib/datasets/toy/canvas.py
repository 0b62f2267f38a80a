"""The shared parts of the toy images: textures, colours, and a canvas that knows which object owns each pixel."""

import colorsys
from dataclasses import dataclass, field

import cv2
import numpy as np

Colour = np.ndarray  # float32 [3], BGR, 0 to 255

Region = tuple[slice, slice]  # rows, columns of an image

SUPERSAMPLE = 3  # shapes are drawn this many times larger, then shrunk: smooth, sub-pixel exact edges
FRACTION_BITS = 4  # of the coordinates that cv2 draws with


@dataclass
class Scene:
    """One image with what is known of it.

    Attributes:
        image: uint8 [H, W, 3], BGR.
        annotations: COCO's, without ids.
        facts: what COCO's entry of the image says beside its size and name.
    """

    image: np.ndarray
    annotations: list[dict]
    facts: dict = field(default_factory=dict)


class Canvas:
    """An image under construction.

    Attributes:
        image: float32 [H, W, 3], BGR, 0 to 255.
        owner: int [H, W]: 0 is the ground, n the n-th thing pasted.
        areas: pixels that each thing covers when nothing hides it; `areas[0]` is the ground's.
    """

    def __init__(self, ground: np.ndarray):
        self.image = ground
        self.owner: np.ndarray = np.zeros(ground.shape[:2], dtype=np.int64)
        self.areas = [self.owner.size]

    def visible(self) -> np.ndarray:
        """Return the share of each thing that can still be seen, 0 to 1: [number of things + 1], the ground first."""
        return np.bincount(self.owner.ravel(), minlength=len(self.areas)) / np.maximum(self.areas, 1)

    def spares(self, region: Region, alpha: np.ndarray, least_visible: float) -> bool:
        """Return whether `alpha` [h, w] pasted over `region` leaves that share of every earlier thing visible."""
        covered = self.owner[region][alpha > 0.5]
        hidden = np.bincount(covered, minlength=len(self.areas)) / np.maximum(self.areas, 1)
        return bool((self.visible() - hidden)[1:].min(initial=1) >= least_visible)

    def paste(self, region: Region, colours: np.ndarray, alpha: np.ndarray) -> None:
        """Blend `colours` [h, w, 3] over `region` as `alpha` [h, w], 0 to 1, says."""
        patch = self.image[region]
        patch += alpha[..., None] * (colours - patch)
        mask = alpha > 0.5
        self.owner[region][mask] = len(self.areas)
        self.areas.append(int(mask.sum()))

    def finish(self, rng: np.random.Generator, noise: float) -> np.ndarray:
        """Return the image with sensor noise of that standard deviation: uint8 [H, W, 3]."""
        grain = rng.standard_normal((*self.owner.shape, 1), dtype=np.float32) * noise
        return np.clip(self.image + grain, 0, 255).astype(np.uint8)


def region_of(box: np.ndarray, width: int, height: int) -> Region:
    """Return the pixels of an image that a box [4] x1 y1 x2 y2 touches, and one more on each side."""
    x1, y1 = np.maximum(np.floor(box[:2]).astype(int) - 1, 0)
    x2, y2 = np.ceil(box[2:]).astype(int) + 1
    return slice(y1, min(y2, height)), slice(x1, min(x2, width))


def coverage(polygon: np.ndarray, width: int, height: int) -> tuple[Region, np.ndarray]:
    """Return where a polygon [V, 2] lies in an image, and how much of each pixel there it covers (float32, 0 to 1).

    A pixel is the square from its column and row to the next ones, as in COCO's boxes.
    """
    region = rows, columns = region_of(np.concatenate([polygon.min(0), polygon.max(0)]), width, height)
    size = columns.stop - columns.start, rows.stop - rows.start
    fine = np.zeros((size[1] * SUPERSAMPLE, size[0] * SUPERSAMPLE), dtype=np.uint8)
    inside = (polygon - (columns.start, rows.start)) * SUPERSAMPLE
    cv2.fillPoly(fine, [fixed_point(inside - 0.5)], 255, shift=FRACTION_BITS)
    return region, shrink(fine, *size)


def fixed_point(points: np.ndarray) -> np.ndarray:
    """Convert points [V, 2] for cv2's drawing with `shift=FRACTION_BITS`; their 0, 0 is the first pixel's centre."""
    return np.round(np.asarray(points) * (1 << FRACTION_BITS)).astype(np.int32)


def shrink(fine: np.ndarray, width: int, height: int) -> np.ndarray:
    """Shrink a supersampled uint8 drawing to the image's size [H, W]: float32, 0 to 1."""
    return cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def random_colour(rng: np.random.Generator, hue: float | None = None) -> Colour:
    """Choose a colour of that hue (0 to 1, or any hue), neither very dark nor very pale."""
    hue = rng.uniform() if hue is None else hue % 1
    rgb = colorsys.hsv_to_rgb(hue, rng.uniform(0.45, 1), rng.uniform(0.45, 1))
    return np.array(rgb[::-1], dtype=np.float32) * 255


def colour_unlike(rng: np.random.Generator, others: list[Colour], distance: float, hue: float | None = None) -> Colour:
    """Choose a random colour at least that far (in BGR) from the others, or the furthest of 20 tries."""
    best, best_gap = others[0], -1.0
    for _ in range(20):
        colour = random_colour(rng, hue)
        gap = min(float(np.linalg.norm(colour - other)) for other in others)
        if gap >= distance:
            return colour
        if gap > best_gap:
            best, best_gap = colour, gap
    return best


def texture(rng: np.random.Generator, width: int, height: int, a: Colour, b: Colour) -> np.ndarray:
    """Draw a surface between two colours, by a gradient, blotches, and stripes, waves, checks or none of them.

    Returns:
        float32 [height, width, 3].
    """
    y, x = np.mgrid[:height, :width].astype(np.float32)  # [H, W] each
    angle, period = rng.uniform(0, 2 * np.pi), rng.uniform(6, 24)
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    gradient = (along - along.min()) / max(float(np.ptp(along)), 1)
    cells = rng.uniform(0, 1, tuple(rng.integers(3, 12, 2))).astype(np.float32)
    blotches = cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC)
    wave = 2 * np.pi / period
    pattern = {
        'stripes': lambda: np.sin(along * wave) > 0,
        'waves': lambda: 0.5 + 0.5 * np.sin(along * wave + 2 * np.sin(across * wave / 3)),
        'checks': lambda: np.sin(along * wave) * np.sin(across * wave) > 0,
        'plain': lambda: 0.5,
    }[str(rng.choice(['stripes', 'waves', 'checks', 'plain']))]()
    weights = rng.dirichlet((1, 1, 1)).astype(np.float32)
    mix = weights[0] * gradient + weights[1] * blotches + weights[2] * pattern  # [H, W]
    return a + mix[..., None].astype(np.float32) * (b - a)


def random_ground(rng: np.random.Generator, width: int, height: int) -> tuple[np.ndarray, list[Colour]]:
    """Draw a textured ground [H, W, 3]; return it and its two colours."""
    a = rng.uniform(40, 215, 3).astype(np.float32)
    b = np.clip(a + rng.normal(0, 40, 3), 0, 255).astype(np.float32)
    return texture(rng, width, height, a, b), [a, b]


def box_overlap(a: list[float], b: list[float]) -> float:
    """Return the IoU of two boxes given as COCO's x, y, w, h."""
    w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = max(w, 0) * max(h, 0)
    return both / (a[2] * a[3] + b[2] * b[3] - both)


def tight_box(polygons: list[np.ndarray]) -> list[float]:
    """Return COCO's x, y, w, h round polygons [V, 2] whose coordinates have 2 decimals."""
    points = np.concatenate(polygons)
    low, high = points.min(0), points.max(0)
    return [round(float(v), 2) for v in (*low, *(high - low))]
