"""2D detection: targets against a literal form, targets -> decode -> the same boxes, losses, options, detector."""

import json
import math

import numpy as np
import pytest
import torch

from lib.datasets.dataset_factory import get_dataset
from lib.datasets.index import Objects
from lib.datasets.sample.base import View, random_center
from lib.detectors.detector_factory import detector_factory
from lib.models.decode import ctdet_decode
from lib.models.model import save_model
from lib.opts import model_facts, opts
from lib.trains.ctdet import CtdetLoss, CtdetTrainer
from lib.utils.errors import UserError
from lib.utils.image import transform_preds
from lib.utils.merging import keep_best, merge_scales


def options(toy, *args):
    opt = opts().parse(['ctdet', '--dataset', toy, '--arch', 'res_18', '--input_res', '64', '--gpus', '-1', *args])
    opt.device = torch.device('cpu')
    return opts.update_dataset_info_and_set_heads(opt, get_dataset(toy, 'ctdet'))


def dataset(toy, split='val', *args):
    return get_dataset(toy, 'ctdet')(options(toy, *args), split)


def batch_of(sample):
    """A batch of one, with meta as the loader makes it."""
    return torch.utils.data.default_collate([sample])


def ideal_output(sample, opt):
    """Raw network output that says exactly what the targets say."""
    batch = batch_of(sample)
    heads = {'hm': torch.logit(batch['hm'], eps=1e-4)}
    h, w = batch['hm'].shape[2:]
    for head, target in (('wh', 'wh'), ('reg', 'reg')):
        flat = torch.zeros(1, 2, h * w)
        flat[0][:, batch['ind'][0]] = batch[target][0].T
        heads[head] = flat.view(1, 2, h, w)
    return heads, batch


@pytest.mark.parametrize('flip', ['0', '1'])
@pytest.mark.parametrize('crop', [[], ['--not_rand_crop'], ['--not_rand_crop', '--shift', '0', '--scale', '0']])
def test_targets_decode_to_the_annotated_boxes(toy, flip, crop):
    """The boxes that the targets describe, decoded and mapped back, are the annotated ones as far as they are seen."""
    data = dataset(toy, 'train', '--input_res', '128', '--flip', flip, *crop)
    found = 0
    for epoch in range(3):
        data.set_epoch(epoch)
        for i in range(len(data)):
            view = data.look(i)[2]
            heads, batch = ideal_output(data[i], data.opt)
            dets = ctdet_decode(heads['hm'].sigmoid(), heads['wh'], heads['reg'], K=50)[0].numpy()
            decoded = transform_preds(dets[:, :4].reshape(-1, 2), view.c, view.s, view.output_size).reshape(-1, 4)
            if view.flipped:
                decoded[:, [0, 2]] = view.width - decoded[:, [2, 0]] - 1
            corners = np.array([[0, 0], np.array(view.output_size) - 1])
            seen = np.sort(transform_preds(corners, view.c, view.s, view.output_size), 0)
            if view.flipped:
                seen[:, 0] = view.width - seen[::-1, 0] - 1
            objects = data.index.objects(i)
            cells = batch['ind'][0][batch['reg_mask'][0] > 0].tolist()
            for k, (box, cls) in enumerate(zip(objects.boxes, objects.classes, strict=True)):
                cut = np.concatenate([np.maximum(box[:2], seen[0]), np.minimum(box[2:], seen[1])])
                if (cut[2:] - cut[:2] < 2).any() or cells.count(int(batch['ind'][0, k])) > 1:
                    continue  # hardly in the window, or in one cell with another
                same = dets[:, 5] == cls
                error = np.abs(decoded[same] - cut).max(1)
                assert error.min() < 0.02, (i, epoch, box, cut)
                found += 1
    assert found > 30


