"""Colour augmentation and normalisation."""

import cv2
import numpy as np

from ...external.raster import affine_planes

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


def mean_gray(image: np.ndarray) -> float:
    """Return the mean grey value of a BGR image [H, W, 3], in the image's own range."""
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
    """Change the colours of an image at random, in place (see `color_transform`).

    Args:
        rng: draws the change.
        image: float BGR [H, W, 3] in [0, 1], which values may leave.
        eig_val, eig_vec: [3] and [3, 3], columns being the vectors.

    Returns:
        `image`.
    """
    matrix, offset = color_transform(rng, mean_gray(image), eig_val, eig_vec)
    image[...] = cv2.transform(image, np.column_stack([matrix, offset]))
    return image


def normalize(
    image: np.ndarray, mean: np.ndarray, std: np.ndarray, color: tuple[np.ndarray, np.ndarray] | None = None
) -> np.ndarray:
    """Turn an image into the network's input: colours changed, (x - mean) / std, channels first.

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
