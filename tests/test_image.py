"""Reading images, their geometry, the target drawers and colour augmentation."""

import io
import math
import os
import struct
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from lib.external.raster import affine_planes
from lib.utils.errors import UserError
from lib.utils.image import (
    EIG_VAL,
    EIG_VEC,
    MAX_PIXELS,
    affine_transform,
    color_aug,
    color_transform,
    draw_dense_reg,
    draw_msra_gaussian,
    draw_umich_gaussian,
    fast_jpeg,
    gaussian_radius,
    get_affine_transform,
    is_truncated,
    mean_gray,
    normalize,
    read_image,
    reading,
    reduced_size,
    transform_preds,
    warp_image,
)
from lib.utils.image.reading import default_max_pixels

# -- reading -------------------------------------------------------------------------------------------


def make_image(height=20, width=30):
    """A smooth BGR image, bright at the right, so that JPEG keeps it and a turn shows."""
    ramp = np.linspace(0, 255, width)[None, :, None] * np.array([1, 0.5, 0.2])
    return np.broadcast_to(ramp, (height, width, 3)).astype(np.uint8)


def with_orientation(jpeg, orientation):
    """JPEG bytes with an EXIF segment that says how to turn them."""
    tiff = b'II*\0' + struct.pack('<IHHHIHHI', 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    segment = b'Exif\0\0' + tiff
    return jpeg[:2] + b'\xff\xe1' + struct.pack('>H', len(segment) + 2) + segment + jpeg[2:]


@pytest.fixture
def jpeg():
    return cv2.imencode('.jpg', make_image())[1].tobytes()


@pytest.fixture
def png():
    return cv2.imencode('.png', make_image())[1].tobytes()


@pytest.mark.parametrize('kind', ['grey', 'alpha', '16 bit', '16 bit grey', '1x1'])
def test_read_image_gives_8_bit_bgr(tmp_path, kind):
    """Whatever the file holds, the caller gets uint8 [H, W, 3] of the same colours."""
    bgr = make_image()
    grey = bgr[:, :, 0]
    stored, want = {
        'grey': (grey, cv2.merge([grey] * 3)),
        'alpha': (np.dstack([bgr, np.full(bgr.shape[:2], 99, np.uint8)]), bgr),
        '16 bit': (bgr.astype(np.uint16) * 256, bgr),
        '16 bit grey': (grey.astype(np.uint16) * 256, cv2.merge([grey] * 3)),
        '1x1': (bgr[:1, :1], bgr[:1, :1]),
    }[kind]
    path = tmp_path / 'image.png'
    cv2.imwrite(str(path), stored)
    image = read_image(path)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, want)


@pytest.mark.parametrize(
    ('size', 'shape'), [(None, (30, 20, 3)), ((20, 30), (30, 20, 3)), ((30, 20), (20, 30, 3)), ((7, 7), (30, 20, 3))]
)
def test_orientation_follows_the_size_that_the_dataset_says(tmp_path, jpeg, size, shape):
    """An image stored on its side is turned, unless the dataset's size is that of the stored one."""
    path = tmp_path / 'image.jpg'
    path.write_bytes(with_orientation(jpeg, 6))
    image = read_image(path, size)
    assert image.shape == shape
    bright_end = image[-1] if shape[0] == 30 else image[:, -1]
    assert bright_end[..., 0].mean() > 200


def waves(width, height, x=0.0, y=0.0, step=1.0):
    """Grey levels of a smooth pattern, a full turn every 100 pixels, at x + step * column, y + step * row."""
    columns, rows = x + step * np.arange(width), y + step * np.arange(height)
    return 127 + 100 * np.sin(columns / 16)[None] * np.cos(rows / 16)[:, None]


def write_waves(path, width, height, orientation=None):
    photo = cv2.merge([waves(width, height).round().astype(np.uint8)] * 3)
    data = cv2.imencode(path.suffix, photo, [cv2.IMWRITE_JPEG_QUALITY, 100] if path.suffix == '.jpg' else [])[1]
    path.write_bytes(with_orientation(data.tobytes(), orientation) if orientation else data.tobytes())


