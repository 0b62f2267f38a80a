"""ddd: from annotated 3D boxes to targets, through an ideal network, back to the annotated boxes; KITTI's files."""

import json

import cv2
import numpy as np
import pytest
import torch

from lib.datasets.dataset_factory import get_dataset
from lib.datasets.loaders import val_loader
from lib.datasets.toy import make_toy_data
from lib.detectors.detector_factory import detector_factory
from lib.models.losses import BinRotLoss, FocalLoss, L1Loss
from lib.models.model import create_model
from lib.models.outputs import decode_boxes_3d
from lib.models.utils import depth_logits, depth_of
from lib.opts import opts
from lib.trains.ddd import DddLoss, DddTrainer
from lib.utils.ddd_utils import DEFAULT_CALIB, alpha_bins, compute_box_3d, get_alpha, project_to_image, rot_y2alpha
from lib.utils.drawing import projected_box
from lib.utils.errors import UserError
from lib.utils.image import affine_transform, get_affine_transform
from lib.utils.post_process import ddd_post_process

WIDTH, HEIGHT = 320, 96
OUT_W, OUT_H = WIDTH // 4, HEIGHT // 4
CAMERAS = [
    [[180.0, 0, 155, 11], [0, 180, 45, -0.1], [0, 0, 1, 0.005]],
    [[250.0, 0, 170, 5], [0, 250, 40, 0.2], [0, 0, 1, 0]],
]
DIMS = {1: (1.7, 0.6, 0.8), 2: (1.5, 1.6, 3.9), 3: (1.7, 0.6, 1.8)}  # by KITTI category
ORACLES = tuple(f'--eval_oracle_{head}' for head in ('hm', 'dep', 'dim', 'rot', 'wh', 'offset'))
HEADS = {'hm', 'dep', 'rot', 'dim', 'wh', 'reg'}


def solid(category, location, turn, camera):
    """An annotation whose 2D box has the projected middle of the 3D box as its centre, as the method assumes."""
    dim, camera = DIMS[category], np.array(camera)
    corners = project_to_image(compute_box_3d(dim, location, turn), camera)
    middle = project_to_image(np.array(location) - [0, dim[0] / 2, 0], camera)
    half = np.abs(corners - middle).max(0).clip(4)
    depth = location[2] + camera[2, 3]
    alpha = rot_y2alpha(turn, middle[0], camera[0, 2], camera[0, 0])
    facts = {'dim': dim, 'location': location, 'depth': depth, 'rotation_y': turn, 'alpha': alpha}
    return {'category_id': category, 'bbox': [*(middle - half), *(2 * half)], **facts, 'truncated': 0, 'occluded': 0}


def scene(rng, camera):
    """Objects side by side, so that none hides another's cell; boxes wholly inside the image."""
    found = []
    for place in np.linspace(-1, 1, 4)[: rng.integers(1, 5)]:
        depth = rng.uniform(9, 20)
        location = [place * 0.36 * depth, rng.uniform(0.8, 1.2), depth]
        found.append(solid(int(rng.integers(1, 4)), location, rng.uniform(-np.pi, np.pi), camera))
    return found


def ignored(category, box):
    """An object of a kind that is no class, with nothing known but its box."""
    unknown = {'dim': [-1] * 3, 'location': [-1000] * 3, 'depth': -1000, 'rotation_y': -10, 'alpha': -10}
    return {'category_id': category, 'bbox': box, **unknown, 'truncated': -1, 'occluded': -1}


KINDS = ['Pedestrian', 'Car', 'Cyclist', 'Van', 'Truck', 'Person_sitting', 'Tram', 'Misc', 'DontCare']


