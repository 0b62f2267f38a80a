"""Images: reading and writing them, warping them and points on them, drawing targets on maps, changing colours."""

from .affine import affine_transform, get_affine_transform, transform_preds, warp_image
from .colors import EIG_VAL, EIG_VEC, color_aug, color_transform, mean_gray, normalize
from .gaussians import (
    Gaussian,
    draw_dense_reg,
    draw_msra_gaussian,
    draw_umich_gaussian,
    gaussian_radius,
    msra_gaussian,
    umich_gaussian,
)
from .reading import (
    MAX_PIXELS,
    READ_FLAGS,
    as_bgr_image,
    default_max_pixels,
    is_truncated,
    open_lazily,
    read_image,
    reduced_size,
)

__all__ = [
    'EIG_VAL',
    'EIG_VEC',
    'Gaussian',
    'MAX_PIXELS',
    'READ_FLAGS',
    'affine_transform',
    'as_bgr_image',
    'color_aug',
    'color_transform',
    'default_max_pixels',
    'draw_dense_reg',
    'draw_msra_gaussian',
    'draw_umich_gaussian',
    'gaussian_radius',
    'get_affine_transform',
    'is_truncated',
    'mean_gray',
    'msra_gaussian',
    'normalize',
    'open_lazily',
    'read_image',
    'reduced_size',
    'transform_preds',
    'umich_gaussian',
    'warp_image',
]
