"""Toy data for multi_pose: stick people with joints, seen from the front and from behind."""

from collections.abc import Sequence

import cv2
import numpy as np

from ...utils.errors import UserError
from ..dataset.coco_hp import COCO_JOINTS, COCO_SKELETON
from .canvas import (
    FRACTION_BITS,
    SUPERSAMPLE,
    Canvas,
    Colour,
    Scene,
    box_overlap,
    colour_unlike,
    coverage,
    fixed_point,
    random_colour,
    random_ground,
    shrink,
    texture,
    tight_box,
)

FIVE_JOINTS = ['nose', 'left_wrist', 'right_wrist', 'left_ankle', 'right_ankle']
FIVE_SKELETON = [[0, 1], [0, 2], [0, 3], [0, 4]]

SIZES = 0.5, 0.9  # height of a standing figure, as a share of the image's
FROM_BEHIND = 0.2  # share of the figures
CUT_OFF = 0.2  # share of the figures that may reach over the border of the image
BLOCKED = 0.3  # share of the images in which a block stands in front of somebody
MOST_OUTSIDE = 0.25  # of the width and of the height of such a figure
LEAST_VISIBLE = 0.7  # of a figure, after everything that is drawn over it
MOST_OVERLAP = 0.25  # IoU of two boxes
TRIES = 12

# Shares of a figure's height: radius of the head, thickness of the limbs and of the dark rim round them.
HEAD, ARM, LEG, RIM = 0.085, 0.055, 0.07, 0.018
FACE = ('nose', 'left_eye', 'right_eye')
PARTS = ['', 'torso', 'head', 'left arm', 'right arm', 'left leg', 'right leg']
LIMBS = {'shoulder': 'arm', 'elbow': 'arm', 'wrist': 'arm', 'hip': 'leg', 'knee': 'leg', 'ankle': 'leg'}
SKIN = [(150, 190, 240), (110, 160, 215), (80, 115, 170), (50, 75, 115)]


class PeopleScenes:
    """Images of 1 to 3 people in random poses, sizes and colours, some behind another or behind a block.

    Left and right show by the face and the tie, or by the backpack that is seen from behind, and
    a mirrored image (`--flip`) stays a true one. Boxes and outlines are those of the whole person as far
    as it is inside the image, hidden or not. A joint is visible (v = 2), hidden by something (v = 1: the
    face seen from behind, an arm behind the back), or outside the image (v = 0, at 0, 0).

    Args:
        joints: 17 (COCO's) or 5 (nose, wrists, ankles).

    Raises:
        UserError: another number of joints.
    """

    def __init__(self, joints: int = 17):
        if joints not in (5, 17):
            raise UserError(f'toy people have 5 or 17 joints; found {joints}')
        self.names = COCO_JOINTS if joints == 17 else FIVE_JOINTS
        person = {'id': 1, 'name': 'person', 'supercategory': 'person', 'keypoints': self.names}
        skeleton = COCO_SKELETON if joints == 17 else FIVE_SKELETON
        self.categories = [person | {'skeleton': [[a + 1, b + 1] for a, b in skeleton]}]

    def draw(self, rng: np.random.Generator, width: int, height: int) -> Scene:
        """Draw an image of that size."""
        ground, ground_colours = random_ground(rng, width, height)
        canvas = Canvas(ground)
        figures: list[Figure] = []
        for _ in range(rng.integers(1, 4)):
            figure = self._place(rng, canvas, figures, ground_colours)
            if figure is not None:
                canvas.paste(np.s_[:, :], *figure.pixels)
                figures.append(figure)
        if figures and rng.uniform() < BLOCKED:
            put_block(rng, canvas, figures[rng.integers(len(figures))].box, ground_colours)
        annotations = [self._annotation(f, canvas.owner > n) for n, f in enumerate(figures, start=1)]
        return Scene(canvas.finish(rng, noise=5), annotations)

    def _place(
        self, rng: np.random.Generator, canvas: Canvas, figures: 'list[Figure]', ground_colours: list[Colour]
    ) -> 'Figure | None':
        """Return a person at a place where it hides nobody too much, or None."""
        height, width = canvas.owner.shape
        for attempt in range(TRIES):
            joints, behind = random_pose(rng)
            size = height * rng.uniform(*SIZES) * 0.95**attempt  # in a crowd there is room for smaller ones
            points = np.array(list(joints.values())) * size  # [J, 2]
            low, span = points.min(0) - HEAD * size, np.ptp(points, axis=0) + 2 * HEAD * size
            slack = np.array((width, height)) - span  # [2]: room that is left
            if slack.min() < 0:
                continue
            beyond = span * MOST_OUTSIDE if rng.uniform() < CUT_OFF else 0
            corner = rng.uniform(-beyond, slack + beyond) - low
            box = [*(low + corner), *span]
            if any(box_overlap(box, other.box) > MOST_OVERLAP for other in figures):
                continue
            placed = {name: point * size + corner for name, point in joints.items()}
            figure = Figure(rng, placed, behind, size, (width, height), ground_colours)
            if canvas.spares(np.s_[:, :], figure.pixels[1], LEAST_VISIBLE):
                return figure
        return None

    def _annotation(self, figure: 'Figure', covered: np.ndarray) -> dict:
        keypoints = [figure.keypoint(name, covered) for name in self.names]
        return {
            'category_id': 1,
            'bbox': figure.box,
            'area': figure.area,
            'iscrowd': 0,
            'segmentation': [polygon.ravel().tolist() for polygon in figure.polygons],
            'keypoints': [value for keypoint in keypoints for value in keypoint],
            'num_keypoints': sum(v > 0 for _, _, v in keypoints),
        }