def literal_targets(boxes, classes, num_classes, size):
    """The published loop on output-map boxes, pixel by pixel."""
    hm = np.zeros((num_classes, size, size))
    wh, reg, ind, mask = [], [], [], []
    for (x1, y1, x2, y2), cls in zip(np.clip(boxes, 0, size - 1), classes, strict=True):
        h, w = y2 - y1, x2 - x1
        a, b = math.ceil(h), math.ceil(w)
        r1 = ((a + b) + math.sqrt((a + b) ** 2 - 4 * a * b * 0.3 / 1.7)) / 2
        r2 = (2 * (a + b) + math.sqrt(4 * (a + b) ** 2 - 16 * 0.3 * a * b)) / 2
        r3 = (-1.4 * (a + b) + math.sqrt((1.4 * (a + b)) ** 2 + 4 * 2.8 * 0.3 * a * b)) / 2
        radius = max(0, int(min(r1, r2, r3)))
        cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
        sigma = (2 * radius + 1) / 6
        for y in range(size):
            for x in range(size):
                dx, dy = x - int(cx), y - int(cy)
                if max(abs(dx), abs(dy)) <= radius:
                    hm[cls, y, x] = max(hm[cls, y, x], math.exp(-(dx * dx + dy * dy) / (2 * sigma * sigma)))
        wh.append((w, h))
        reg.append((cx - int(cx), cy - int(cy)))
        ind.append(int(cy) * size + int(cx))
        mask.append(1)
    return hm, wh, reg, ind, mask


def test_targets_against_the_literal_form(toy):
    """Heatmap, sizes, offsets, cells and masks, number by number."""
    data = dataset(toy)
    for i in range(3):
        sample, objects = data[i], data.index.objects(i)
        scale = 16 / 96
        hm, wh, reg, ind, mask = literal_targets(objects.boxes * scale, objects.classes, 3, 16)
        n = len(objects)
        np.testing.assert_allclose(sample['hm'], hm, atol=1e-5)
        np.testing.assert_allclose(sample['wh'][:n], wh, atol=1e-4)
        np.testing.assert_allclose(sample['reg'][:n], reg, atol=1e-4)
        assert sample['ind'][:n].tolist() == ind and sample['reg_mask'].tolist() == mask + [0] * (32 - n)


SAMPLE_OPTIONS = {
    'flip': (['--flip', '0'], ['--flip', '1']),
    'not_rand_crop': ([], ['--not_rand_crop']),
    'shift': (['--not_rand_crop', '--shift', '0'], ['--not_rand_crop', '--shift', '0.3']),
    'scale': (['--not_rand_crop', '--scale', '0'], ['--not_rand_crop', '--scale', '0.3']),
    'no_color_aug': ([], ['--no_color_aug']),
    'seed': ([], ['--seed', '1']),
    'input_h': ([], ['--input_h', '96']),
    'mse_loss': ([], ['--mse_loss']),
    'hm_gauss': (['--mse_loss'], ['--mse_loss', '--hm_gauss', '3']),
    'dense_wh': ([], ['--dense_wh']),
    'cat_spec_wh': ([], ['--cat_spec_wh']),
    'not_reg_offset': ([], ['--not_reg_offset']),
    'debug': ([], ['--debug', '4']),
    'keep_res': ([], ['--keep_res']),
}


@pytest.mark.parametrize('name', SAMPLE_OPTIONS)
def test_options_change_the_sample(toy, name):
    """Each option of the sample acts; without a change nothing changes."""
    plain, changed = (dataset(toy, 'train', *args)[1] for args in SAMPLE_OPTIONS[name])
    again = dataset(toy, 'train', *SAMPLE_OPTIONS[name][0])[1]

    def same(a, b):
        arrays = [key for key in a if key != 'meta']
        return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in arrays)

    assert same(plain, again)
    assert not same(plain, changed)


def test_dense_and_class_targets(toy):
    """dense_wh holds each object's size at its centre; cat_spec_wh holds it at its class's place."""
    dense, by_class, plain = (dataset(toy, 'val', *a)[0] for a in (['--dense_wh'], ['--cat_spec_wh'], []))
    objects = dataset(toy).index.objects(0)
    for k in range(len(objects)):
        y, x = divmod(int(plain['ind'][k]), 16)
        np.testing.assert_array_equal(dense['dense_wh'][:, y, x], plain['wh'][k])
        cls = objects.classes[k]
        np.testing.assert_array_equal(by_class['cat_spec_wh'][k].reshape(-1, 2)[cls], plain['wh'][k])
        assert by_class['cat_spec_mask'][k].sum() == 2
    np.testing.assert_array_equal(dense['dense_wh_mask'][0], plain['hm'].max(0))