@pytest.mark.parametrize('reduction', [2, 4, 8])
@pytest.mark.parametrize('size', [(320, 208), (317, 203)])
def test_reduced_pixels_lie_where_they_should(tmp_path, size, reduction):
    """Pixel (x, y) of a JPEG read smaller shows the middle of its square; a last one that is cut off may differ."""
    write_waves(tmp_path / 'image.jpg', *size)
    image = read_image(tmp_path / 'image.jpg', size, reduction)
    assert image.shape[1::-1] == reduced_size(size, reduction) == tuple(math.ceil(side / reduction) for side in size)
    want = waves(*image.shape[1::-1], *[(reduction - 1) / 2] * 2, reduction)
    assert np.abs(image[:-1, :-1, 0] - want[:-1, :-1]).max() < 4  # half a pixel is 3 to 12 levels


@pytest.mark.parametrize(
    ('name', 'stored', 'size', 'orientation', 'reduced'),
    [
        ('a.png', (320, 208), (320, 208), None, False),
        ('a.jpg', (320, 208), (208, 320), 6, True),
        ('a.jpg', (320, 208), (320, 208), 6, True),
        ('a.jpg', (317, 208), (208, 317), 6, False),
        ('a.jpg', (320, 319), (319, 320), 6, False),
        ('a.jpg', (317, 208), None, 6, False),
        ('a.jpg', (317, 208), None, None, True),
    ],
)
def test_what_cannot_be_reduced_exactly_is_read_in_full(tmp_path, name, stored, size, orientation, reduced):
    """Formats but JPEG, and turned images with a rounded side; the orientation is the one that `size` says."""
    write_waves(tmp_path / name, *stored, orientation)
    full = read_image(tmp_path / name, size)
    image = read_image(tmp_path / name, size, 4)
    assert image.shape[1::-1] == reduced_size(full.shape[1::-1], 4 if reduced else 1)
    if reduced:
        height, width = full.shape[0] // 4, full.shape[1] // 4
        full = cv2.resize(full[: 4 * height, : 4 * width], (width, height), interpolation=cv2.INTER_AREA)
        image = image[:height, :width]
    assert np.abs(image.astype(int) - full).max() < 6


def test_missing_empty_and_foreign_files_are_one_line(tmp_path):
    """A file that is no image is a UserError that names the file."""
    (tmp_path / 'text.jpg').write_text('not an image at all')
    (tmp_path / 'empty.png').write_bytes(b'')
    for name in ('gone.jpg', 'text.jpg', 'empty.png', '.'):
        with pytest.raises(UserError) as error:
            read_image(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)
        assert '\n' not in str(error.value)


@pytest.mark.parametrize('cut', [1, 5, 200])
def test_images_that_are_cut_short_are_found(tmp_path, jpeg, png, cut, capfd):
    """A JPEG without its end marker, a PNG without its end chunk: refused, with nothing said by cv2."""
    for name, data in (('a.jpg', jpeg), ('b.png', png)):
        path = tmp_path / name
        path.write_bytes(data)
        assert not is_truncated(path)
        path.write_bytes(data[: max(len(data) - cut, 30)])
        assert is_truncated(path)
        with pytest.raises(UserError, match='cut short'):
            read_image(path)
    assert capfd.readouterr().err == ''


def test_bytes_after_the_end_are_no_damage(tmp_path, jpeg, png):
    """Cameras append films and makers' notes; the image before them is whole."""
    for name, data in (('a.jpg', jpeg), ('b.png', png)):
        path = tmp_path / name
        path.write_bytes(data + b'\xff\xdaappended' * 9)
        assert not is_truncated(path)
        assert read_image(path).shape == (20, 30, 3)


def test_the_end_of_a_thumbnail_is_not_the_end(tmp_path, jpeg):
    """A thumbnail in the header has an end marker of its own; the image may lack its."""
    segment = b'Exif\0\0' + jpeg
    data = jpeg[:2] + b'\xff\xe1' + struct.pack('>H', len(segment) + 2) + segment + jpeg[2:-20]
    path = tmp_path / 'image.jpg'
    path.write_bytes(data)
    assert is_truncated(path)


def test_the_budget_of_pixels_is_kept_before_decoding(tmp_path, png, monkeypatch):
    """An image of more pixels than allowed is refused by its header; Pillow's own limit neither warns nor acts."""
    path = tmp_path / 'a.png'
    path.write_bytes(png)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 10)
    assert read_image(path, max_pixels=600).shape == (20, 30, 3)
    assert Image.MAX_IMAGE_PIXELS == 10
    monkeypatch.setattr(cv2, 'imdecode', lambda *_: pytest.fail('it was decoded'))
    with pytest.raises(UserError, match='30 x 20 pixels: more than the 599'):
        read_image(path, max_pixels=599)
    assert 16_000 * 12_000 < MAX_PIXELS < 30_000 * 30_000