def write_kitti(root, scenes, calibs=CAMERAS, names=KINDS, own=False):
    """A --data_dir with KITTI's images (grey noise), or own data, of `scenes` (lists of annotations)."""
    images = root / 'images' if own else root / 'kitti/images/trainval'
    annotations = root / 'annotations' if own else root / 'kitti/annotations'
    images.mkdir(parents=True)
    annotations.mkdir()
    coco = {'images': [], 'annotations': []}
    coco['categories'] = [{'id': i, 'name': name} for i, name in enumerate(names, start=1)]
    for number, objects in enumerate(scenes):
        pixels = np.random.default_rng(number).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        assert cv2.imwrite(str(images / f'{number:06d}.png'), pixels)
        image = {'id': number, 'file_name': f'{number:06d}.png', 'width': WIDTH, 'height': HEIGHT}
        calib = calibs[number % len(calibs)]
        coco['images'].append(image if calib is None else {**image, 'calib': calib})
        for annotation in objects:
            coco['annotations'].append({'id': len(coco['annotations']), 'image_id': number, **annotation})
    for split in ('train', 'val'):
        (annotations / (f'{split}.json' if own else f'kitti_3dop_{split}.json')).write_text(json.dumps(coco))
    return root


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Eight frames with up to four objects, seen by two cameras in turn, and one without any."""
    rng = np.random.default_rng(1)
    scenes = [scene(rng, CAMERAS[i % 2]) for i in range(8)]
    return write_kitti(tmp_path_factory.mktemp('data'), [*scenes, []])


def options(folder, *args, dataset='kitti'):
    """Parsed options and the dataset class, of a small network on the CPU."""
    opt = opts().parse(
        ['ddd', '--dataset', str(dataset), '--data_dir', str(folder), '--arch', 'res_18', '--input_h', str(HEIGHT)]
        + ['--input_w', str(WIDTH), '--gpus', '-1', '--pretrained', 'none', '--num_workers', '0']
        + ['--exp_dir', str(folder / 'exp'), *args]
    )
    dataset = get_dataset(opt.dataset, opt.task)
    opts.update_dataset_info_and_set_heads(opt, dataset)
    opt.device = torch.device('cpu')
    return opt, dataset


def make_dataset(folder, split, *args, **kwargs):
    opt, dataset = options(folder, *args, **kwargs)
    return opt, dataset(opt, split)


def as_batch(sample):
    return torch.utils.data.default_collate([sample])


def ideal_rows(opt, batch):
    """Decoded rows [n, columns] of a network that knows the targets: those that are objects."""
    rows = decode_boxes_3d(DddLoss(opt).with_oracles({}, batch), opt.K)[0]
    return rows[rows[:, 2] > 0.5]


def located(opt, rows, meta):
    """Result rows [n, 14] of decoded ones, the class in front."""
    found = ddd_post_process(rows[None], [meta['c']], [meta['s']], [meta['calib']], opt)[0]
    return np.concatenate([np.c_[np.full(len(of_class), cls), of_class] for cls, of_class in found.items()])


def check_annotated(rows, annotations, atol=0.02):
    """Rows [n, 14] of class, alpha, box, dims, location, rotation_y, score are the annotations, each once."""
    assert len(rows) == len(annotations)
    for each in annotations:
        x, y, w, h = each['bbox']
        wanted = np.array([each['category_id'], x, y, x + w, y + h, *each['dim'], *each['location']])
        error = np.abs(rows[:, [0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]] - wanted).max(1)
        best = error.argmin()
        assert error[best] < atol
        for column, name in ((1, 'alpha'), (12, 'rotation_y')):
            assert np.cos(rows[best, column] - each[name]) > 1 - 1e-5


def annotations_of(folder, image_id):
    coco = json.loads((folder / 'kitti/annotations/kitti_3dop_val.json').read_text())
    return [each for each in coco['annotations'] if each['image_id'] == image_id]


# ------------------------------------------------------------------------------------------- targets


@pytest.mark.parametrize('extra', [(), ('--mse_loss',)])
def test_targets_decode_to_the_annotated_boxes(folder, extra):
    """The ideal network finds a frame's 3D boxes, each frame with its own camera."""
    opt, dataset = make_dataset(folder, 'val', *ORACLES, *extra)
    for i in range(len(dataset)):
        sample = dataset[i]
        np.testing.assert_allclose(sample['meta']['calib'], CAMERAS[i % 2], rtol=1e-6)
        rows = located(opt, ideal_rows(opt, as_batch(sample)), sample['meta'])
        check_annotated(rows, annotations_of(folder, i))
        np.testing.assert_allclose(
            located(opt, sample['meta']['gt_det'][sample['meta']['gt_det'][:, 2] > 0], sample['meta'])[:, 1:12].sum(),
            rows[:, 1:12].sum(),
            rtol=1e-3,
        )


def test_jittered_targets_decode_to_the_annotated_boxes(folder):
    """Shifted and scaled frames too: whole objects come back; depth and size are then not to be learnt, the rest is."""
    opt, dataset = make_dataset(folder, 'train', *ORACLES, '--aug_ddd', '1', '--scale', '0.1', '--shift', '0.03')
    opt.debug, whole = 1, 0
    for epoch in range(4):
        dataset.set_epoch(epoch)
        for i in range(8):
            sample = dataset[i]
            meta, annotations = sample['meta'], annotations_of(folder, i)
            assert not np.allclose(meta['s'], [WIDTH, HEIGHT]) and sample['reg_mask'].sum() == 0
            boxes = np.array([each['bbox'] for each in annotations])
            factor = WIDTH / meta['s'][0]
            low = (boxes[:, :2] - meta['c']) * factor + [WIDTH / 2, HEIGHT / 2]
            if (low < 0).any() or (low + boxes[:, 2:] * factor >= [WIDTH - 4, HEIGHT - 4]).any():
                continue
            whole += 1
            assert sample['rot_mask'].sum() == len(annotations)
            check_annotated(located(opt, ideal_rows(opt, as_batch(sample)), meta), annotations)
    assert whole >= 8


