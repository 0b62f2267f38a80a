"""Toy data for ddd: boxes on a ground plane, seen by KITTI's camera."""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from ...utils.ddd_utils import compute_box_3d, project_to_image, rot_y2alpha
from ..kitti_files import CATEGORIES, UNKNOWN
from .canvas import FRACTION_BITS, Colour, Scene, box_overlap, colour_unlike, fixed_point, random_colour, texture

# (fx = fy, cx, cy, and the last column) of the left colour camera on three of KITTI's recording days.
CAMERAS = [
    (721.5377, 609.5593, 172.854, (44.85728, 0.2163791, 0.002745884)),
    (707.0493, 604.0814, 180.5066, (45.75831, -0.3454157, 0.004981016)),
    (718.856, 607.1928, 185.2157, (45.38225, -0.1130887, 0.003779761)),
]
KITTI_WIDTH, KITTI_HEIGHT = 1242, 375
CAMERA_HEIGHT = 1.65  # metres above the ground

# KITTI category -> (id, typical height, width, length in metres, share of the objects).
KINDS = {
    'Pedestrian': (1, (1.76, 0.66, 0.84), 0.2),
    'Car': (2, (1.53, 1.63, 3.88), 0.6),
    'Cyclist': (3, (1.74, 0.6, 1.76), 0.2),
}

DEPTHS = 6, 24  # metres to the labelled objects
FAR = 45, 70  # metres to those that are DontCare
TRIES = 15
MOST_OVERLAP = 0.6  # IoU of two boxes
MOST_CUT_OFF = 0.3  # share of a box outside the image
LEAST_VISIBLE = 0.4  # of an object behind others
# Level of KITTI's `occluded` (0 fully visible, 1 partly, 2 largely hidden): the least that is visible.
OCCLUSION = ((0, 0.9), (1, 0.65), (2, 0))

# Faces as corners of `compute_box_3d`: along the bottom, then back along the top. Sides run from back to front.
FACES = {
    'front': (0, 1, 5, 4),
    'back': (2, 3, 7, 6),
    'side': (3, 0, 4, 7),
    'other side': (2, 1, 5, 6),
    'top': (7, 4, 5, 6),
}
LIGHT = {'front': 0.95, 'back': 0.7, 'side': 0.82, 'other side': 0.82, 'top': 1.15}

GLASS, LAMP, TAIL, BLACK = (70, 55, 45), (190, 245, 250), (30, 20, 225), (25, 25, 25)
SKIN, HAIR, FRAME = (120, 165, 220), (25, 40, 60), (150, 150, 150)
OWN, SECOND = 'own', 'second'  # the object's own two colours

# The paint on the faces: (from and to along the bottom, from and to upwards, colour), as shares of the face.
_WHEELS = [(0.1, 0.28, 0, 0.3, BLACK), (0.72, 0.9, 0, 0.3, BLACK)]
_CAR_SIDE = [(0.08, 0.6, 0.58, 0.93, GLASS), *_WHEELS]
_WALKER = [(0, 1, 0, 0.45, SECOND), (0, 1, 0.85, 1, HAIR)]
_WALKER_SIDE = [*_WALKER, (0.5, 1, 0.83, 0.96, SKIN), (0.4, 0.6, 0.45, 0.78, SKIN)]
_RIDER = [(0, 1, 0, 0.45, FRAME), (0, 1, 0.85, 1, HAIR)]
_RIDER_SIDE = [*_RIDER, (0.02, 0.4, 0, 0.38, BLACK), (0.6, 0.98, 0, 0.38, BLACK), (0.5, 1, 0.83, 0.96, SKIN)]
PAINT: dict[str, dict[str, list[tuple]]] = {
    'Car': {
        'front': [(0, 1, 0, 0.15, BLACK), (0.1, 0.9, 0.58, 0.93, GLASS)]
        + [(0.04, 0.26, 0.3, 0.47, LAMP), (0.74, 0.96, 0.3, 0.47, LAMP)],
        'back': [(0, 1, 0, 0.15, BLACK), (0.15, 0.85, 0.62, 0.9, GLASS)]
        + [(0.02, 0.2, 0.35, 0.55, TAIL), (0.8, 0.98, 0.35, 0.55, TAIL)],
        'side': _CAR_SIDE,
        'other side': _CAR_SIDE,
        'top': [(0.7, 1, 0, 1, OWN)],
    },
    'Pedestrian': {
        'front': [*_WALKER, (0.2, 0.8, 0.8, 0.95, SKIN)],
        'back': _WALKER,
        'side': _WALKER_SIDE,
        'other side': _WALKER_SIDE,
        'top': [(0, 1, 0, 1, HAIR)],
    },
    'Cyclist': {
        'front': [*_RIDER, (0.4, 0.6, 0, 0.4, BLACK), (0.2, 0.8, 0.8, 0.95, SKIN), (0.4, 0.6, 0.42, 0.5, LAMP)],
        'back': [*_RIDER, (0.4, 0.6, 0, 0.4, BLACK), (0.4, 0.6, 0.42, 0.5, TAIL)],
        'side': _RIDER_SIDE,
        'other side': _RIDER_SIDE,
        'top': [(0, 1, 0, 1, HAIR)],
    },
}