def put_block(rng: np.random.Generator, canvas: Canvas, box: list[float], others: list[Colour]) -> None:
    """Paste a textured board over a part of a box, unless it would hide somebody too much."""
    height, width = canvas.owner.shape
    centre = np.array(box[:2]) + np.array(box[2:]) * rng.uniform(0.1, 0.9, 2)
    half: np.ndarray = np.array(box[2:]) * rng.uniform(np.array((0.3, 0.08)), np.array((0.6, 0.2)))
    signs = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    corners = centre + half * signs  # [4, 2]
    region, alpha = coverage(corners, width, height)
    if canvas.spares(region, alpha, LEAST_VISIBLE):
        colour = colour_unlike(rng, others, 80)
        canvas.paste(region, texture(rng, alpha.shape[1], alpha.shape[0], colour, colour * 0.6), alpha)


def random_pose(rng: np.random.Generator) -> tuple[dict[str, np.ndarray], bool]:
    """Draw the joints {name: [2]} of a person of height 1, hips at 0, 0, and whether it is seen from behind."""
    behind = bool(rng.uniform() < FROM_BEHIND)
    lean, yaw = rng.normal(0, 0.12), rng.uniform(-0.6, 0.6)
    up = np.array((np.sin(lean), -np.cos(lean)))  # along the spine
    across = np.array((np.cos(lean), np.sin(lean)))  # towards the right of the image
    neck, head = 0.32 * up, 0.43 * up
    turn = HEAD * 0.5 * yaw * across
    joints = {'head': head, 'nose': head + turn - 0.01 * up}
    for name, side in (('left', 1), ('right', -1)):
        out = side * (-1 if behind else 1)  # a person who faces us has the left hand on our right
        shoulder, hip = neck + out * 0.1 * across - 0.03 * up, out * 0.07 * across
        raise_arm, bend_arm = rng.uniform(-0.1, 2.7), rng.uniform(-0.4, 1.6)
        elbow = shoulder + 0.16 * limb(raise_arm, out)
        wrist = elbow + 0.15 * limb(raise_arm + bend_arm, out)
        spread, bend_leg = rng.uniform(0, 0.7), rng.uniform(-0.7, 0.2)
        knee = hip + 0.23 * limb(spread, out)
        ankle = knee + 0.22 * limb(spread + bend_leg, out)
        eye, ear = head + turn + out * 0.42 * HEAD * across + 0.02 * up, head + out * HEAD * across
        parts = ('eye', 'ear', 'shoulder', 'elbow', 'wrist', 'hip', 'knee', 'ankle')
        points = (eye, ear, shoulder, elbow, wrist, hip, knee, ankle)
        joints |= {f'{name}_{part}': point for part, point in zip(parts, points, strict=True)}
    return joints, behind


def limb(angle: float, out: int) -> np.ndarray:
    """Return the direction [2] of a limb raised sideways from hanging by an angle; `out` is 1 to our right, -1 left."""
    return np.array((out * np.sin(angle), np.cos(angle)))


def shows_on(joint: str) -> set[str]:
    """Return the parts of the body on which a joint can be seen: elsewhere something lies over it."""
    side, _, kind = joint.partition('_')
    if kind not in LIMBS:
        return {'head'}
    limb_part = f'{side} {LIMBS[kind]}'
    return {limb_part, 'torso'} if kind in ('shoulder', 'hip') else {limb_part}