def test_unjittered_frames_are_whole_and_never_mirrored(folder):
    """`--aug_ddd 0`: the training sample is the validation sample, whatever --flip says."""
    _, train = make_dataset(folder, 'train', '--aug_ddd', '0', '--flip', '1')
    _, val = make_dataset(folder, 'val')
    for name, value in train[0].items():
        np.testing.assert_array_equal(value, val[0][name])


@pytest.mark.parametrize(
    'args', [('--shift', '0'), ('--scale', '0'), ('--aug_ddd', '0'), ('--keep_res',), ('--seed', '1')]
)
def test_options_change_the_view(folder, args):
    """Each option of the window acts on what the network sees."""
    common = ('--aug_ddd', '1', '--input_w', '640')
    plain, other = (make_dataset(folder, 'train', *common, *more)[1][0]['input'] for more in ((), args))
    assert plain.shape == other.shape == (3, HEIGHT, 640) and not np.allclose(plain, other)


def test_keep_res_is_a_window_of_the_inputs_size(folder):
    """As published: with --keep_res the input's width is cut out, whatever the image's."""
    _, dataset = make_dataset(folder, 'val', '--keep_res', '--input_w', '640')
    meta = dataset[0]['meta']
    assert meta['s'].tolist() == [640, HEIGHT] and meta['c'].tolist() == [WIDTH / 2, HEIGHT / 2]


def test_bins_of_every_angle():
    """Each alpha is in one bin or both, and comes back from them, modulo a turn."""
    alpha = np.linspace(-np.pi, np.pi, 181)
    bins, residuals = alpha_bins(alpha)
    expected = [[a < np.pi / 6 or a > 5 * np.pi / 6, a > -np.pi / 6 or a < -5 * np.pi / 6] for a in alpha]
    np.testing.assert_array_equal(bins, expected)
    assert (residuals[bins == 0] == 0).all() and {tuple(pair) for pair in bins} == {(1, 0), (0, 1), (1, 1)}
    rot = np.stack([-bins, bins, np.sin(residuals), np.cos(residuals)], 2).reshape(-1, 8)
    assert np.cos(get_alpha(rot) - alpha).min() > 1 - 1e-9


def test_depth_head_and_its_inverse():
    """Depths from 0 to 100 m survive the way to the raw head and back."""
    depth = torch.linspace(0, 100, 51)
    torch.testing.assert_close(depth_of(depth_logits(depth)), depth, rtol=1e-4, atol=1e-4)


# ------------------------------------------------------------------------------------- ignored kinds


@pytest.mark.parametrize(
    ('category', 'classes'), [(4, [1]), (5, [1]), (6, [0]), (9, [0, 1, 2]), (7, []), (8, [])], ids=lambda v: str(v)
)
def test_ignored_kinds(tmp_path, category, classes):
    """Van, Truck, Person_sitting and DontCare mark the classes they could be taken for; Tram and Misc nothing."""
    root = write_kitti(tmp_path, [[ignored(category, [80, 20, 80, 40])]])
    for extra in ((), ('--rect_mask',)):
        _, dataset = make_dataset(root, 'val', *extra)
        sample = dataset[0]
        for cls, hm in enumerate(sample['hm']):
            assert hm.max() == pytest.approx(0.9999 if cls in classes else 0)
            if cls in classes:
                wanted = np.zeros((OUT_H, OUT_W), bool)
                wanted[5:16, 20:41] = True
                if extra:
                    np.testing.assert_array_equal(hm, np.where(wanted, np.float32(0.9999), 0))
                else:
                    assert np.argwhere(hm == hm.max()).tolist() == [[10, 30]] and 9 < (hm > 0).sum() < wanted.sum()
        assert sample['rot_mask'].sum() == 0 and sample['meta']['gt_det'].tolist() == [[0] * 18]


def test_ignored_kinds_are_not_what_the_oracle_finds(tmp_path):
    """The true heatmap holds objects alone, and a frame with only DontCare none."""
    car = solid(2, [0, 1, 12], 0.3, CAMERAS[0])
    root = write_kitti(tmp_path, [[car, ignored(9, [10, 10, 30, 30])], [ignored(9, [10, 10, 60, 30])]])
    opt, dataset = make_dataset(root, 'val', *ORACLES)
    check_annotated(located(opt, ideal_rows(opt, as_batch(dataset[0])), dataset[0]['meta']), [car])
    assert len(ideal_rows(opt, as_batch(dataset[1]))) == 0


# ------------------------------------------------------------------------------------------ bad input