class RoadScenes:
    """Images of 1 to 7 cars, pedestrians and cyclists on a road, each a painted box with two colours of its own.

    The camera is KITTI's (one of three calibrations), scaled to the image's width; sizes are KITTI's typical ones.
    Front, back and sides are painted differently, so that the rotation can be seen. Nearer objects hide
    further ones: `occluded` follows from what stays visible. Some far objects are DontCare.
    """

    categories = [{'id': number, 'name': name} for number, name in enumerate(CATEGORIES, start=1)]

    def draw(self, rng: np.random.Generator, width: int, height: int) -> Scene:
        """Draw an image of that size; its annotations have KITTI's facts, and `facts['calib']` is P2."""
        camera = scaled_camera(rng, width, height)
        objects = place_objects(rng, camera, width, height)
        image = draw_ground(rng, camera, width, height)
        draw_shadows(image, objects, camera)
        for thing in objects:
            draw_object(rng, image, thing, camera)
        visible = visible_shares(objects, width, height)
        annotations = [annotation(*pair) for pair in zip(objects, visible, strict=True)]
        return Scene(image, annotations[::-1], {'calib': camera.tolist()})


@dataclass
class Thing:
    """An object: kind, `dim` (h, w, l), `location`, `rotation_y`; and `outline` [V, 2], `box` x, y, w, h and
    the share `cut_off` of what the camera sees of it.
    """

    kind: str
    dim: np.ndarray
    location: np.ndarray
    rotation_y: float
    outline: np.ndarray
    box: list[float]
    cut_off: float

    @property
    def reach(self) -> float:
        """Half its length, in metres: how near another one may come."""
        return self.dim[2] / 2


