"""Detections drawn on pictures.

Pictures are BGR uint8 [H, W, 3]. Functions that add one thing (`draw_box`, `draw_keypoints`, ...) draw in
place and return the picture; `draw_detections`, `blend`, `heatmap_to_color` and `bird_view` give a new one.
Line widths and text follow the picture's size; what isn't finite or lies outside is left out, so that any
picture is safe.

A *detection* is a dict as in the demo's JSON: `class` (name), `class_id` (1-based), `score`, `box`
[x1, y1, x2, y2] in pixels, and by task `keypoints` [[x, y], ...] with `keypoint_scores`, or `extreme_points`
[[x, y], ...] (top, left, bottom, right), or `alpha`, `dim` [h, w, l] and `location` [X, Y, Z] in metres,
`rotation_y` in radians.
"""

import colorsys
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike

from .ddd_utils import compute_box_3d, project_to_image

Color = tuple[int, int, int]
Detection = dict[str, Any]

FONT = cv2.FONT_HERSHEY_SIMPLEX
SMALLEST_TEXT = 0.4  # font scale, about 9 pixels of height: under it letters run into one another
READABLE_SIDE = 480  # pixels: what programs enlarge smaller pictures to, so that names can be read
BIRD_SIDE = 512  # pixels of the view from above
FARTHEST_PIXEL = 20_000  # cv2 counts in 16 bits of whole pixels when it smooths a line
NEAR_PLANE = 0.1  # metres: a corner nearer than this, or behind the camera, has no place in the picture
JOINT_SCORE = 0.1  # the decoder's own threshold of joint peaks: a joint under it is drawn hollow
HIDDEN, VISIBLE = 1, 2  # COCO's visibility flags; 0 is a joint without a place
BLACK, WHITE = (0, 0, 0), (255, 255, 255)


# ------------------------------------------------------------------------------------------------ colours


def bgr(hue: float, saturation: float, value: float) -> Color:
    """A colour given by hue, saturation and value in [0, 1]."""
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(blue * 255), round(green * 255), round(red * 255)