def test_objects_without_a_place_are_named_counted_and_skipped(tmp_path, capsys):
    """Depth 0, behind the camera, no size, no orientation, no facts at all: left out; the others stay."""
    good = solid(2, [0, 1, 12], 0.3, CAMERAS[0])
    bad = [{'depth': 0}, {'depth': -3.0}, {'dim': [0, 1, 1]}, {'alpha': -10}, {'dim': None}, {'depth': 'far'}]
    root = write_kitti(tmp_path, [[good], [good | facts for facts in bad]])
    _, dataset = make_dataset(root, 'val')
    said = capsys.readouterr().out
    assert '2 objects left out, at depth 0 or behind the camera (images): 000001.png' in said
    assert '2 objects left out, of unknown size or orientation (images): 000001.png' in said
    assert "1 objects without usable 'dim'" in said and "1 objects without usable 'depth'" in said
    assert dataset[0]['rot_mask'].sum() == 1 and dataset[1]['rot_mask'].sum() == 0 and not dataset[1]['hm'].any()
    assert len(dataset.ground_truth()['annotations']) == 1


def test_plain_boxes_are_refused(tmp_path):
    """COCO annotations without any 3D facts are no data for ddd, and the message names the tool."""
    root = write_kitti(tmp_path, [[{'category_id': 2, 'bbox': [10, 10, 30, 30]}]])
    with pytest.raises(UserError, match='convert_kitti_to_coco'):
        make_dataset(root, 'val')


@pytest.mark.parametrize('calib', [None, [[1, 2], [3, 4]], 'P2', [[float('nan')] * 4] * 3])
def test_frames_without_a_calibration_get_the_common_one(tmp_path, capsys, calib):
    """Missing or malformed: said with their number; --calib stands in, or KITTI's published matrix."""
    root = write_kitti(tmp_path, [[], []], calibs=[CAMERAS[0], calib])
    _, dataset = make_dataset(root, 'val')
    said = capsys.readouterr().out
    assert "1 images without usable 'calib' (12 numbers; ids): 1" in said
    assert '1 images without a usable calibration' in said and 'published' in said
    np.testing.assert_allclose([dataset.image_meta(i)['calib'] for i in (0, 1)], [CAMERAS[0], DEFAULT_CALIB], rtol=1e-6)
    file = tmp_path / 'calib.txt'
    file.write_text('P2: ' + ' '.join(map(str, np.ravel(CAMERAS[1]))))
    _, dataset = make_dataset(root, 'val', '--calib', str(file))
    assert str(file) in capsys.readouterr().out
    np.testing.assert_allclose(dataset.image_meta(1)['calib'], CAMERAS[1], rtol=1e-6)


# --------------------------------------------------------------------------------------------- losses


def random_output(opt, seed=0, batch=1):
    generator = torch.Generator().manual_seed(seed)
    return {
        head: torch.randn(batch, channels, OUT_H, OUT_W, generator=generator) for head, channels in opt.heads.items()
    }


def test_loss_is_the_weighted_sum_of_its_parts(folder):
    """Each part is its published loss under its own mask: depth and size of frames at true scale alone."""
    opt, dataset = make_dataset(folder, 'val')
    batch, output = as_batch(dataset[0]), random_output(opt)
    batch['reg_mask'][:] = 0
    batch['reg_mask'][0, 0] = 1
    _, stats = DddLoss(opt)([output], batch)
    assert list(stats) == ['loss', 'hm_loss', 'dep_loss', 'dim_loss', 'rot_loss', 'wh_loss', 'off_loss']
    l1, ind, all_objects = L1Loss(), batch['ind'], batch['rot_mask']
    depth = 1 / (output['dep'].sigmoid() + 1e-6) - 1
    expected = {
        'hm_loss': FocalLoss()(output['hm'].sigmoid(), batch['hm']),
        'dep_loss': l1(depth, batch['reg_mask'], ind, batch['dep']),
        'dim_loss': l1(output['dim'], batch['reg_mask'], ind, batch['dim']),
        'rot_loss': BinRotLoss()(output['rot'], all_objects, ind, batch['rotbin'], batch['rotres']),
        'wh_loss': l1(output['wh'], all_objects, ind, batch['wh']),
        'off_loss': l1(output['reg'], all_objects, ind, batch['reg']),
    }
    for name, value in expected.items():
        torch.testing.assert_close(stats[name], value)
    weights = dict.fromkeys(expected, 1.0) | {'wh_loss': 0.1}
    torch.testing.assert_close(stats['loss'], sum(weights[name] * value for name, value in expected.items()))


@pytest.mark.parametrize('part', ['hm', 'dep', 'dim', 'rot', 'wh', 'off'])
def test_weights_act(folder, part):
    """A weight scales its part of the loss; 0 switches the part off."""
    _, dataset = make_dataset(folder, 'val')
    batch, losses = as_batch(dataset[0]), {}
    for weight in (0, 1, 3):
        opt, _ = options(folder, f'--{part}_weight', str(weight))
        losses[weight], stats = DddLoss(opt)([random_output(opt)], batch)
        assert (stats[f'{part}_loss'] == 0) == (weight == 0 and part != 'hm')
    torch.testing.assert_close(losses[3] - losses[0], 3 * (losses[1] - losses[0]), rtol=1e-3, atol=1e-4)


