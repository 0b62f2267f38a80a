"""Pictures: reading them, warping them and points on them, drawing targets on maps, colour augmentation."""

import math
import mmap
import os
from collections.abc import Sequence

import cv2
import numpy as np

from ..external.raster import affine_planes, raise_to_gaussian
from .errors import UserError

# Colour covariance of COCO's pixels, for the lighting noise; channels in BGR order.
EIG_VAL = np.array([0.2141788, 0.01817699, 0.00341571], np.float32)
EIG_VEC = np.array(
    [
        [-0.58752847, -0.69563484, 0.41340352],
        [-0.5832747, 0.00994535, -0.81221408],
        [-0.56089297, 0.71832671, 0.41158938],
    ],
    np.float32,
)

GRAY = np.array([0.114, 0.587, 0.299])  # grey value of a BGR pixel
COLOR_JITTER = 0.4
LIGHTING_STD = 0.1

# Reduction of both sides -> cv2's flag.
READ_FLAGS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
JPEG_START = b'\xff\xd8'
PNG_END = b'IEND\xaeB`\x82'  # name and checksum of the last chunk


# -- reading -------------------------------------------------------------------------------------------


def read_image(path: str | os.PathLike, size: tuple[int, int] | None = None, reduction: int = 1) -> np.ndarray:
    """Read an image file of any depth and number of channels.

    Args:
        path: anything that cv2 decodes; grey, alpha and 16 bit become 8-bit BGR.
        size: (width, height) that a dataset's JSON gives. The EXIF orientation is applied, unless only the
            image as it is stored has that size (its boxes were then drawn on the stored one).
        reduction: 2, 4 or 8 decode a JPEG faster to sides divided by it, rounded up. Its pixel (x, y) then lies at
            reduction * (x, y) + (reduction - 1) / 2 of the image. Where that would not be so, the image is read in
            full: other formats, and JPEGs that an EXIF orientation may turn, unless both sides divide.

    Returns:
        uint8 [H, W, 3], BGR.

    Raises:
        UserError: the file is missing, not an image, or cut short.
    """
    try:
        with open(path, 'rb') as file:
            data = file.read()
    except OSError as error:
        raise UserError(f"cannot read the image '{path}': {error.strerror}") from None
    if _ends_early(data):
        raise UserError(f"the image '{path}' is cut short ({len(data)} bytes)")
    if not _can_shrink(data, size, reduction):
        reduction = 1
    image = _decode(data, READ_FLAGS[reduction])
    if image is None:
        raise UserError(f"'{path}' is not an image that can be read")
    height, width = image.shape[:2]
    if size is not None and (width, height) != reduced_size(size, reduction) == (height, width):
        image = _decode(data, READ_FLAGS[reduction] | cv2.IMREAD_IGNORE_ORIENTATION)
    return image


def _can_shrink(data: bytes, size: tuple[int, int] | None, reduction: int) -> bool:
    """Whether the pixels of a reduced image would lie where `read_image` says."""
    if data[:2] != JPEG_START:
        return False
    divides = size is not None and size[0] % reduction == size[1] % reduction == 0
    return divides or b'Exif' not in data[: _jpeg_scan(data)]