def random_batch(toy, *args):
    data = dataset(toy, 'val', *args)
    batch = torch.utils.data.default_collate([{k: v for k, v in data[i].items() if k != 'meta'} for i in range(2)])
    heads = data.opt.heads
    generator = torch.Generator().manual_seed(0)
    output = {head: torch.randn(2, n, 16, 16, generator=generator) for head, n in heads.items()}
    return data.opt, output, batch


LOSS_OPTIONS = {
    'hm_weight': ['--hm_weight', '2'],
    'wh_weight': ['--wh_weight', '2'],
    'off_weight': ['--off_weight', '2'],
    'reg_loss sl1': ['--reg_loss', 'sl1'],
    'reg_loss l2': ['--reg_loss', 'l2'],
    'norm_wh': ['--norm_wh'],
    'dense_wh': ['--dense_wh'],
    'mse_loss': ['--mse_loss'],
    'not_reg_offset': ['--not_reg_offset'],
    'eval_oracle_hm': ['--eval_oracle_hm'],
    'eval_oracle_wh': ['--eval_oracle_wh'],
    'eval_oracle_offset': ['--eval_oracle_offset'],
}


@pytest.mark.parametrize('name', LOSS_OPTIONS)
def test_options_change_the_loss(toy, name):
    """Each option of the loss acts; its parts are the named ones and add up."""
    opt, output, batch = random_batch(toy)
    plain, _ = CtdetLoss(opt)([output], batch)
    opt, output, batch = random_batch(toy, *LOSS_OPTIONS[name])
    changed, stats = CtdetLoss(opt)([output], batch)
    assert abs(float(plain) - float(changed)) > 1e-4
    assert list(stats) == ['loss', 'hm_loss', 'wh_loss', 'off_loss']
    off_weight = opt.off_weight if opt.reg_offset else 0
    total = opt.hm_weight * stats['hm_loss'] + opt.wh_weight * stats['wh_loss'] + off_weight * stats['off_loss']
    assert float(total) == pytest.approx(float(changed))


def test_loss_is_the_mean_over_stacks(toy):
    """Two equal stacks give what one gives; two different ones the mean."""
    opt, output, batch = random_batch(toy)
    other = {head: x.flip(2) for head, x in output.items()}
    loss = CtdetLoss(opt)
    one, two = float(loss([output], batch)[0]), float(loss([other], batch)[0])
    assert float(loss([output, other], batch)[0]) == pytest.approx((one + two) / 2)


@pytest.mark.parametrize('args', [[], ['--dense_wh'], ['--cat_spec_wh'], ['--mse_loss'], ['--not_reg_offset']])
def test_oracles_give_perfect_detections(toy, args):
    """With the truth in place of every head, decoding finds the true boxes whatever the network says."""
    oracles = ['--eval_oracle_hm', '--eval_oracle_wh'] + ['--eval_oracle_offset'] * ('--not_reg_offset' not in args)
    data = dataset(toy, 'val', *args, *oracles)
    trainer = CtdetTrainer(data.opt, torch.nn.Identity())
    for i in range(len(data)):
        batch = batch_of(data[i])
        output = {head: torch.randn(1, n, 16, 16) for head, n in data.opt.heads.items()}
        results = trainer.detect(trainer.loss.with_oracles(output, batch), batch)
        objects = data.index.objects(i)
        for box, cls in zip(objects.boxes, objects.classes, strict=True):
            near = 3.01 if '--not_reg_offset' in args else 0.05
            seen = np.minimum(box, 90)  # targets are clipped to the last cell, 15 of 16
            assert np.abs(results[cls + 1][:, :4] - seen).max(1).min() < near


def test_no_objects_give_a_finite_loss(toy):
    """A batch without any object: the heatmap loss alone, with a gradient."""
    data = dataset(toy)
    empty = Objects(np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool))
    view = data.look(0)[2]
    targets, truth = data.targets(empty, view, 0)
    batch = torch.utils.data.default_collate([targets])
    output = {head: torch.randn(1, n, 16, 16, requires_grad=True) for head, n in data.opt.heads.items()}
    loss, stats = CtdetLoss(data.opt)([output], batch)
    loss.backward()
    assert torch.isfinite(loss) and stats['wh_loss'] == 0 and output['hm'].grad.abs().sum() > 0
    assert truth['gt_det'].shape == (1, 6)