@functools.cache
def class_color(index: int) -> Color:
    """The colour of class `index` (0-based): the same whatever the number of classes."""
    hue = (0.58 + index * 0.618034) % 1  # golden-ratio steps: each next hue falls into the widest gap left
    saturation, value = ((0.85, 1.0), (0.55, 1.0), (0.95, 0.7))[index // 7 % 3]
    return bgr(hue, saturation, value)


def class_colors(n: int) -> list[Color]:
    """BGR colours of `n` classes; the first ones stay the same when `n` grows."""
    return [class_color(index) for index in range(n)]


def rainbow(n: int) -> list[Color]:
    """`n` BGR colours in the order of the rainbow, for joints, which are numbered along the body."""
    return [bgr(0.83 * index / max(n, 1), 0.8, 1.0) for index in range(n)]


def text_color(background: Color) -> Color:
    """Black or white, whichever reads better on `background`."""
    blue, green, red = background
    return BLACK if 0.114 * blue + 0.587 * green + 0.299 * red > 140 else WHITE


# -------------------------------------------------------------------------------- sizes and safe coordinates


def picture_size(image: np.ndarray) -> float:
    """Side of the square with the picture's area: what line widths and text follow."""
    return float(np.sqrt(image.shape[0] * image.shape[1]))


def line_width(image: np.ndarray) -> int:
    """Width of a box's line in pixels, at least 1."""
    return max(1, round(picture_size(image) / 330))


def font_scale(image: np.ndarray) -> float:
    """Scale of the label's font, such that a capital letter is 1/52 of the picture's size, and legible."""
    return max(SMALLEST_TEXT, picture_size(image) / 52 / 22)


def enlarge_small(image: np.ndarray, least: int) -> tuple[np.ndarray, int]:
    """A picture whose longer side is under `least` pixels, enlarged by a whole factor, and the factor."""
    factor = max(1, least // max(*image.shape[:2], 1))
    if factor == 1 or image.size == 0:
        return image, 1
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST), factor


def pixels(points: ArrayLike) -> list[tuple[int, int]] | None:
    """Whole pixels of `points` [n, 2] for cv2, or None when one of them isn't finite."""
    points = np.asarray(points, np.float64).reshape(-1, 2)  # [n, 2]
    if not np.isfinite(points).all():
        return None
    return [(x, y) for x, y in np.clip(np.rint(points), -FARTHEST_PIXEL, FARTHEST_PIXEL).astype(int).tolist()]


# ------------------------------------------------------------------------------------------------- labels


def draw_labels(image: np.ndarray, labels: Iterable[tuple[Sequence[float], str, Color]]) -> np.ndarray:
    """Write names on filled backgrounds beside their boxes, in place.

    Args:
        labels: (box [4] in pixels, text, BGR colour), the most important first: it gets the best place, over
            the box's upper left corner; later ones go to a free place near their box, never cover earlier
            ones, and are left out where these would hide most of them.
    """
    placed = []
    for box, text, color in labels:
        corners = pixels(box)
        text, scale, thickness, size = fit_text(image, text)
        if corners is None or not text:
            continue
        left, top = min(places(image, corners, size), key=lambda place: covered(place, size, placed))
        if covered((left, top), size, placed) > size[0] * size[1] // 2:
            continue
        placed.append((left, top, size, text, scale, thickness, color))
    for left, top, (width, height), text, scale, thickness, color in reversed(placed):
        cv2.rectangle(image, (left, top), (left + width - 1, top + height - 1), color, cv2.FILLED)
        (text_width, text_height), below = cv2.getTextSize(text, FONT, scale, thickness)
        corner = (left + (width - text_width) // 2, top + (height + text_height - below // 2) // 2)
        cv2.putText(image, text, corner, FONT, scale, text_color(color), thickness, cv2.LINE_AA)
    return image


def fit_text(image: np.ndarray, text: str) -> tuple[str, float, int, tuple[int, int]]:
    """Text, font scale, thickness and (width, height) of the label that fits into the picture.

    A label that is too wide gets smaller letters, then fewer; no text is left where not even one letter fits.
    """
    height, width = image.shape[:2]
    scale = font_scale(image)
    while text:
        thickness = max(1, round(scale * 1.2))
        (text_width, text_height), below = cv2.getTextSize(text, FONT, scale, thickness)
        size = (text_width + max(4, text_height // 2), text_height + below + max(2, text_height // 4))
        if size[0] <= width and size[1] <= height:
            break
        if scale > SMALLEST_TEXT:
            scale = max(SMALLEST_TEXT, scale * 0.85)
        else:
            text = text[:-1].rstrip()
    return (text, scale, thickness, size) if text else ('', scale, 1, (0, 0))


def places(image: np.ndarray, corners: list[tuple[int, int]], size: tuple[int, int]) -> list[tuple[int, int]]:
    """Left upper corners where a label may stand, inside the picture, best first."""
    (x1, y1), (x2, y2) = corners
    width, height = size
    pad = line_width(image) // 2
    x1, y1, x2, y2 = x1 - pad, y1 - pad, x2 + pad + 1, y2 + pad + 1
    wished = [
        (x1, y1 - height),  # over the box
        (x2 - width, y1 - height),
        (x1, y1),  # inside it
        (x1, y2),  # under it
        (x2 - width, y2),
        (x2, y1),  # beside it
        (x1, y2 - height),
        (x1, (y1 + y2 - height) // 2),
    ]
    room = [(left, top) for left, top in wished if 0 <= top <= image.shape[0] - height]
    bottom, right = image.shape[0] - height, image.shape[1] - width
    return [(min(max(left, 0), right), min(max(top, 0), bottom)) for left, top in room or wished]


def covered(place: tuple[int, int], size: tuple[int, int], placed: list[tuple]) -> int:
    """How many pixels of labels in `placed` a label of `size` at `place` would cover."""
    left, top = place
    width, height = size
    total = 0
    for other_left, other_top, (other_width, other_height), *_ in placed:
        shared_width = min(left + width, other_left + other_width) - max(left, other_left)
        shared_height = min(top + height, other_top + other_height) - max(top, other_top)
        total += max(shared_width, 0) * max(shared_height, 0)
    return total


# ------------------------------------------------------------------------------------------ one thing each


def draw_outline(image: np.ndarray, box: Sequence[float], color: Color) -> np.ndarray:
    """A box [x1, y1, x2, y2] without a name, in place."""
    corners = pixels(box)
    if corners is not None and image.size:
        cv2.rectangle(image, corners[0], corners[1], color, line_width(image))
    return image


def draw_box(image: np.ndarray, box: Sequence[float], label: str = '', color: Color = BLACK) -> np.ndarray:
    """A box [x1, y1, x2, y2] in pixels with its name, in place. An empty `label` draws the box alone."""
    draw_outline(image, box, color)
    return draw_labels(image, [(box, label, color)])


def draw_line(image: np.ndarray, start: ArrayLike, end: ArrayLike, color: Color, width: int) -> None:
    """A smooth line between two points [2], in place."""
    ends = pixels([start, end])
    if ends is not None:
        cv2.line(image, ends[0], ends[1], color, width, cv2.LINE_AA)


def draw_keypoints(
    image: np.ndarray,
    points: np.ndarray,
    skeleton: Sequence[tuple[int, int]] = (),
    visibility: Sequence[int] | None = None,
) -> np.ndarray:
    """Joints in the colours of the rainbow, and the limbs between them in those of their second joints, in place.

    Args:
        points: [J, 2] in pixels.
        skeleton: limbs as pairs of 0-based joints; pairs that name no joint are left out.
        visibility: [J], COCO's flags: 0 not drawn, 1 (hidden) hollow, 2 filled. Default: all filled.
    """
    points = np.asarray(points, np.float64).reshape(-1, 2)  # [J, 2]
    count = len(points)
    if image.size == 0 or count == 0:
        return image
    colors = rainbow(count)
    visibility = [VISIBLE] * count if visibility is None else visibility
    shown = [flag > 0 and np.isfinite(point).all() for flag, point in zip(visibility, points, strict=True)]
    width = line_width(image)
    for first, second in skeleton:
        if min(first, second) >= 0 and max(first, second) < count and shown[first] and shown[second]:
            draw_line(image, points[first], points[second], colors[second], width)
    radius = max(1, round(1.6 * width))
    for index in np.flatnonzero(shown):
        (center,) = pixels(points[index])
        if visibility[index] >= VISIBLE:
            cv2.circle(image, center, radius + max(1, width // 2), BLACK, cv2.FILLED, cv2.LINE_AA)
            cv2.circle(image, center, radius, colors[index], cv2.FILLED, cv2.LINE_AA)
        else:
            cv2.circle(image, center, radius, colors[index], max(1, width // 2), cv2.LINE_AA)
    return image


def octagon(points: np.ndarray) -> np.ndarray:
    """The eight corners [8, 2] that ExtremeNet draws round extreme points [4, 2] (top, left, bottom, right).

    Each point becomes a segment of a quarter of its side of the box, cut at the box's corners.
    """
    top, left, bottom, right = np.asarray(points, np.float64).reshape(4, 2)
    low, high = np.array([left[0], top[1]]), np.array([right[0], bottom[1]])
    across, down = np.diag((high - low) / 8)
    corners = [top + across, top - across, left - down, left + down]
    corners += [bottom - across, bottom + across, right + down, right - down]
    return np.clip(corners, np.minimum(low, high), np.maximum(low, high))  # [8, 2]


def draw_extreme_points(image: np.ndarray, points: np.ndarray, color: Color) -> np.ndarray:
    """Extreme points [4, 2] (top, left, bottom, right) in pixels and the octagon through them, in place."""
    corners, centers = pixels(octagon(points)), pixels(points)
    if image.size == 0 or corners is None or centers is None:
        return image
    width = line_width(image)
    cv2.polylines(image, [np.array(corners)], True, color, width, cv2.LINE_AA)
    for center in centers:
        cv2.circle(image, center, 2 * width, WHITE, cv2.FILLED, cv2.LINE_AA)
        cv2.circle(image, center, 2 * width, color, max(1, width // 2), cv2.LINE_AA)
    return image


def draw_box_3d(image: np.ndarray, corners: np.ndarray, color: Color) -> np.ndarray:
    """A 3D box in place, a cross on its front.

    Args:
        corners: [8, 2] in pixels, ordered as by `compute_box_3d`: four of the ground, then four of the roof.
    """
    corners = np.asarray(corners, np.float64).reshape(8, 2)  # [8, 2]
    if image.size == 0:
        return image
    width = line_width(image)
    for index in range(4):
        following = (index + 1) % 4
        draw_line(image, corners[index], corners[following], color, width)
        draw_line(image, corners[index + 4], corners[following + 4], color, width)
        draw_line(image, corners[index], corners[index + 4], color, width)
    for start, end in ((0, 5), (1, 4)):
        draw_line(image, corners[start], corners[end], color, max(1, width // 2))
    return image


# --------------------------------------------------------------------------------------------- detections


def detections_from_results(
    results: Mapping[int, np.ndarray],
    task: str,
    class_names: Sequence[str] = (),
    keypoint_scores: Mapping[int, np.ndarray] | None = None,
) -> list[Detection]:
    """A detector's results as detections, the best first.

    Args:
        results: {1-based class: rows [n, 5 and more]} as `detector.run` gives them.
        task: 'ctdet', 'exdet', 'multi_pose' or 'ddd', which says what a row holds.
        class_names: of class 1, 2, ...; a class without a name is called by its number.
        keypoint_scores: {1-based class: [n, J]} of the same rows (multi_pose).

    Coordinates are rounded to 2 decimals (metres and radians to 4), scores are in full.
    """
    describe = ROW_FIELDS[task]
    detections = []
    for class_id, rows in results.items():
        name = class_name(class_names, class_id)
        joint_scores = (keypoint_scores or {}).get(class_id)
        for index, row in enumerate(np.asarray(rows)):
            detection = {'class': name, 'class_id': int(class_id), **describe(row)}
            if joint_scores is not None:
                detection['keypoint_scores'] = [float(score) for score in joint_scores[index]]
            detections.append(detection)
    return sorted(detections, key=lambda detection: -detection['score'])


def class_name(class_names: Sequence[str], class_id: int) -> str:
    """Name of a 1-based class; its number where there is no name."""
    return str(class_names[class_id - 1]) if 1 <= class_id <= len(class_names) else str(int(class_id))


def _rounded(values: np.ndarray, decimals: int = 2) -> list:
    return np.round(np.asarray(values, np.float64), decimals).tolist()


def _box_fields(row: np.ndarray) -> Detection:
    return {'score': float(row[4]), 'box': _rounded(row[:4])}


def _pose_fields(row: np.ndarray) -> Detection:
    return {**_box_fields(row), 'keypoints': _rounded(row[5:].reshape(-1, 2))}


def _extreme_fields(row: np.ndarray) -> Detection:
    return {**_box_fields(row), 'extreme_points': _rounded(row[5:13].reshape(4, 2))}


def _ddd_fields(row: np.ndarray) -> Detection:
    return {
        'score': float(row[12]),
        'box': _rounded(row[1:5]),
        'alpha': _rounded(row[0], 4),
        'dim': _rounded(row[5:8], 4),
        'location': _rounded(row[8:11], 4),
        'rotation_y': _rounded(row[11], 4),
    }


ROW_FIELDS: dict[str, Callable[[np.ndarray], Detection]] = {
    'ctdet': _box_fields,
    'exdet': _extreme_fields,
    'multi_pose': _pose_fields,
    'ddd': _ddd_fields,
}


def draw_detections(
    image: np.ndarray,
    detections: Iterable[Detection],
    thresh: float = 0.0,
    skeleton: Sequence[tuple[int, int]] = (),
    calib: np.ndarray | None = None,
    least_side: int = 0,
) -> np.ndarray:
    """A copy of the picture with every detection of score >= `thresh` on it.

    Args:
        detections: see the module's head; a missing `score` (an annotation) counts as 1 and is not written.
        skeleton: limbs as pairs of 0-based joints.
        calib: [3, 4] projection matrix; with it `location` and `dim` are drawn as 3D boxes.
        least_side: a picture whose longer side is shorter is enlarged by a whole factor first, since no label
            is legible on it. 0 keeps the size.
    """
    picture, factor = enlarge_small(image, least_side)
    picture = np.array(picture, order='C')
    if picture.size == 0:
        return picture
    kept = [detection for detection in detections if detection.get('score', 1.0) >= thresh]
    kept.sort(key=lambda detection: -detection.get('score', 1.0))
    for detection in reversed(kept):
        _draw_shape(picture, detection, factor, skeleton, calib)
    named = [each for each in kept if 'box' in each]
    return draw_labels(picture, [(np.multiply(each['box'], factor), _label(each), _color(each)) for each in named])


def _color(detection: Detection) -> Color:
    return class_color(max(detection.get('class_id', 1) - 1, 0))


def _label(detection: Detection) -> str:
    name = str(detection.get('class', ''))
    return f'{name} {detection["score"]:.2f}' if 'score' in detection else name


def _draw_shape(
    picture: np.ndarray,
    detection: Detection,
    factor: int,
    skeleton: Sequence[tuple[int, int]],
    calib: np.ndarray | None,
) -> None:
    """Everything of one detection but its label."""
    color = _color(detection)
    corners = None if calib is None else projected_box(detection, calib)
    if corners is not None:
        draw_box_3d(picture, corners * factor, color)
    elif 'box' in detection:
        draw_outline(picture, np.multiply(detection['box'], factor), color)
    if 'extreme_points' in detection:
        draw_extreme_points(picture, np.multiply(detection['extreme_points'], factor), color)
    if 'keypoints' in detection:
        visibility = detection.get('visibility')
        if visibility is None and 'keypoint_scores' in detection:
            seen = np.array(detection['keypoint_scores']) >= JOINT_SCORE  # [J]
            visibility = np.where(seen, VISIBLE, HIDDEN)
        draw_keypoints(picture, np.multiply(detection['keypoints'], factor), skeleton, visibility)


def projected_box(detection: Detection, calib: np.ndarray) -> np.ndarray | None:
    """Corners [8, 2] in pixels of a 3D box; None without one, or when it reaches behind the camera."""
    corners = box_corners(detection)
    if corners is None or corners[:, 2].min() < NEAR_PLANE:
        return None
    return project_to_image(corners, np.asarray(calib))  # [8, 2]


def box_corners(detection: Detection) -> np.ndarray | None:
    """Corners [8, 3] in metres of a detection's 3D box; None without one, or when it isn't finite."""
    if not {'dim', 'location', 'rotation_y'} <= detection.keys():
        return None
    corners = compute_box_3d(detection['dim'], detection['location'], detection['rotation_y'])  # [8, 3]
    return corners if np.isfinite(corners).all() else None


# ------------------------------------------------------------------------------------- views of other kinds


def bird_view(
    predicted: Iterable[Detection],
    truth: Iterable[Detection] = (),
    thresh: float = 0.0,
    theme: str = 'white',
) -> np.ndarray:
    """Boxes seen from above: a picture [512, 512, 3] with a grid in metres, the camera below in the middle.

    From its lower to its upper edge, and from left to right, are as many metres as the boxes need: 20 to 100.

    Args:
        predicted: detections with `dim`, `location`, `rotation_y` and a score >= `thresh`, in the colours of
            their classes; the thick side is the front.
        truth: annotations alike, filled in grey.
        theme: 'white' or 'black', the ground's colour.
    """
    predicted = _grounds(each for each in predicted if each.get('score', 1.0) >= thresh)
    truth = _grounds(truth)
    every = np.concatenate([corners for corners, _ in predicted + truth] or [np.zeros((1, 2))])  # [n, 2]
    needed = max(2 * np.abs(every[:, 0]).max(), every[:, 1].max())
    extent = float(np.clip(np.ceil(needed / 10) * 10, 20, 100))
    ground, lines, filled = (WHITE, 215, 170) if theme == 'white' else (BLACK, 60, 110)
    picture = np.full((BIRD_SIDE, BIRD_SIDE, 3), ground, np.uint8)

    def to_pixels(corners: ArrayLike) -> np.ndarray:
        x, z = np.asarray(corners, np.float64).T
        return np.stack([x / extent + 0.5, 1 - z / extent], 1) * (BIRD_SIDE - 1)  # [n, 2]

    for corners, _ in truth:
        cv2.fillPoly(picture, [np.array(pixels(to_pixels(corners)))], (filled,) * 3, cv2.LINE_AA)
    _draw_grid(picture, extent, to_pixels, (lines,) * 3, text_color(ground))
    width = line_width(picture)
    for corners, _ in truth:
        _draw_ground(picture, to_pixels(corners), (filled // 2,) * 3, 1)
    for corners, color in predicted:
        _draw_ground(picture, to_pixels(corners), color, width)
    return picture


def _grounds(detections: Iterable[Detection]) -> list[tuple[np.ndarray, Color]]:
    """Ground corners [4, 2] (X, Z in metres, the front's two first) and colour of each 3D box."""
    solids = [(box_corners(each), _color(each)) for each in detections]
    return [(corners[:4, [0, 2]], color) for corners, color in solids if corners is not None]


def _draw_ground(picture: np.ndarray, corners: np.ndarray, color: Color, width: int) -> None:
    for index in range(4):
        thickness = 3 * width if index == 0 else width
        draw_line(picture, corners[index], corners[(index + 1) % 4], color, thickness)


def _draw_grid(picture: np.ndarray, extent: float, to_pixels: Callable, color: Color, ink: Color) -> None:
    """Lines each 10 metres with their distances, and a mark where the camera is."""
    half = extent / 2
    for metres in np.arange(0, extent + 1, 10):
        left, right = to_pixels([(-half, metres), (half, metres)])
        draw_line(picture, left, right, color, 1)
        for side in (-metres, metres):
            if abs(side) <= half:
                draw_line(picture, *to_pixels([(side, 0), (side, extent)]), color, 1)
        if 0 < metres < extent:
            (corner,) = pixels(left)
            text, scale = f'{metres:.0f} m', font_scale(picture)
            cv2.putText(picture, text, (corner[0] + 3, corner[1] - 3), FONT, scale, ink, 1, cv2.LINE_AA)
    (camera,) = pixels(to_pixels([(0, 0)]))
    cv2.circle(picture, camera, 3 * line_width(picture), ink, cv2.FILLED, cv2.LINE_AA)


def heatmap_to_color(
    maps: np.ndarray,
    colors: Sequence[Color] | None = None,
    size: tuple[int, int] | None = None,
    theme: str = 'white',
) -> np.ndarray:
    """Heatmaps as one picture: every map in its class's colour, the strongest on top.

    Args:
        maps: [C, h, w] in [0, 1].
        colors: BGR, one a map. Default: `class_colors`.
        size: (width, height) of the picture; default the maps' own.
        theme: 'white' or 'black', the colour of 0.

    Returns:
        BGR uint8 [height, width, 3].
    """
    maps = np.clip(np.nan_to_num(np.asarray(maps, np.float32)), 0, 1)  # [C, h, w]
    colors = class_colors(len(maps)) if colors is None else colors
    tints = np.array(colors, np.float32).reshape(-1, 3)  # [C, 3]
    if theme == 'white':
        tints = 255 - tints  # drawn as ink: what each colour takes away from white
    picture = np.zeros((*maps.shape[1:], 3), np.float32)  # [h, w, 3]
    for heat, tint in zip(maps, tints, strict=True):
        np.maximum(picture, heat[..., None] * tint, out=picture)
    picture = np.rint(255 - picture if theme == 'white' else picture).astype(np.uint8)
    if size is not None and picture.size:
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)
    return picture


def blend(back: np.ndarray, fore: np.ndarray, amount: float = 0.7) -> np.ndarray:
    """`amount` of picture `fore` over `back` [H, W, 3]; a `fore` of another size is stretched to it."""
    if back.size == 0 or fore.size == 0:
        return back.copy()
    if fore.shape[:2] != back.shape[:2]:
        fore = cv2.resize(fore, (back.shape[1], back.shape[0]))
    return cv2.addWeighted(back, 1 - amount, fore, amount, 0)