def test_the_default_budget_follows_the_memory(monkeypatch):
    """Half of the memory holds the image, on a machine with little of it."""
    default_max_pixels.cache_clear()
    monkeypatch.setattr(os, 'sysconf', lambda name: 1000 if name == 'SC_PHYS_PAGES' else 4096)
    assert default_max_pixels() == 1000 * 4096 // 6
    default_max_pixels.cache_clear()


def test_an_image_larger_than_the_memory_is_one_line(tmp_path, png, monkeypatch):
    """When OpenCV gets no memory, the message says so, not that the file is broken."""

    def no_memory(*_):
        error = cv2.error('Failed to allocate')
        error.code = cv2.Error.StsNoMem
        raise error

    (tmp_path / 'a.png').write_bytes(png)
    monkeypatch.setattr(cv2, 'imdecode', no_memory)
    with pytest.raises(UserError, match='larger than the memory'):
        read_image(tmp_path / 'a.png')


def jpegs():
    """Name -> JPEG bytes: colour samplings, progressive, grey, other colours, all orientations."""
    noise = np.random.default_rng(0).integers(0, 256, (53, 75, 3), np.uint8)
    image = cv2.GaussianBlur(noise, (5, 5), 0)
    sampling, progressive = cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_PROGRESSIVE
    made = {
        '4:2:0': cv2.imencode('.jpg', image, [sampling, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420])[1],
        '4:2:2': cv2.imencode('.jpg', image, [sampling, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422])[1],
        '4:4:4': cv2.imencode('.jpg', image, [sampling, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444])[1],
        'progressive': cv2.imencode('.jpg', image, [progressive, 1])[1],
        'grey': cv2.imencode('.jpg', image[..., 0])[1],
    }
    made = {name: data.tobytes() for name, data in made.items()}
    made |= {f'orientation {k}': with_orientation(made['4:2:0'], k) for k in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)}
    cmyk = io.BytesIO()
    Image.fromarray(image).convert('CMYK').save(cmyk, 'JPEG')
    return {**made, 'CMYK': cmyk.getvalue()}


def read_or_refuse(path, *args):
    """The image, or the message of the error that names what is wrong with it."""
    try:
        return read_image(path, *args)
    except UserError as error:
        return str(error)


def test_simplejpeg_gives_the_pixels_of_opencv(tmp_path, monkeypatch):
    """Whole and reduced, turned or as stored, and what it does not decode is OpenCV's."""
    pytest.importorskip('simplejpeg')
    assert fast_jpeg.trusted_decoder() is not None
    decoded = []
    monkeypatch.setattr(reading, 'decode_jpeg', lambda *args: decoded.append(decode(*args)) or decoded[-1])
    decode = fast_jpeg.decode_jpeg
    for name, data in jpegs().items():
        path = tmp_path / 'a.jpg'
        path.write_bytes(data)
        for size, reduction in ((None, 1), ((75, 53), 1), ((75, 53), 2), ((75, 53), 8), ((53, 75), 1)):
            decoded.clear()
            image = read_image(path, size, reduction)
            if size is None:
                is_used = len(decoded) == 1 and decoded[0] is not None
                assert is_used == (name not in ('CMYK', 'orientation 0', 'orientation 9')), name
            with monkeypatch.context() as without:
                without.setattr(reading, 'decode_jpeg', lambda *args: None)
                assert np.array_equal(image, read_image(path, size, reduction)), (name, size, reduction)


def test_damaged_jpegs_are_read_as_before(tmp_path, monkeypatch, capfd):
    """What simplejpeg finds broken OpenCV reads as far as it can, or refuses."""
    pytest.importorskip('simplejpeg')
    rng, path, outcomes = np.random.default_rng(0), tmp_path / 'a.jpg', set()
    originals = list(jpegs().values())
    for number in range(300):
        data = bytearray(originals[number % len(originals)])
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(2, len(data))] = rng.integers(256)
        if number % 3 == 0:
            del data[rng.integers(2, len(data)) :][:40]
        path.write_bytes(data)
        found = read_or_refuse(path)
        with monkeypatch.context() as without:
            without.setattr(reading, 'decode_jpeg', lambda *args: None)
            expected = read_or_refuse(path)
        assert type(found) is type(expected) and np.array_equal(found, expected), number
        outcomes.add(type(found))
    assert outcomes == {str, np.ndarray}