def test_random_centers_keep_their_border():
    """The crop's centre stays a border away from both ends, at any size down to one pixel."""
    rng = np.random.default_rng(0)
    for size, border in ((1, 0), (2, 0), (100, 32), (200, 64), (600, 128)):
        draws = [random_center(rng, size) for _ in range(300)]
        assert min(draws) >= border and max(draws) < max(size - border, 1)


def test_view_maps_boxes_and_points_alike():
    """A box's corners are its points' places; mirrored they swap sides."""
    boxes = np.array([[10.0, 12, 30, 40]], np.float32)
    for flipped in (False, True):
        view = View(np.array([32, 24], np.float32), 64.0, (128, 128), (32, 32), 64, flipped)
        corners = np.sort(view.points(boxes.reshape(2, 2)), 0).ravel()
        np.testing.assert_allclose(view.boxes(boxes)[0], corners, atol=1e-4)


# -- detector ----------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def checkpoint(toy, tmp_path_factory):
    """A random res_18 for the toy classes, saved with its facts."""
    from lib.models.model import create_model

    opt = options(toy)
    torch.manual_seed(0)
    model = create_model('res_18', opt.heads, opt.head_conv)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.bias, -1, 1)
    torch.nn.init.constant_(model.wh[-1].bias, 4)  # boxes that overlap
    path = tmp_path_factory.mktemp('model') / 'random.pth'
    save_model(path, 1, model, **model_facts(opt))
    return str(path)


def detect(checkpoint, image, *args):
    opt = opts().init(['ctdet', '--load_model', checkpoint, '--gpus', '-1', *args])
    return detector_factory['ctdet'](opt).run(image)['results']


def make_image(width=96, height=80):
    return np.random.default_rng(1).integers(0, 255, (height, width, 3), np.uint8)


DETECTOR_OPTIONS = {
    'flip_test': ['--flip_test'],
    'test_scales': ['--test_scales', '0.75,1'],
    'nms': ['--nms'],
    'K': ['--K', '20'],
    'keep_res': ['--keep_res'],
    'input_res': ['--input_res', '96'],
}


@pytest.mark.parametrize('name', DETECTOR_OPTIONS)
def test_options_change_the_detections(checkpoint, name):
    """Each option of the detector acts; without a change nothing changes."""

    def rows(*args):
        return np.concatenate(list(detect(checkpoint, make_image(), *args).values()))

    plain, again, changed = rows(), rows(), rows(*DETECTOR_OPTIONS[name])
    assert np.array_equal(plain, again)
    assert plain.shape != changed.shape or not np.allclose(plain, changed)
    assert changed.shape[0] == 20 if name == 'K' else len(changed) <= 101


def test_flip_test_is_blind_to_mirroring(checkpoint):
    """With --flip_test (and no offsets to differ), the mirrored image gives the mirrored heatmap peaks."""
    image = make_image(96, 96)
    plain, mirrored = (detect(checkpoint, x, '--flip_test') for x in (image, np.ascontiguousarray(image[:, ::-1])))
    scores = [np.sort(np.concatenate([rows[:, 4] for rows in r.values()]))[-20:] for r in (plain, mirrored)]
    np.testing.assert_allclose(*scores, atol=1e-4)


@pytest.mark.parametrize('size', [(1, 1), (3, 200), (640, 33)])
def test_any_image_size(checkpoint, size):
    """Down to one pixel, at a fixed and at the image's own resolution."""
    for args in ([], ['--keep_res'], ['--test_scales', '0.5,1.5']):
        results = detect(checkpoint, make_image(*size), *args)
        assert sorted(results) == [1, 2, 3]
        assert all(rows.dtype == np.float32 and np.isfinite(rows).all() for rows in results.values())


@pytest.mark.parametrize('array', [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3)), np.zeros((0, 8, 3), np.uint8)])
def test_arrays_that_are_no_image(checkpoint, array):
    """Grey, float or empty arrays are refused in one line."""
    with pytest.raises(UserError, match='expected a uint8 BGR image'):
        detect(checkpoint, array)