class Figure:
    """One person, drawn by itself on an empty sheet of the image's size.

    Attributes:
        points: every joint, inside the image or not: {name: x, y in pixels}.
        pixels: colours [H, W, 3] and alpha [H, W], for `Canvas.paste`.
        polygons, box, area: the outline [V, 2] of each piece, the COCO box x, y, w, h and the number of
            pixels, of what is inside the image.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        points: dict[str, np.ndarray],
        behind: bool,
        size: float,
        image: tuple[int, int],
        ground_colours: list[Colour],
    ):
        self.points, self.behind, self.size = points, behind, size
        width, height = self.image = image
        # Blue, green, red, and the number of the body part: 0 where there is none.
        self.sheet = np.zeros((height * SUPERSAMPLE, width * SUPERSAMPLE, 4), dtype=np.uint8)
        self._draw(rng, ground_colours)
        self.parts = self.sheet[..., 3]
        body = (self.parts > 0).astype(np.uint8)
        alpha = shrink(body * 255, width, height)
        colours = shrink(self.sheet[..., :3], width, height) * 255 / np.maximum(alpha, 1e-3)[..., None]
        self.pixels = colours, alpha
        contours = cv2.findContours(body, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
        outlines = [cv2.approxPolyDP(contour, 0.6, True)[:, 0] for contour in contours]  # [V, 2] each
        self.polygons = [np.round((o + 0.5) / SUPERSAMPLE, 2) for o in outlines if len(o) >= 3]
        self.box = tight_box(self.polygons)
        self.area = round(float(alpha.sum()), 2)

    def keypoint(self, name: str, covered: np.ndarray) -> tuple[float, float, int]:
        """Return COCO's x, y, v of a joint; `covered` [H, W] is true where later things lie over this person."""
        x, y = (round(float(v), 2) for v in self.points[name])
        width, height = self.image
        if not (0 <= x < width and 0 <= y < height):
            return 0, 0, 0
        part = self.parts[int(y * SUPERSAMPLE), int(x * SUPERSAMPLE)]
        seen = PARTS[part] in shows_on(name) and not (self.behind and name in FACE)
        return x, y, 2 if seen and not covered[int(y), int(x)] else 1

    def _draw(self, rng: np.random.Generator, ground_colours: list[Colour]) -> None:
        shirt = colour_unlike(rng, ground_colours, 90)
        trousers = colour_unlike(rng, [*ground_colours, shirt], 80)
        skin = np.array(rng.choice(SKIN), dtype=np.float32)
        hair = random_colour(rng, hue=rng.normal(0.07, 0.05)) * 0.45
        at = self.points

        def arm(name: str) -> None:
            shoulder, elbow, wrist = (at[f'{name}_{joint}'] for joint in ('shoulder', 'elbow', 'wrist'))
            self._stroke(f'{name} arm', [shoulder, elbow], ARM, shirt * 0.85)
            self._stroke(f'{name} arm', [elbow, wrist], ARM * 0.9, skin)
            self._stroke(f'{name} arm', [wrist, wrist], ARM * 0.9, shirt * 0.4)

        behind_back = [name for name in ('left', 'right') if rng.uniform() < 0.2]
        for name in behind_back:
            arm(name)
        for name in ('left', 'right'):
            hip, knee, ankle = (at[f'{name}_{joint}'] for joint in ('hip', 'knee', 'ankle'))
            self._stroke(f'{name} leg', [hip, knee, ankle], LEG, trousers)
            self._stroke(f'{name} leg', [ankle, ankle], LEG, trousers * 0.4)
        corners = [at[name] for name in ('left_shoulder', 'right_shoulder', 'right_hip', 'left_hip')]
        self._stroke('torso', [*corners, corners[0]], LEG, shirt, filled=True)
        neck, hips = (corners[0] + corners[1]) / 2, (corners[2] + corners[3]) / 2
        if self.behind:
            pack = [0.7 * corner + 0.3 * (neck + hips) / 2 for corner in corners]
            self._stroke('torso', [*pack, pack[0]], 0.02, 255 - shirt, filled=True)
        else:
            self._stroke('torso', [neck, hips], 0.02, 255 - shirt, rim=0)  # a tie
        self._stroke('head', [neck, at['head']], ARM, skin)
        self._stroke('head', [at['left_ear'], at['right_ear']], 0.05, skin)
        self._stroke('head', [at['head']] * 2, 2 * HEAD, hair)
        if not self.behind:
            self._stroke('head', [at['nose'] + (0, 0.01 * self.size)] * 2, 1.6 * HEAD, skin, rim=0)
            for name, thickness in (('left_eye', 0.028), ('right_eye', 0.028), ('nose', 0.02)):
                self._stroke('head', [at[name]] * 2, thickness, skin * 0.15, rim=0)
        for name in ('left', 'right'):
            if name not in behind_back:
                arm(name)

    def _stroke(
        self,
        part: str,
        points: Sequence[np.ndarray],
        thickness: float,
        colour: Colour,
        rim: float = RIM,
        filled: bool = False,
    ) -> None:
        """Draw a thick line through points [V, 2] (or a filled polygon with round corners) with a dark rim."""
        path = [fixed_point(np.array(points) * SUPERSAMPLE - 0.5)]
        layers = ((thickness + rim, colour * 0.35), (thickness, colour)) if rim else ((thickness, colour),)
        for width, shade in layers:
            pen = (*(float(v) for v in np.clip(shade, 0, 255)), PARTS.index(part))
            pixels = max(1, round(width * self.size * SUPERSAMPLE))
            cv2.polylines(self.sheet, path, False, pen, pixels, shift=FRACTION_BITS)
            if filled:
                cv2.fillPoly(self.sheet, path, pen, shift=FRACTION_BITS)