def test_a_simplejpeg_of_other_pixels_is_not_used(monkeypatch, caplog):
    """One line says so; where it is not installed there is nothing to say."""
    monkeypatch.setattr(fast_jpeg, 'simplejpeg', None)
    assert fast_jpeg.trusted_decoder.__wrapped__() is None and not caplog.messages
    other = SimpleNamespace(decode_jpeg=lambda data, colorspace: cv2.imdecode(np.frombuffer(data, np.uint8), 1) ^ 1)
    monkeypatch.setattr(fast_jpeg, 'simplejpeg', other)
    assert fast_jpeg.trusted_decoder.__wrapped__() is None
    (line,) = caplog.messages
    assert 'simplejpeg is not used' in line and 'up to 1 of 255' in line


def test_a_pipe_is_no_image(tmp_path):
    """A named pipe is refused: opening it would wait for its writer."""
    os.mkfifo(tmp_path / 'a.png')
    with pytest.raises(UserError, match='no file'):
        read_image(tmp_path / 'a.png')


def test_an_empty_file_is_truncated(tmp_path):
    """No bytes cannot be mapped into memory, and are no image."""
    path = tmp_path / 'image.jpg'
    path.touch()
    assert os.path.getsize(path) == 0
    assert is_truncated(path)


# -- geometry ------------------------------------------------------------------------------------------


@pytest.mark.parametrize('rot', [0, 30, -100])
@pytest.mark.parametrize('scale', [640, (640, 17)])
def test_affine_transform_is_the_similarity_of_the_paper(rot, scale):
    """dst = (W / s) R (src - c) + (W/2, H/2), written out for a point; the scale's second entry is not used."""
    matrix = get_affine_transform((300, 200), scale, rot, (128, 96), shift=(0.1, -0.2))
    cos, sin = math.cos(math.radians(rot)), math.sin(math.radians(rot))
    dx, dy = 11 - (300 + 64), 77 - (200 - 128)
    want = [128 / 640 * (cos * dx + sin * dy) + 64, 128 / 640 * (-sin * dx + cos * dy) + 48]
    np.testing.assert_allclose(affine_transform((11, 77), matrix), want)


def test_inverse_affine_undoes_the_affine():
    """`inv` is the inverse, and `transform_preds` maps [n, 2] and [n, k, 2] with it."""
    points = np.random.default_rng(0).uniform(-50, 700, (5, 3, 2)).astype(np.float32)
    args = (np.float32([320.5, 213]), 512.0, 25, (128, 96))
    there = affine_transform(points, get_affine_transform(*args))
    np.testing.assert_allclose(affine_transform(there, get_affine_transform(*args, inv=1)), points, atol=1e-4)
    flat = affine_transform(points, get_affine_transform(args[0], args[1], 0, args[3]))
    np.testing.assert_allclose(transform_preds(flat, args[0], args[1], args[3]), points, atol=1e-4)


def test_warp_and_points_agree():
    """A dot moved by warpAffine lands where `affine_transform` says."""
    image = np.zeros((60, 80), np.float32)
    image[20, 50] = 1
    matrix = get_affine_transform((40, 30), 80, 40, (160, 120))
    warped = cv2.warpAffine(image, matrix, (160, 120), flags=cv2.INTER_LINEAR)
    ys, xs = np.indices(warped.shape)
    found = [(xs * warped).sum() / warped.sum(), (ys * warped).sum() / warped.sum()]
    np.testing.assert_allclose(found, affine_transform((50, 20), matrix), atol=0.1)


# -- targets -------------------------------------------------------------------------------------------


@pytest.mark.parametrize('rot', [0, 30])
@pytest.mark.parametrize(('width', 'size', 'scale'), [(700, (90, 40), 700), (90, (700, 40), 95), (700, (650, 30), 120)])
def test_wide_images_are_warped_in_blocks(monkeypatch, width, size, scale, rot):
    """In blocks, as OpenCV 4 needs beyond 32,766 pixels a side, the result is that of one piece."""
    image = cv2.resize(make_image(40, 60), (width, 50))
    image[::7, ::5] = 255 - image[::7, ::5]
    matrix = get_affine_transform((width / 2, 25), scale, rot, size)
    whole = warp_image(image, matrix, size)
    monkeypatch.setattr('lib.utils.image.affine.LARGEST_WARPED', 100)
    blocks = warp_image(image, matrix, size)
    assert whole.any() and np.abs(whole.astype(int) - blocks).mean() < 0.5
    assert (np.abs(whole.astype(int) - blocks) > 20).mean() < 0.01  # at 1/32 pixel, cv2's own rounding