def scaled_camera(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Choose one of KITTI's P2 matrices and scale it to an image of another size: float64 [3, 4]."""
    focal, cx, cy, last = CAMERAS[rng.integers(len(CAMERAS))]
    scale = width / KITTI_WIDTH
    camera = np.array(
        [
            [focal * scale, 0, cx * scale, last[0] * scale],
            [0, focal * scale, cy * height / KITTI_HEIGHT, last[1] * scale],
            [0, 0, 1, last[2]],
        ]
    )
    return np.round(camera, 6)


def place_objects(rng: np.random.Generator, camera: np.ndarray, width: int, height: int) -> list[Thing]:
    """Place up to 7 labelled objects and 3 far ones before a camera [3, 4], the furthest first, none hidden."""
    things: list[Thing] = []
    for _ in range(rng.integers(1, 8)):
        kind = str(rng.choice(list(KINDS), p=[share for *_, share in KINDS.values()]))
        for _ in range(TRIES):
            thing = random_thing(rng, kind, DEPTHS, camera, width, height)
            if thing.cut_off <= MOST_CUT_OFF and not any(too_near(thing, other) for other in things):
                things.append(thing)
                break
    for _ in range(rng.integers(0, 4)):
        thing = random_thing(rng, 'Car', FAR, camera, width, height)
        things.append(replace(thing, kind='DontCare'))
    things.sort(key=lambda thing: -thing.location[2])
    visible = visible_shares(things, width, height)
    return [thing for thing, share in zip(things, visible, strict=True) if share >= LEAST_VISIBLE]


def random_thing(
    rng: np.random.Generator, kind: str, depths: tuple[float, float], camera: np.ndarray, width: int, height: int
) -> Thing:
    """Place an object of a kind in view of a camera [3, 4]; every number rounded as in KITTI's label files."""
    dim = np.round(np.array(KINDS[kind][1]) * rng.normal(1, 0.06, 3).clip(0.85, 1.15), 2)
    depth = np.exp(rng.uniform(*np.log(depths)))
    x = (rng.uniform(0.02, 0.98) * width - camera[0, 2]) * depth / camera[0, 0]
    location = np.round((x, CAMERA_HEIGHT, depth), 2)
    along_road = rng.choice((-1, 1)) * np.pi / 2 + rng.normal(0, 0.1)
    turn = along_road if rng.uniform() < 0.5 else rng.uniform(-np.pi, np.pi)
    turn = round(float(np.arctan2(np.sin(turn), np.cos(turn))), 2)
    outline = project_to_image(compute_box_3d(dim, location, turn), camera)  # [8, 2]
    low, high = outline.min(0), outline.max(0)
    seen_low, seen_high = np.clip((low, high), 0, (width - 1, height - 1))
    cut_off = 1 - np.prod(seen_high - seen_low) / np.prod(high - low)
    box = [round(float(v), 2) for v in (*seen_low, *(seen_high - seen_low))]
    hull = cv2.convexHull(outline.astype(np.float32))[:, 0]  # [V, 2]
    return Thing(kind, dim, location, turn, hull, box, round(float(cut_off), 2))


def too_near(thing: Thing, other: Thing) -> bool:
    """Return whether two objects touch on the ground, or nearly coincide in the image."""
    gap = np.linalg.norm(thing.location - other.location)
    return bool(gap < thing.reach + other.reach + 0.5) or box_overlap(thing.box, other.box) > MOST_OVERLAP


def visible_shares(things: list[Thing], width: int, height: int) -> np.ndarray:
    """Return the share of each object that the later ones leave visible: [number of objects]."""
    owner = np.zeros((height, width), dtype=np.uint8)
    areas = []
    for number, thing in enumerate(things, start=1):
        outline = np.round(thing.outline).astype(np.int32)
        alone = cv2.fillConvexPoly(np.zeros_like(owner), outline, 1)
        areas.append(np.count_nonzero(alone))
        owner[alone > 0] = number
    counts = np.bincount(owner.ravel(), minlength=len(things) + 1)[1:]
    return counts / np.maximum(areas, 1)


def annotation(thing: Thing, visible: float) -> dict:
    """Return KITTI's facts of an object in COCO's format."""
    x, _, depth = thing.location
    facts = {'category_id': CATEGORIES.index(thing.kind) + 1, 'bbox': thing.box, 'iscrowd': 0}
    facts['area'] = round(thing.box[2] * thing.box[3], 2)
    if thing.kind == 'DontCare':
        return facts | UNKNOWN | {'depth': UNKNOWN['location'][2]}
    return facts | {
        'dim': thing.dim.tolist(),
        'location': thing.location.tolist(),
        'depth': float(depth),
        'rotation_y': thing.rotation_y,
        'alpha': round(float(rot_y2alpha(thing.rotation_y, x, 0, depth)), 2),  # atan2(x, z) is the ray's angle
        'truncated': thing.cut_off,
        'occluded': next(level for level, least in OCCLUSION if visible >= least),
    }


def draw_ground(rng: np.random.Generator, camera: np.ndarray, width: int, height: int) -> np.ndarray:
    """Draw a road between meadows under a sky with houses at the horizon: uint8 [H, W, 3]."""
    horizon = int(camera[1, 2]) + 1  # first row of the ground
    image = np.empty((height, width, 3), np.float32)
    sky, haze = rng.uniform((190, 150, 120), (255, 215, 190)), rng.uniform(170, 230, 3)
    image[:horizon] = (sky + np.linspace(0, 1, horizon)[:, None] * (haze - sky))[:, None]
    for _ in range(rng.integers(3, 10)):
        w, h = (rng.uniform((0.04, 0.1), (0.2, 0.7)) * (width, horizon)).astype(int)
        left = rng.integers(-w // 2, width - w // 2)
        house = image[horizon - h : horizon, max(left, 0) : left + w]
        wall = rng.uniform(60, 200, 3).astype(np.float32)
        house[:] = texture(rng, house.shape[1], house.shape[0], wall, wall * 0.8)

    row, column = np.ogrid[horizon:height, :width]
    depth = (camera[1, 1] * CAMERA_HEIGHT / (row - camera[1, 2])).astype(np.float32)  # [h, 1], metres
    across = (column - camera[0, 2]).astype(np.float32) * depth / np.float32(camera[0, 0])  # [h, W], metres
    across -= np.float32(rng.uniform(-3, 3))
    patches = 8 * np.sign(np.sin(across * 1.5) * np.sin(depth * 1.5)) * np.minimum(12 / depth, 1)  # [h, W]
    grass = rng.uniform((30, 90, 60), (70, 150, 120)).astype(np.float32)
    dark, pale = np.full((2, 3), [[-14], [14]], np.float32)
    ground = texture(rng, width, height - horizon, dark, pale)  # [h, W, 3]
    is_road = np.abs(across) < rng.uniform(4, 6)
    ground += np.where(is_road, rng.uniform(75, 125), patches).astype(np.float32)[..., None]
    ground[~is_road] += grass
    ground[(np.abs(across) < 0.1) & (depth % 6 < 3)] = 215
    image[horizon:] = ground
    return np.clip(image, 0, 255).astype(np.uint8)


def draw_shadows(image: np.ndarray, things: list[Thing], camera: np.ndarray) -> None:
    """Darken the ground [H, W, 3] under the objects, and a little round them, in place; the camera is [3, 4]."""
    mask = np.zeros(image.shape[:2], np.uint8)
    for thing in things:
        corners = compute_box_3d(thing.dim * (1, 1.15, 1.08), thing.location, thing.rotation_y)[:4]
        fill(mask, project_to_image(corners, camera), 255)
    image[mask > 127] //= 2


def draw_object(rng: np.random.Generator, image: np.ndarray, thing: Thing, camera: np.ndarray) -> None:
    """Paint the faces of an object that the camera [3, 4] sees onto an image [H, W, 3], in place."""
    kind = 'Car' if thing.kind == 'DontCare' else thing.kind
    own = random_colour(rng)
    colours = {OWN: own, SECOND: colour_unlike(rng, [own], 80)}
    corners = compute_box_3d(thing.dim, thing.location, thing.rotation_y)  # [8, 3]
    middle = corners.mean(0)
    for name, face in FACES.items():
        quad = corners[list(face)]  # [4, 3]
        outwards = quad.mean(0) - middle
        if outwards @ quad.mean(0) >= 0:
            continue
        for u0, u1, v0, v1, colour in [(0, 1, 0, 1, OWN), *PAINT[kind][name]]:
            paint: Colour = np.asarray(colours.get(colour, colour) if isinstance(colour, str) else colour)
            at = [on_face(quad, u, v) for u, v in ((u0, v0), (u1, v0), (u1, v1), (u0, v1))]
            fill(image, project_to_image(np.array(at), camera), paint * LIGHT[name])


def on_face(quad: np.ndarray, u: float, v: float) -> np.ndarray:
    """Return the point of a face [4, 3] at shares u along its bottom and v of its height: [3]."""
    return quad[0] + u * (quad[1] - quad[0]) + v * (quad[3] - quad[0])


def fill(image: np.ndarray, polygon: np.ndarray, colour: np.ndarray | float) -> None:
    """Fill a polygon [V, 2] of a uint8 image in place, with smooth edges."""
    shade = tuple(float(v) for v in np.clip(np.atleast_1d(colour), 0, 255))
    cv2.fillPoly(image, [fixed_point(polygon)], shade, lineType=cv2.LINE_AA, shift=FRACTION_BITS)