def test_mse_loss_is_of_sigmoids(folder):
    """`--mse_loss`: squared error of sigmoids against a heatmap that `--hm_gauss` makes wider."""
    opt, dataset = make_dataset(folder, 'val', '--mse_loss')
    _, wider = make_dataset(folder, 'val', '--mse_loss', '--hm_gauss', '5')
    batch, output = as_batch(dataset[0]), random_output(opt)
    _, stats = DddLoss(opt)([output], batch)
    torch.testing.assert_close(stats['hm_loss'], ((output['hm'].sigmoid() - batch['hm']) ** 2).mean())
    assert wider[0]['hm'].sum() > 1.5 * dataset[0]['hm'].sum()


def test_without_offsets(folder):
    """`--not_reg_offset`: no head, no target, no loss; a centre is then the middle of its cell."""
    opt, dataset = make_dataset(folder, 'val', '--not_reg_offset', *ORACLES[:5])
    batch = as_batch(dataset[0])
    assert set(opt.heads) == HEADS - {'reg'} and 'reg' not in batch
    assert DddLoss(opt)([random_output(opt)], batch)[1]['off_loss'] == 0
    rows = ideal_rows(opt, batch)
    assert len(rows) == batch['rot_mask'].sum() and (rows[:, :2] % 1 == 0.5).all()


def test_without_2d_boxes(folder):
    """`--not_reg_bbox`: no head, no target, no loss; the 2D box is then the one round the projected 3D box."""
    opt, dataset = make_dataset(folder, 'val', '--not_reg_bbox', *(option for option in ORACLES if 'wh' not in option))
    sample = dataset[0]
    batch, meta = as_batch(sample), sample['meta']
    assert set(opt.heads) == HEADS - {'wh'} and 'wh' not in batch and meta['gt_det'].shape[1] == 16
    assert DddLoss(opt)([random_output(opt)], batch)[1]['wh_loss'] == 0
    rows = located(opt, ideal_rows(opt, batch), meta)
    assert len(rows) == batch['rot_mask'].sum()
    for row in rows:
        corners = project_to_image(compute_box_3d(row[6:9], row[9:12], row[12]), meta['calib'])
        np.testing.assert_allclose(row[2:6], [*corners.min(0), *corners.max(0)], atol=0.05)


@pytest.mark.parametrize(('option', 'head'), list(zip(ORACLES, ('hm', 'dep', 'dim', 'rot', 'wh', 'reg'), strict=True)))
def test_each_oracle_replaces_its_head_alone(folder, option, head):
    """The truth that `--eval_oracle_*` puts in place of a head leaves no loss of that head."""
    opt, dataset = make_dataset(folder, 'val', option)
    batch, output = as_batch(dataset[0]), random_output(opt)
    replaced = DddLoss(opt).with_oracles(output, batch)
    assert [name for name in HEADS if not torch.equal(replaced[name], output[name])] == [head]
    part = {'reg': 'off'}.get(head, head)
    without, with_oracle = (DddLoss(options(folder, *more)[0])([output], batch)[1] for more in ((), (option,)))
    assert with_oracle[f'{part}_loss'] < (without[f'{part}_loss'] if head == 'rot' else 1e-3)


# ------------------------------------------------------------------------------------------- detector


@pytest.fixture(scope='module')
def detector(folder):
    """A detector with a network of fixed random weights."""
    torch.manual_seed(0)
    opt, _ = options(folder, '--peak_thresh', '0', '--K', '30')
    return detector_factory['ddd'](opt)


def all_rows(results):
    return np.concatenate(list(results.values()))


def test_each_image_has_its_own_calibration(folder, detector, capsys):
    """In `run(image, meta)`, prefetched or not; without one the published matrix is used, and that is said once."""
    image = cv2.imread(str(folder / 'kitti/images/trainval/000000.png'))
    plain = all_rows(detector.run(image)['results'])
    detector.run(image)
    assert capsys.readouterr().out.count("KITTI's published calibration is used") == 1
    meta = {'calib': np.float32(CAMERAS[1])}
    own = all_rows(detector.run(image, meta)['results'])
    prefetched = all_rows(detector.run(detector.pre_process.prefetch(image, meta))['results'])
    np.testing.assert_array_equal(own, prefetched)
    np.testing.assert_array_equal(own[:, 1:8], plain[:, 1:8])
    assert not np.allclose(own[:, 8:10], plain[:, 8:10]) and plain.shape == (30, 13)
    assert detector.run(image, {'calib': DEFAULT_CALIB})['results'].keys() == {1, 2, 3}
    np.testing.assert_array_equal(detector.calib, DEFAULT_CALIB)