def reduced_size(size: Sequence[int], reduction: int) -> tuple[int, int]:
    """(width, height) of an image of that size once it is read with that reduction."""
    width, height = size
    return -(-width // reduction), -(-height // reduction)


def _decode(data: bytes, flags: int) -> np.ndarray | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:  # more pixels than cv2 accepts, a broken header
        return None


def is_truncated(path: str | os.PathLike) -> bool:
    """Whether a JPEG or PNG lacks its end, or a file is empty; reads its first and last bytes, no pixels.

    cv2 would fill the missing part with grey, or complain on stderr.

    Raises:
        OSError: the file cannot be opened.
    """
    if os.path.getsize(path) == 0:
        return True
    with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _ends_early(data)


def _ends_early(data: bytes | mmap.mmap) -> bool:
    if data[:2] == JPEG_START:
        return data[-2:] != b'\xff\xd9' and data.find(b'\xff\xd9', _jpeg_scan(data)) < 0
    if data[:8] == b'\x89PNG\r\n\x1a\n':
        return data[-8:] != PNG_END and data.find(PNG_END) < 0
    return False


def _jpeg_scan(data: bytes | mmap.mmap) -> int:
    """Where a JPEG's first scan starts: past the header, whose thumbnail may hold an end marker too."""
    at = 2
    while at + 4 <= len(data) and data[at + 1] != 0xDA:
        at += 2 + int.from_bytes(data[at + 2 : at + 4], 'big')
    return at


# -- geometry ------------------------------------------------------------------------------------------


def get_affine_transform(
    center: Sequence[float],
    scale: float | Sequence[float],
    rot: float,
    output_size: Sequence[int],
    shift: Sequence[float] = (0, 0),
    inv: int = 0,
) -> np.ndarray:
    """The similarity between an image and the network's input (or output map).

    dst = (W / s) R (src - c) + (W/2, H/2), R = [[cos, sin], [-sin, cos]]. Only the width takes part in the
    factor, and a scale's second entry is never used [keep: published inputs were made so].

    Args:
        center: (x, y) in the image that comes to the middle of the output.
        scale: width in image pixels that fills the output's width; a number, or (w, h) of which w counts.
        rot: degrees, turning the content counter-clockwise on the screen.
        output_size: (W, H) of the output.
        shift: moves the centre, in fractions of the scale.
        inv: truthy for the matrix from output to image.

    Returns:
        float64 [2, 3], as cv2.warpAffine and `affine_transform` take it.
    """
    side = float(np.ravel(scale)[0])
    angle = math.radians(rot)
    factor = side / output_size[0] if inv else output_size[0] / side
    cos, sin = math.cos(angle) * factor, math.sin(angle) * factor
    matrix = np.array([[cos, -sin], [sin, cos]] if inv else [[cos, sin], [-sin, cos]])  # [2, 2]
    source = np.asarray(center, np.float64)[:2] + side * np.asarray(shift, np.float64)  # [2]
    target = np.array([output_size[0] / 2, output_size[1] / 2])  # [2]
    if inv:
        source, target = target, source
    return np.column_stack([matrix, target - matrix @ source])  # [2, 3]


def affine_transform(pt: np.ndarray | Sequence[float], t: np.ndarray) -> np.ndarray:
    """Map one point [2], or many [..., 2], by a matrix [2, 3]; float64 of the same shape."""
    return np.asarray(pt, np.float64) @ t[:, :2].T + t[:, 2]  # [..., 2]


def transform_preds(
    coords: np.ndarray, center: Sequence[float], scale: float | Sequence[float], output_size: Sequence[int]
) -> np.ndarray:
    """Points of the output map [..., 2] in image coordinates, float64; `output_size` is (w, h) of the map."""
    return affine_transform(coords, get_affine_transform(center, scale, 0, output_size, inv=1))


# -- targets -------------------------------------------------------------------------------------------


def gaussian_radius(det_size: Sequence[float], min_overlap: float = 0.7) -> float:
    """How far (cells) both corners of a box may move while its overlap with the box stays `min_overlap`.

    The smallest of three cases: one box shifted against the other, inside it, around it (Law & Deng 2018,
    section 3.2). Each takes the larger root and divides it by 2, not by 2a [keep: the published heatmaps
    were drawn so].

    Args:
        det_size: (height, width) of the box in cells of the map.
    """
    height, width = det_size
    total, area, o = height + width, width * height, min_overlap
    cases = [
        (1, total, area * (1 - o) / (1 + o)),
        (4, 2 * total, (1 - o) * area),
        (4 * o, -2 * o * total, (o - 1) * area),
    ]
    return min((b + math.sqrt(b * b - 4 * a * c)) / 2 for a, b, c in cases)


def draw_umich_gaussian(heatmap: np.ndarray, center: Sequence[float], radius: int, k: float = 1) -> np.ndarray:
    """Raise a class's heatmap to a Gaussian bump at an object's centre (section 3 of the paper).

    sigma is a sixth of the diameter 2r + 1. (No value is under e^-9, so the published cut at eps * max
    never acts.)

    Args:
        heatmap: float32 [h, w], changed in place.
        center: (x, y), truncated to a cell; one outside the map leaves what reaches in.
        radius: cells, 0 for the centre alone.
        k: height of the bump.

    Returns:
        `heatmap`.
    """
    raise_to_gaussian(heatmap, int(center[0]), int(center[1]), radius, (2 * radius + 1) / 6, k)
    return heatmap


def draw_msra_gaussian(heatmap: np.ndarray, center: Sequence[float], sigma: float) -> np.ndarray:
    """As `draw_umich_gaussian`, with sigma given, a window of 3 sigma each way and the centre rounded.

    A sigma of 0 marks the centre cell alone.
    """
    raise_to_gaussian(heatmap, int(center[0] + 0.5), int(center[1] + 0.5), int(3 * sigma), sigma or 1)
    return heatmap


def draw_dense_reg(
    regmap: np.ndarray,
    heatmap: np.ndarray,
    center: Sequence[float],
    value: Sequence[float],
    radius: int,
    is_offset: bool = False,
) -> np.ndarray:
    """Write an object's value where its Gaussian is not under the heatmap, that is where it is the strongest.

    Args:
        regmap: float32 [d, h, w], changed in place.
        heatmap: float32 [h, w], the Gaussians so far, this object's drawn or not.
        center: (x, y), truncated to a cell.
        value: [d].
        radius: that of the object's Gaussian, cells.
        is_offset: the value (then [2]) points from the centre, and every cell gets the vector from itself to
            the same target.

    Returns:
        `regmap`.
    """
    x, y = int(center[0]), int(center[1])
    rows, cols = _window(y, radius, heatmap.shape[0]), _window(x, radius, heatmap.shape[1])
    # both in float32: mixed precisions left about half of the cells untouched
    mine = _gaussian(rows, cols, x, y, (2 * radius + 1) / 6) >= heatmap[rows, cols]  # [r, c]
    values = np.asarray(value, np.float32).reshape(-1, 1, 1)  # [d, 1, 1]
    if is_offset:
        values = values - np.stack(np.meshgrid(_steps(cols, x), _steps(rows, y)))  # [2, r, c]
    np.copyto(regmap[:, rows, cols], values, where=mine, casting='same_kind')
    return regmap


def _window(middle: int, reach: int, length: int) -> slice:
    """Cells within `reach` of `middle` on an axis of `length`; an empty slice when there is none."""
    return slice(max(middle - reach, 0), max(min(middle + reach + 1, length), 0))


def _steps(window: slice, middle: int) -> np.ndarray:
    return np.arange(window.start, window.stop, dtype=np.float64) - middle


def _gaussian(rows: slice, cols: slice, x: int, y: int, sigma: float) -> np.ndarray:
    """exp(-(dx^2 + dy^2) / 2 sigma^2) on a window, float32 [rows, cols]; exactly 1 at (x, y)."""
    column = np.exp(_steps(rows, y) ** 2 / (-2 * sigma * sigma))  # [r]
    row = np.exp(_steps(cols, x) ** 2 / (-2 * sigma * sigma))  # [c]
    return np.outer(column, row).astype(np.float32)  # [r, c]


# -- colour --------------------------------------------------------------------------------------------


def mean_gray(image: np.ndarray) -> float:
    """Mean grey value of a BGR image [H, W, 3], in the image's own range."""
    return float(GRAY @ cv2.mean(image)[:3])


def color_transform(
    rng: np.random.Generator, gray_mean: float, eig_val: np.ndarray, eig_vec: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one image's colour treatment, as the affine map x -> A x + b of its BGR pixels in [0, 1].

    Brightness (x a), contrast (x a + (1 - a) mean grey), saturation (x a + (1 - a) grey) in random order,
    each with its own a in 1 +- 0.4 and the grey of the untouched pixel; then lighting noise along the
    eigenvectors of the colours' covariance.

    Args:
        rng: draws the order, the three factors and the noise.
        gray_mean: mean grey value of the image, in [0, 1].
        eig_val, eig_vec: [3] and [3, 3], columns being the vectors (`EIG_VAL`, `EIG_VEC`).

    Returns:
        A float64 [3, 3], b float64 [3].
    """
    matrix, offset = np.eye(3), np.zeros(3)
    blends = [(0, 0), (0, gray_mean), (GRAY, 0)]  # what each kind mixes in: a row of A, an entry of b
    for kind in rng.permutation(3):
        a = 1 + rng.uniform(-COLOR_JITTER, COLOR_JITTER)
        row, constant = blends[kind]
        matrix = a * matrix + (1 - a) * row  # [3, 3]
        offset = a * offset + (1 - a) * constant  # [3]
    offset = offset + eig_vec @ (eig_val * rng.normal(0, LIGHTING_STD, 3))
    return matrix, offset


def color_aug(
    rng: np.random.Generator, image: np.ndarray, eig_val: np.ndarray = EIG_VAL, eig_vec: np.ndarray = EIG_VEC
) -> np.ndarray:
    """Change the colours of a float BGR image [H, W, 3] in [0, 1], in place (see `color_transform`).

    Values may leave [0, 1]. Returns `image`.
    """
    matrix, offset = color_transform(rng, mean_gray(image), eig_val, eig_vec)
    image[...] = cv2.transform(image, np.column_stack([matrix, offset]))
    return image


def normalize(
    image: np.ndarray, mean: np.ndarray, std: np.ndarray, color: tuple[np.ndarray, np.ndarray] | None = None
) -> np.ndarray:
    """An image as the network takes it: colours changed, (x - mean) / std, channels first.

    All of it is one affine map of each pixel.

    Args:
        image: uint8 BGR [H, W, 3].
        mean, std: [3] (or [1, 1, 3]), of the channels on [0, 1].
        color: a map (A, b) from `color_transform`, or None.

    Returns:
        float32 [3, H, W], contiguous.
    """
    matrix, offset = color if color is not None else (np.eye(3), np.zeros(3))
    mean, std = np.ravel(mean)[:, None], np.ravel(std)[:, None].astype(np.float64)  # [3, 1]
    whole = np.hstack([matrix / 255, offset[:, None] - mean]) / std  # [3, 4]
    return affine_planes(np.ascontiguousarray(image), whole.astype(np.float32))  # [3, H, W]