def test_gaussian_radius_by_hand():
    """The three published roots for a 20 x 10 box at overlap 0.7."""
    r1 = (30 + math.sqrt(30**2 - 4 * 200 * 0.3 / 1.7)) / 2
    r2 = (60 + math.sqrt(60**2 - 16 * 0.3 * 200)) / 2
    r3 = (-2 * 0.7 * 30 + math.sqrt((2 * 0.7 * 30) ** 2 + 4 * 4 * 0.7 * 0.3 * 200)) / 2
    assert gaussian_radius((20, 10)) == pytest.approx(min(r1, r2, r3))
    assert gaussian_radius((20, 10), 0.3) > gaussian_radius((20, 10), 0.7)


def slow_gaussian(shape, x, y, reach, sigma):
    """The bump of one object, cell by cell."""
    bump = np.zeros(shape)
    for row in range(shape[0]):
        for col in range(shape[1]):
            if abs(row - y) <= reach and abs(col - x) <= reach:
                bump[row, col] = math.exp(-((row - y) ** 2 + (col - x) ** 2) / (2 * sigma**2))
    return bump


OBJECTS = [((3, 4), 2), ((10, 6), 4), ((12, 7), 3), ((0, 0), 5), ((19, 11), 6), ((5, 5), 0)]
OUTSIDE = [((-3, 4), 4), ((-4, 3), 2), ((5, -9), 3), ((22, 14), 5), ((-50, 3), 2), ((4, 90), 3)]


def test_draw_umich_gaussian_is_the_slow_one():
    """Bumps over one another, clipped at the border, from centres outside as well."""
    heatmap, want = np.zeros((12, 20), np.float32), np.zeros((12, 20))
    for (x, y), radius in OBJECTS + OUTSIDE:
        assert draw_umich_gaussian(heatmap, (x, y), radius) is heatmap
        want = np.maximum(want, slow_gaussian(want.shape, x, y, radius, (2 * radius + 1) / 6))
    np.testing.assert_allclose(heatmap, want, atol=1e-6)
    assert all(heatmap[y, x] == 1 for (x, y), _ in OBJECTS)


def test_draw_umich_gaussian_height():
    """`k` is the height of the bump, and a lower bump leaves a higher one alone."""
    heatmap = np.zeros((9, 9), np.float32)
    draw_umich_gaussian(heatmap, (4, 4), 2, k=0.5)
    assert heatmap.max() == 0.5
    draw_umich_gaussian(heatmap, (4, 4), 2)
    draw_umich_gaussian(heatmap, (4, 4), 2, k=0.25)
    assert heatmap[4, 4] == 1


def test_draw_msra_gaussian_is_the_slow_one():
    """A given sigma, a window of three of it, a rounded centre; sigma 0 is one cell and no NaN."""
    heatmap, want = np.zeros((12, 20), np.float32), np.zeros((12, 20))
    for (x, y), sigma in [((3.6, 4.2), 1), ((10, 6), 2), ((19, 11), 3), ((-4, 3), 2), ((-40, 3), 1), ((30, 99), 2)]:
        assert draw_msra_gaussian(heatmap, (x, y), sigma) is heatmap
        want = np.maximum(want, slow_gaussian(want.shape, int(x + 0.5), int(y + 0.5), 3 * sigma, sigma))
    np.testing.assert_allclose(heatmap, want, atol=1e-6)
    point = draw_msra_gaussian(np.zeros((5, 6), np.float32), (4, 2), 0)
    assert point[2, 4] == 1 and point.sum() == 1


@pytest.mark.parametrize('is_offset', [False, True])
def test_draw_dense_reg_is_the_slow_one(is_offset):
    """Every cell belongs to the object whose bump is the highest there, the later one where they tie."""
    rng = np.random.default_rng(1)
    heatmap, regmap = np.zeros((12, 20), np.float32), np.zeros((2, 12, 20), np.float32)
    want = np.zeros_like(regmap)
    for (x, y), radius in OBJECTS + OUTSIDE:
        value = rng.uniform(-9, 9, 2)
        draw_umich_gaussian(heatmap, (x, y), radius)
        assert draw_dense_reg(regmap, heatmap, (x, y), value, radius, is_offset) is regmap
        bump = slow_gaussian(heatmap.shape, x, y, radius, (2 * radius + 1) / 6).astype(np.float32)
        for row, col in zip(*np.nonzero((bump > 0) & (bump >= heatmap)), strict=True):
            want[:, row, col] = value - is_offset * np.array([col - x, row - y])
    np.testing.assert_allclose(regmap, want, rtol=1e-5, atol=1e-5)