def test_calib_file_is_the_detectors(folder, tmp_path, capsys):
    """`--calib FILE` stands in for images that have none; a file that is missing or cut short is one line."""
    file = tmp_path / 'calib.txt'
    file.write_text('P0: 1\nP2: ' + ' '.join(map(str, np.ravel(CAMERAS[1]))))
    found = detector_factory['ddd'](options(folder, '--calib', str(file))[0])
    found.run(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    np.testing.assert_allclose(found.calib, CAMERAS[1], rtol=1e-6)
    assert 'published' not in capsys.readouterr().out
    file.write_text('P2: 1 2 3')
    for path, words in ((file, "expected 'P2:' and 12 numbers"), (tmp_path / 'none.txt', 'no such file')):
        with pytest.raises(UserError, match=words):
            detector_factory['ddd'](options(folder, '--calib', str(path))[0])


def test_threshold_and_number_of_detections(folder, detector):
    """`--peak_thresh` is the lowest score, `--K` the largest number of rows."""
    image = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    scores = np.sort(all_rows(detector.run(image)['results'])[:, 12])
    assert len(scores) == 30
    detector.opt.peak_thresh = float(scores[10])
    try:
        kept = all_rows(detector.run(image)['results'])[:, 12]
    finally:
        detector.opt.peak_thresh = 0
    np.testing.assert_array_equal(np.sort(kept), scores[scores > scores[10]])


def test_mirroring_and_scales_do_not_act(folder, capsys):
    """3D boxes are not mirrored, scaled or merged: the options are named and change nothing."""
    opt, _ = options(folder, '--flip_test', '--test_scales', '0.5,1', '--nms')
    said = capsys.readouterr().out
    assert all(f'--{name} does not act in ddd' in said for name in ('flip_test', 'test_scales', 'nms'))
    assert (opt.flip_test, opt.test_scales, opt.nms) == (False, [1.0], False)


# ------------------------------------------------------------------------------------- KITTI's folders


def test_splits(folder):
    """`--kitti_split` names the file; `--trainval` trains on all frames and tests on the test set."""
    opt, dataset = options(folder)
    assert dataset.source.locate(opt, 'val')[0].endswith('kitti/annotations/kitti_3dop_val.json')
    opt, dataset = options(folder, '--kitti_split', 'subcnn')
    assert dataset.source.locate(opt, 'train')[0].endswith('kitti_subcnn_train.json')
    opt, dataset = options(folder, '--trainval')
    assert [dataset.source.locate(opt, split)[0][-19:] for split in ('train', 'test')] == [
        'kitti_trainval.json',
        'ons/kitti_test.json',
    ]
    assert dataset.source.locate(opt, 'test')[1].endswith('images/test')


def ideal_results(dataset, opt):
    """{image_id: results} of the ideal network, as the trainer makes them."""
    trainer = DddTrainer(opt, torch.nn.Identity())
    results = {}
    for batch in val_loader(opt, dataset):
        output = trainer.loss.with_oracles({}, batch)
        results[int(batch['meta']['img_id'])] = trainer.detect(output, batch)
    return results


@pytest.fixture(scope='module')
def crowd(tmp_path_factory):
    """Eleven frames of four people each, near enough to count as easy: AP needs over forty objects to reach 100."""
    rng = np.random.default_rng(0)
    scenes = []
    for _ in range(11):
        places = [[x, 0.9, rng.uniform(5.5, 6)] for x in (-2.4, -0.8, 0.8, 2.4)]
        scenes.append([solid(1, place, rng.uniform(-3, 3), CAMERAS[0]) for place in places])
    return write_kitti(tmp_path_factory.mktemp('crowd'), scenes, CAMERAS[:1])


def test_ideal_results_score_100(crowd, tmp_path, capsys):
    """KITTI's result files in `results`, flat metrics in metrics.json; labels are written from the annotations."""
    opt, dataset = make_dataset(crowd, 'val', *ORACLES)
    (tmp_path / 'results').mkdir()
    (tmp_path / 'results/000999.txt').write_text('an earlier run')
    metrics = dataset.run_eval(ideal_results(dataset, opt), str(tmp_path))
    assert json.loads((tmp_path / 'metrics.json').read_text()) == metrics
    errors = {'pedestrian_depth_error', 'pedestrian_rotation_error'}
    assert set(metrics) == {*dataset.metrics, *errors} and dataset.main_metric in metrics
    assert all(metrics[name] < 0.5 for name in errors)
    for kind in ('2d', 'aos', 'bev', '3d'):
        assert metrics[f'pedestrian_{kind}_easy_AP40'] > 99.9, kind
    assert sorted(path.name for path in (tmp_path / 'results').iterdir()) == [f'{i:06d}.txt' for i in range(11)]
    line = (tmp_path / 'results/000003.txt').read_text().splitlines()[0].split()
    assert len(line) == 16 and line[:3] == ['Pedestrian', '0.0', '0'] and 0.99 < float(line[15]) < 1
    assert 'car_3d' in capsys.readouterr().out


def test_labels_of_kitti_are_used_where_they_are(crowd, tmp_path):
    """With training/label_2 in --data_dir these files are the truth, not the annotations."""
    labels = crowd / 'kitti/training/label_2'
    labels.mkdir(parents=True)
    try:
        opt, dataset = make_dataset(crowd, 'val', *ORACLES)
        for i in range(11):
            (labels / f'{i:06d}.txt').write_text('')
        metrics = dataset.run_eval(ideal_results(dataset, opt), str(tmp_path))
    finally:
        for path in labels.iterdir():
            path.unlink()
        labels.rmdir()
    assert not any(metrics.values()) and not (tmp_path / 'labels').exists()


def test_no_detections_and_no_truth(folder, tmp_path):
    """Frames in which nothing was found have empty files, and score 0; a test set without labels is not scored."""
    opt, dataset = make_dataset(folder, 'val')
    nothing = {i: {cls: np.zeros((0, 13), np.float32) for cls in (1, 2, 3)} for i in range(9)}
    assert not any(dataset.run_eval(nothing, str(tmp_path)).values())
    assert (tmp_path / 'results/000008.txt').read_text() == ''
    (tmp_path / 'kitti/annotations').mkdir(parents=True)
    (tmp_path / 'kitti/images').mkdir()
    (tmp_path / 'kitti/images/test').symlink_to(folder / 'kitti/images/trainval')
    coco = json.loads((folder / 'kitti/annotations/kitti_3dop_val.json').read_text()) | {'annotations': []}
    (tmp_path / 'kitti/annotations/kitti_test.json').write_text(json.dumps(coco))
    _, dataset = make_dataset(tmp_path, 'test', '--trainval')
    assert dataset.run_eval(nothing, str(tmp_path / 'out')) == {}
    assert len(list((tmp_path / 'out/results').iterdir())) == 9 and not (tmp_path / 'out/metrics.json').exists()


def test_own_data(tmp_path):
    """A folder of own data with other classes and a DontCare: trained and scored as KITTI's are, under its names."""
    names = ['traffic cone', 'Car', 'DontCare']
    rng = np.random.default_rng(0)
    scenes = []
    for _ in range(42):
        cone = solid(1, [rng.uniform(-1, 1), 1, 7], 0.2, CAMERAS[0])
        scenes.append([cone, ignored(3, [5, 5, 30, 30])])
    root = write_kitti(tmp_path, scenes, calibs=CAMERAS[:1], names=names, own=True)
    opt, dataset = make_dataset(root, 'val', *ORACLES, dataset=root)
    assert opt.class_names == ['traffic cone', 'Car'] and dataset.main_metric == 'car_3d_moderate_AP40'
    assert (dataset[0]['hm'].max((1, 2)) == np.float32([1, 0.9999])).all()
    metrics = dataset.run_eval(ideal_results(dataset, opt), str(tmp_path / 'out'))
    assert metrics['traffic_cone_3d_easy_AP40'] > 99.9 and set(metrics) > set(dataset.metrics)
    assert (tmp_path / 'out/labels/000000.txt').read_text().splitlines()[1].startswith('DontCare -1.0')


# ----------------------------------------------------------------------------------- programs and views


def test_both_ways_to_evaluate_agree(scripts, tmp_path):
    """main.py --test and test.py, prefetched or not, write the same result files from one checkpoint."""
    data = write_kitti(tmp_path / 'data', [scene(np.random.default_rng(i), CAMERAS[i % 2]) for i in range(3)])
    common = ['ddd', '--data_dir', data, '--input_h', HEIGHT, '--input_w', WIDTH, '--arch', 'res_18', '--gpus', '-1']
    common = [str(word) for word in [*common, '--num_workers', '0', '--exp_dir', tmp_path]]
    train = ['--pretrained', 'none', '--num_epochs', '1', '--num_iters', '1', '--batch_size', '2', '--metric', 'AP']
    scripts('main').main([*common, *train, '--val_intervals', '1'])
    model = ['--load_model', str(tmp_path / 'ddd/default/model_best.pth'), '--peak_thresh', '0']
    ways = {'trainer': ('main', ['--test']), 'detector': ('test', []), 'unfetched': ('test', ['--not_prefetch_test'])}
    rows = {}
    for name, (program, extra) in ways.items():
        scripts(program).main([*common, *model, *extra, '--exp_id', name])
        files = sorted((tmp_path / 'ddd' / name / 'results').iterdir())
        rows[name] = np.array([line.split()[1:] for path in files for line in path.read_text().splitlines()], float)
    assert rows['trainer'].shape == (300, 15)
    for name in ('detector', 'unfetched'):
        np.testing.assert_allclose(np.sort(rows[name][:, -1]), np.sort(rows['trainer'][:, -1]), rtol=1e-4)
        np.testing.assert_allclose(rows[name].mean(0), rows['trainer'].mean(0), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize('split', ['val', 'train'])
def test_trainer_views(folder, tmp_path, split):
    """Level 4 saves maps, 2D boxes, 3D boxes and the view from above; the ideal network's boxes cover the true ones."""
    opt, dataset = make_dataset(folder, split, *ORACLES, '--debug', '4', '--vis_thresh', '0.3')
    opt.debug_dir = str(tmp_path)
    trainer = DddTrainer(opt, create_model('res_18', opt.heads, 64).eval())
    batch = as_batch(dataset[0])
    with torch.no_grad():
        trainer.look(trainer.model(batch['input']), batch)
    names = ['bird', *(f'{kind}_{view}' for kind in ('gt', 'pred') for view in ('3d', 'boxes', 'hm'))]
    assert sorted(path.stem for path in tmp_path.iterdir()) == [f'0_{name}' for name in names]
    view = {name: cv2.imread(str(tmp_path / f'0_{name}.png')).astype(int) for name in names}
    for name in ('3d', 'boxes'):
        assert (np.abs(view[f'pred_{name}'] - view[f'gt_{name}']).max(2) > 60).mean() < 0.02
    assert (np.abs(view['gt_3d'] - view['gt_boxes']).max(2) > 60).mean() > 0.005
    assert view['bird'].std() > 5


@pytest.mark.parametrize('split', ['val', 'train'])
def test_true_boxes_are_drawn_where_the_labels_are(tmp_path, split):
    """Views of the truth show the labels' own 3D boxes, as vis_pred does, though 2D boxes have other centres.

    KITTI's car that leaves the image at its right: its 2D box is what is visible.
    """
    car = {**solid(2, [4.0, 1.2, 9.0], 0.4, CAMERAS[0]), 'bbox': [190.0, 40.0, 90.0, 44.0]}
    data = write_kitti(tmp_path, [[car]])
    opt, dataset = make_dataset(data, split, '--debug', '4')
    trainer = DddTrainer(opt, create_model('res_18', opt.heads, 64).eval())
    meta = as_batch(dataset[0])['meta']
    (detection,) = trainer.true_detections(meta)
    warp = get_affine_transform(meta['c'][0].numpy(), meta['s'][0].numpy(), 0, (WIDTH, HEIGHT))
    as_vis_pred = projected_box(car, np.array(CAMERAS[0]))  # [8, 2], on the image
    drawn = projected_box(detection, trainer.input_camera(meta))  # [8, 2], on the network's input
    np.testing.assert_allclose(drawn, affine_transform(as_vis_pred, warp), atol=0.01)
    corners = affine_transform([(190, 40), (280, 84)], warp).clip(0, np.array((WIDTH, HEIGHT)) - 4)  # [2, 2]
    np.testing.assert_allclose(detection['box'], corners.ravel(), atol=0.01)
    assert (detection['class'], detection['class_id']) == ('Car', 2)


def test_detector_views(folder, tmp_path):
    """Level 4 saves what the network says, and the final 3D boxes on the image and from above."""
    opt, _ = options(folder, '--debug', '4', '--peak_thresh', '0', '--vis_thresh', '0')
    opt.debug_dir = str(tmp_path)
    detector = detector_factory['ddd'](opt)
    detector.run(str(folder / 'kitti/images/trainval/000001.png'), {'calib': np.float32(CAMERAS[1])})
    assert sorted(path.stem for path in tmp_path.iterdir()) == ['0_1_pred_boxes', '0_1_pred_hm', '0_bird', '0_ddd']
    assert cv2.imread(str(tmp_path / '0_ddd.png')).shape == (HEIGHT, WIDTH, 3)


def test_toy_road_fits(tmp_path):
    """Toy frames are read as KITTI's, and the ideal network finds every object of the three classes."""
    make_toy_data(tmp_path, task='ddd', train=1, val=4, size=(WIDTH, HEIGHT))
    opt, dataset = make_dataset(tmp_path, 'val', *ORACLES)
    count = 0
    for i in range(4):
        objects = dataset.index.objects(i)
        wanted = objects.boxes[objects.classes >= 0]
        rows = located(opt, ideal_rows(opt, as_batch(dataset[i])), dataset[i]['meta'])
        count += len(rows)
        for row in rows:
            assert np.abs(wanted - row[2:6]).max(1).min() < 4
    assert count > 0.8 * (dataset.index.classes >= 0).sum()  # two of one class may share a cell
    assert dataset.source.label_folder(dataset.opt).endswith('kitti/training/label_2')