def test_results_have_times_and_classes(checkpoint, tmp_path):
    """run takes a path too, and returns the seconds of each stage."""
    import cv2

    cv2.imwrite(str(tmp_path / 'a.png'), make_image())
    opt = opts().init(['ctdet', '--load_model', checkpoint, '--gpus', '-1'])
    ret = detector_factory['ctdet'](opt).run(tmp_path / 'a.png')
    assert set(ret) >= {'results', 'tot', 'load', 'pre', 'net', 'dec', 'post', 'merge'}
    assert ret['tot'] == pytest.approx(sum(ret[k] for k in ('load', 'pre', 'net', 'dec', 'post', 'merge')), rel=0.01)


def test_batch_of_many_equals_batches_of_one(checkpoint, toy):
    """Outputs do not depend on what else is in the batch."""
    opt = opts().init(['ctdet', '--load_model', checkpoint, '--gpus', '-1'])
    detector = detector_factory['ctdet'](opt)
    images = torch.from_numpy(np.concatenate([detector.pre_process(make_image(96 + i, 80))[0] for i in range(4)]))
    together = detector.forward(images)
    for i in range(4):
        alone = detector.forward(images[i : i + 1])
        for head in alone:
            torch.testing.assert_close(together[head][i : i + 1], alone[head], rtol=1e-4, atol=1e-4)


def test_merge_keeps_only_what_soft_nms_returns():
    """Rows that soft-NMS throws out are gone, and the limit is over all classes."""
    rows = np.array([[0, 0, 10, 10, 0.9], [0, 0, 10, 10, 0.8], [50, 50, 60, 60, 0.5]], np.float32)
    merged = merge_scales([{1: rows[:1], 2: rows[2:]}, {1: rows[1:2], 2: rows[:0]}], 2, None)
    assert [len(merged[c]) for c in (1, 2)] == [2, 1]
    thinned = merge_scales([{1: rows}], 1, lambda boxes, **kwargs: [0, 2])
    np.testing.assert_array_equal(thinned[1], rows[[0, 2]])
    best = keep_best(merged, 2)
    assert sorted(np.concatenate(list(best.values()))[:, 4].tolist()) == pytest.approx([0.8, 0.9])


def test_evaluation_paths_agree(checkpoint, toy, scripts, tmp_path):
    """test.py with and without prefetching workers and main.py --test find the same boxes."""
    found = {}
    common = ['ctdet', '--dataset', toy, '--load_model', checkpoint, '--gpus', '-1', '--exp_dir', str(tmp_path)]
    runs = {
        'prefetch': ('test', ['--num_workers', '2']),
        'plain': ('test', ['--not_prefetch_test']),
        'training side': ('main', ['--test', '--num_workers', '0']),
    }
    for name, (script, args) in runs.items():
        scripts(script).main([*common, '--exp_id', name, *args])
        found[name] = json.loads((tmp_path / 'ctdet' / name / 'results.json').read_text())
        assert 'AP' in json.loads((tmp_path / 'ctdet' / name / 'metrics.json').read_text())
    assert found['prefetch'] == found['plain']

    def table(rows):
        return np.array([[1000 * r['image_id'], 1000 * r['category_id'], *r['bbox'], r['score']] for r in rows])

    a, b = table(found['plain']), table(found['training side'])
    assert a.shape == b.shape
    np.testing.assert_allclose(np.sort(a[:, -1]), np.sort(b[:, -1]), atol=1e-4)
    nearest = np.abs(a[:, None] - b).max(2).min(1)  # scores that nearly tie change places
    assert (nearest < 0.05).mean() > 0.98  # and at the end of the list, boxes


def test_fine_tuning_on_other_classes(checkpoint, toy, capsys):
    """A checkpoint of 3 classes starts a network of 2: the backbone is kept, layers that start anew are named."""
    from lib.models.model import create_model, load_model

    heads = {'hm': 2, 'wh': 2, 'reg': 2}
    model = create_model('res_18', heads, 64)
    before = model.state_dict()['hm.2.weight'].clone()
    load_model(model, checkpoint)
    said = capsys.readouterr().out
    assert 'hm.2.weight' in said and '--dataset' in said
    assert torch.equal(model.state_dict()['hm.2.weight'], before)
    assert torch.equal(model.state_dict()['conv1.weight'], torch.load(checkpoint)['state_dict']['conv1.weight'])