# -- colour --------------------------------------------------------------------------------------------


class Scripted:
    """A generator whose draws are given."""

    def __init__(self, order, factors, noise):
        self.order, self.factors, self.noise = order, iter(factors), noise

    def permutation(self, count):
        return self.order

    def uniform(self, low, high):
        assert (low, high) == (-0.4, 0.4)
        return next(self.factors) - 1

    def normal(self, mean, std, count):
        assert (mean, std, count) == (0, 0.1, 3)
        return np.array(self.noise)


@pytest.mark.parametrize('order', [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_color_aug_is_the_published_sequence(order):
    """One affine map equals brightness, contrast, saturation and lighting done one after the other."""
    image = np.random.default_rng(0).uniform(0, 1, (6, 7, 3)).astype(np.float32)
    factors, noise = (0.7, 1.3, 1.1), (0.1, -0.2, 0.05)
    want = image.astype(np.float64)
    grey = want @ [0.114, 0.587, 0.299]
    for kind, a in zip(order, factors, strict=True):
        blend = [0, grey.mean(), grey[:, :, None]][kind]
        want = a * want + (1 - a) * blend
    want = want + (EIG_VEC * EIG_VAL * noise).sum(1)
    assert color_aug(Scripted(order, factors, noise), image) is image
    np.testing.assert_allclose(image, want, atol=1e-5)


def test_color_transform_draws_in_its_ranges_and_repeats():
    """The same generator state gives the same colours; other states give others."""
    draws = [color_transform(np.random.default_rng(seed), 0.4, EIG_VAL, EIG_VEC) for seed in (5, 5, 6)]
    np.testing.assert_array_equal(draws[0][0], draws[1][0])
    np.testing.assert_array_equal(draws[0][1], draws[1][1])
    assert not np.allclose(draws[0][0], draws[2][0])


def test_mean_gray_is_cv2s():
    """The grey of the contrast blend is the mean of cv2's grey image."""
    image = np.random.default_rng(0).uniform(0, 1, (16, 9, 3)).astype(np.float32)
    assert mean_gray(image) == pytest.approx(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).mean(), abs=1e-5)


@pytest.mark.parametrize('shape', [(5, 7), (3, 1000), (1, 1)])
@pytest.mark.parametrize('changed', [False, True])
def test_normalize_is_the_literal_form(shape, changed):
    """Colours changed on [0, 1], then the mean taken off and divided by std, then channels first, a pixel at a time."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*shape, 3), np.uint8)
    mean, std = np.float32([0.4, 0.45, 0.5]).reshape(1, 1, 3), np.float32([0.2, 0.25, 0.3]).reshape(1, 1, 3)
    matrix, offset = (rng.normal(size=(3, 3)), rng.normal(size=3)) if changed else (np.eye(3), np.zeros(3))
    want = np.empty((3, *shape))
    for row, column in np.ndindex(shape):
        want[:, row, column] = (matrix @ (image[row, column] / 255) + offset - mean.ravel()) / std.ravel()
    got = normalize(image, mean, std, (matrix, offset) if changed else None)
    assert got.dtype == np.float32 and got.flags.c_contiguous
    np.testing.assert_allclose(got, want, atol=1e-5)
    mirrored = normalize(image[:, ::-1], mean, std, (matrix, offset))
    np.testing.assert_array_equal(mirrored, got[..., ::-1])


def test_affine_planes_refuses_other_shapes():
    """Other numbers of channels, or a matrix that is not 3 x 4, would be read past their ends."""
    image, matrix = np.zeros((2, 5, 3), np.uint8), np.zeros((3, 4), np.float32)
    for args in ((image[..., :2].copy(), matrix), (image, matrix[:2])):
        with pytest.raises(ValueError, match='expected an? (image|matrix)'):
            affine_planes(*args)
    assert affine_planes(image[:0], matrix).shape == (3, 0, 5)
