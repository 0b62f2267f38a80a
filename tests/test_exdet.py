"""exdet: from annotated extreme points to targets, through an ideal network, back to the annotated objects."""

import json

import cv2
import numpy as np
import pytest
import torch

from lib.datasets.dataset_factory import get_dataset
from lib.datasets.loaders import val_loader
from lib.detectors.detector_factory import detector_factory
from lib.models.losses import FocalLoss, RegL1Loss
from lib.models.model import create_model
from lib.models.outputs import decode_extremes, keep_detected
from lib.opts import opts
from lib.trains.exdet import ExdetLoss, ExdetTrainer
from lib.utils.errors import UserError
from lib.utils.post_process import exdet_post_process

CLASSES = 3
WIDTH, HEIGHT = 200, 160
ORACLES = ('--eval_oracle_hm', '--eval_oracle_offset')
HEADS = {f'hm_{part}' for part in 'tlbrc'} | {f'reg_{side}' for side in 'tlbr'}


def random_object(rng, category):
    """An annotation whose box is off the border, and large enough to keep its centre's heat when cells are rounded."""
    w, h = rng.uniform(72, 120, 2)
    x, y = rng.uniform(8, WIDTH - w - 8), rng.uniform(8, HEIGHT - h - 8)
    t, b = x + w * rng.uniform(size=2)
    l, r = y + h * rng.uniform(size=2)  # noqa: E741
    points = [[t, y], [x, l], [b, y + h], [x + w, r]]
    return {'category_id': category, 'bbox': [x, y, w, h], 'extreme_points': points}


def write_folder(root, images, files=('train', 'val')):
    """Own data of grey images: `images` is a list of lists of annotations."""
    (root / 'annotations').mkdir(parents=True)
    (root / 'images').mkdir()
    coco = {'images': [], 'annotations': [], 'categories': [{'id': 10 * i, 'name': f'c{i}'} for i in range(CLASSES)]}
    for number, annotations in enumerate(images):
        name = f'{number}.png'
        image = np.random.default_rng(number).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        assert cv2.imwrite(str(root / 'images' / name), image)
        coco['images'].append({'id': number, 'file_name': name, 'width': WIDTH, 'height': HEIGHT})
        for annotation in annotations:
            facts = {'id': len(coco['annotations']), 'image_id': number, 'area': 5000, 'iscrowd': 0}
            coco['annotations'].append({**facts, **annotation})
    for name in files:
        (root / 'annotations' / f'{name}.json').write_text(json.dumps(coco))
    return root


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Eight images with up to three random objects each, all of other classes, and an image without any.

    Points of two objects of one class can make up a third one: that is how ExtremeNet is.
    """
    rng = np.random.default_rng(0)
    scenes = [[random_object(rng, 10 * int(cls)) for cls in rng.permutation(CLASSES)[: 1 + i % 3]] for i in range(8)]
    return write_folder(tmp_path_factory.mktemp('own'), [*scenes, []])


def options(folder, *args):
    """Parsed options and the dataset class, of a small network on the CPU."""
    opt = opts().parse(
        ['exdet', '--dataset', str(folder), '--arch', 'res_18', '--input_res', '128', '--gpus', '-1']
        + ['--pretrained', 'none', '--num_workers', '0', '--exp_dir', str(folder / 'exp'), *args]
    )
    dataset = get_dataset(opt.dataset, opt.task)
    opts.update_dataset_info_and_set_heads(opt, dataset)
    opt.device = torch.device('cpu')
    return opt, dataset


def make_dataset(folder, split, *args):
    opt, dataset = options(folder, *args)
    return opt, dataset(opt, split)


def as_batch(sample):
    """A sample as a loader would batch it alone."""
    return torch.utils.data.default_collate([sample])


def ideal_output(opt, batch):
    """The raw output of a network that knows the targets."""
    return ExdetLoss(opt).with_oracles({}, batch)


def decode(output, opt):
    return decode_extremes(output, opt.K, opt.agnostic_ex, opt.scores_thresh, opt.center_thresh, opt.aggr_weight)


def ideal_rows(opt, sample):
    """Detections [n, 14] of the ideal output, on the output map."""
    return keep_detected(decode(ideal_output(opt, as_batch(sample)), opt)[0])


def nearest(rows, wanted):
    """The row that is nearest to a wanted one, scores aside; both of box, score, points, class."""
    coordinates = np.r_[0:4, 5:14]
    distance = np.abs(rows[:, coordinates] - wanted[coordinates]).max(1)
    return distance.min() if len(rows) else np.inf


def annotated(dataset, i, flipped=False):
    """Return the annotations of image i as rows [n, 14] in its pixels; of the mirrored image when `flipped`."""
    objects = dataset.index.objects(i)
    points = objects.fields['extreme_points'].copy()
    if flipped:
        points[..., 0] = WIDTH - points[..., 0] - 1
        points = points[:, [0, 3, 2, 1]]
    t, l, b, r = points.transpose(1, 0, 2)  # noqa: E741
    box = np.stack([l[:, 0], t[:, 1], r[:, 0], b[:, 1]], 1)
    ones = np.ones((len(points), 1))
    return np.hstack([box, ones, points.reshape(-1, 8), objects.classes[:, None]])


def in_image(rows, meta, size=32):
    """Rows [n, 14] of the output map in image pixels."""
    by_class = exdet_post_process(rows[None], [meta['c']], [meta['s']], size, size, CLASSES)[0]
    return np.concatenate([np.c_[found, np.full(len(found), cls - 1.0)] for cls, found in by_class.items()])


# ------------------------------------------------------------------------------------------- targets


@pytest.mark.parametrize('extra', [(), ('--agnostic_ex',)])
def test_targets_decode_to_the_annotations(folder, extra):
    """The ideal network finds what is annotated on an image, classes included."""
    opt, dataset = make_dataset(folder, 'val', *ORACLES, *extra)
    for i in range(len(dataset)):
        sample = dataset[i]
        found = in_image(ideal_rows(opt, sample), sample['meta'])
        for wanted in annotated(dataset, i):
            assert nearest(found, wanted) < 0.05
    assert sample['hm_t'].shape == (1 if extra else CLASSES, 32, 32) and sample['hm_c'].shape == (CLASSES, 32, 32)


def shares_a_cell(sample, k):
    """Whether another object has a point in a cell of the k-th one's: a cell has one offset."""
    return any((sample[f'ind_{side}'] == sample[f'ind_{side}'][k]).sum() > 1 for side in 'tlbr')


@pytest.mark.parametrize('flip', [0, 1])
@pytest.mark.parametrize('crop', [(), ('--not_rand_crop', '--shift', '0.1', '--scale', '0.3')])
def test_augmented_targets_decode_to_the_annotations(folder, flip, crop):
    """The same through random windows and flips: whole objects come back, mirrored ones with left and right swapped."""
    opt, dataset = make_dataset(folder, 'train', *ORACLES, '--flip', str(flip), *crop, '--debug', '4')
    compared = 0
    for epoch in range(3):
        dataset.set_epoch(epoch)
        for i in range(len(dataset)):
            sample = dataset[i]
            found, truth = ideal_rows(opt, sample), sample['meta']['gt_det']
            wanted_in_image = annotated(dataset, i, flipped=bool(flip))
            for k, row in zip(sample['reg_mask'].nonzero()[0], truth, strict=False):
                whole = (row[:13] > 0).all() and (row[:13] < 31).all() and min(row[2:4] - row[:2]) >= 8
                if whole and not shares_a_cell(sample, k):
                    compared += 1
                    assert nearest(found, row) < 1e-3
                    assert nearest(wanted_in_image, in_image(row[None], sample['meta'])[0]) < 0.05
    assert compared > 15


def test_the_window_moves_by_the_sides_and_is_not_mirrored(folder):
    """[keep] A shift counts in widths and heights, and a flip leaves the window's centre alone."""
    args = ('--not_rand_crop', '--shift', '0.2', '--scale', '0', '--debug', '4')
    centers = []
    for flip in '01':
        opt, dataset = make_dataset(folder, 'train', *args, '--flip', flip)
        centers.append(dataset[0]['meta']['c'])
    shift = np.clip(np.random.default_rng([opt.seed, 0, 0]).standard_normal(2) * 0.2, -0.4, 0.4)
    np.testing.assert_allclose(centers[0], [WIDTH / 2 + WIDTH * shift[0], HEIGHT / 2 + HEIGHT * shift[1]], rtol=1e-5)
    np.testing.assert_array_equal(centers[0], centers[1])


def test_images_without_objects(folder):
    """An empty image is background: zero targets, a finite loss without offsets, no detection."""
    opt, dataset = make_dataset(folder, 'val', *ORACLES)
    sample = dataset[8]
    assert not any(sample[f'hm_{part}'].any() for part in 'tlbrc') and not sample['reg_mask'].any()
    assert sample['meta']['gt_det'].shape == (1, 14) and not sample['meta']['gt_det'].any()
    assert len(ideal_rows(opt, sample)) == 0
    opt, _ = options(folder)
    output = {head: torch.zeros(1, channels, 32, 32) for head, channels in opt.heads.items()}
    loss, stats = ExdetLoss(opt)([output], as_batch(sample))
    assert torch.isfinite(loss) and stats['off_loss'] == 0 and stats['hm_loss'] > 0


def test_whole_annotations_only(tmp_path, capsys):
    """Objects without usable extreme points are named and leave their slot empty; evaluation still counts them."""
    rng = np.random.default_rng(1)
    objects = [random_object(rng, 0) for _ in range(6)]
    del objects[0]['extreme_points']
    objects[1]['extreme_points'] = [[1, 2], [3, 4], [5, 6]]
    objects[2]['extreme_points'] = 'none'
    objects[3]['extreme_points'][0][1] = float('nan')
    objects[4]['extreme_points'] = objects[4]['extreme_points'][::-1]  # the top below the bottom
    _, dataset = make_dataset(write_folder(tmp_path / 'own', [objects]), 'val')
    printed = capsys.readouterr().out
    assert "4 objects without usable 'extreme_points'" in printed and '0, 1, 2, 3' in printed
    assert dataset[0]['reg_mask'].nonzero()[0].tolist() == [5]
    assert len(dataset.ground_truth()['annotations']) == 6


def test_a_file_without_extreme_points_names_the_tool(tmp_path):
    """Plain COCO annotations are refused with the command that adds the points."""
    plain = random_object(np.random.default_rng(1), 0)
    del plain['extreme_points']
    root = write_folder(tmp_path / 'own', [[plain], []])
    with pytest.raises(UserError, match=r'no object .*val\.json.*/gen_coco_extreme_points\.py .*val\.json OUT\.json'):
        make_dataset(root, 'val')


def test_coco_without_the_extreme_file_names_the_tool(tmp_path):
    """With only COCO's own annotations on disk the message is the command that makes the missing file."""
    folder = tmp_path / 'coco' / 'annotations'
    folder.mkdir(parents=True)
    (folder / 'instances_val2017.json').write_text('{"images": []}')
    opt = opts().parse(['exdet', '--gpus', '-1', '--data_dir', str(tmp_path)])
    tool = r'/gen_coco_extreme_points\.py .*/instances_val2017\.json .*/instances_extreme_val2017\.json'
    with pytest.raises(UserError, match=tool):
        get_dataset('coco', 'exdet')(opt, 'val')
    with pytest.raises(UserError, match=r'instances_extreme_train2017\.json.* missing'):
        get_dataset('coco', 'exdet')(opt, 'train')


# ---------------------------------------------------------------------------------------------- loss


def random_output(opt, seed=0, batch=1):
    generator = torch.Generator().manual_seed(seed)
    return {head: torch.randn(batch, channels, 32, 32, generator=generator) for head, channels in opt.heads.items()}


def test_loss_is_focal_on_five_maps_and_l1_on_four_offsets(folder):
    """The parts are the published sums, and every head learns."""
    opt, dataset = make_dataset(folder, 'val', '--hm_weight', '2', '--off_weight', '3')
    batch = torch.utils.data.default_collate([{k: v for k, v in dataset[i].items() if k != 'meta'} for i in range(3)])
    output = {head: raw.requires_grad_() for head, raw in random_output(opt, batch=3).items()}
    loss, stats = ExdetLoss(opt)([output, output], batch)
    hm = sum(FocalLoss()(output[f'hm_{part}'].sigmoid(), batch[f'hm_{part}']) for part in 'tlbrc')
    mask = batch['reg_mask']
    off = sum(RegL1Loss()(output[f'reg_{s}'], mask, batch[f'ind_{s}'], batch[f'reg_{s}']) for s in 'tlbr')
    assert list(stats) == ['loss', 'hm_loss', 'off_loss']
    torch.testing.assert_close(stats['hm_loss'], hm)
    torch.testing.assert_close(stats['off_loss'], off)
    torch.testing.assert_close(loss, 2 * hm + 3 * off)
    loss.backward()
    assert set(output) == HEADS and all(raw.grad.abs().sum() > 0 for raw in output.values())


def test_mse_loss_is_of_sigmoids(folder):
    """`--mse_loss`: squared errors of probabilities, against Gaussians of the given width."""
    opt, dataset = make_dataset(folder, 'val', '--mse_loss', '--hm_gauss', '2')
    batch = as_batch(dataset[0])
    output = random_output(opt)
    _, stats = ExdetLoss(opt)([output], batch)
    expected = sum(((output[f'hm_{p}'].sigmoid() - batch[f'hm_{p}']) ** 2).mean() for p in 'tlbrc')
    torch.testing.assert_close(stats['hm_loss'], expected)
    _, wide = make_dataset(folder, 'val', '--mse_loss', '--hm_gauss', '4')
    assert wide[0]['hm_c'].sum() > 2 * dataset[0]['hm_c'].sum()


def test_without_offsets(folder):
    """`--not_reg_offset`: no offset heads, targets or loss; points lie in the middle of their cells."""
    opt, dataset = make_dataset(folder, 'val', '--not_reg_offset', '--eval_oracle_hm')
    sample = dataset[0]
    assert set(opt.heads) == {f'hm_{part}' for part in 'tlbrc'} and not any(name[:3] == 'reg' for name in sample)
    _, stats = ExdetLoss(opt)([random_output(opt)], as_batch(sample))
    assert stats['off_loss'] == 0
    rows = ideal_rows(opt, sample)
    assert len(rows) and (rows[:, 5:13] % 1 == 0.5).all()


# -------------------------------------------------------------------------------------------- decode


@pytest.mark.parametrize('option', ['--K=2', '--scores_thresh=0.93', '--center_thresh=0.6', '--aggr_weight=0.3'])
def test_decoding_options_act(folder, option):
    """Fewer points, higher thresholds and gathered edges each change what is found."""
    plain, _ = options(folder)
    other, _ = options(folder, option)
    output = random_output(plain)
    one, two = (decode(output, opt) for opt in (plain, other))
    assert one[0, 0, 4] > 0 and not np.array_equal(one, two)


# ------------------------------------------------------------------------------------------ detector


def ideal_detector(folder, monkeypatch, *args):
    """A detector whose network gives the ideal output of image `seen`, and of its mirror image with --flip_test."""
    opt, dataset = make_dataset(folder, 'val', *ORACLES, *args)
    detector = detector_factory['exdet'](opt)
    detector.seen = 0

    def forward(images):
        output = ideal_output(opt, as_batch(dataset[detector.seen]))
        if len(images) == 1:
            return output
        return {head: torch.cat([raw, mirror_output(output)[head]]) for head, raw in output.items()}

    monkeypatch.setattr(detector, 'forward', forward)
    return detector, dataset


def mirror_output(output):
    """An output for the mirrored image: left is right, and offsets count from the other side of their cells."""
    swapped = {'hm_l': 'hm_r', 'hm_r': 'hm_l', 'reg_l': 'reg_r', 'reg_r': 'reg_l'}
    mirrored = {head: output[swapped.get(head, head)].flip(3) for head in output}
    for head in mirrored:
        if head.startswith('reg'):
            mirrored[head] = torch.stack([1 - mirrored[head][:, 0], mirrored[head][:, 1]], 1)
    return mirrored


def run_on(detector, dataset, i):
    """Final rows [n, 14] of image i."""
    detector.seen = i
    results = detector.run(dataset.image_path(i))['results']
    assert sorted(results) == list(range(1, CLASSES + 1))
    return np.concatenate([np.c_[rows, np.full(len(rows), cls - 1.0)] for cls, rows in results.items()])


@pytest.mark.parametrize('flip', [(), ('--flip_test',)])
def test_detector_finds_the_annotations(folder, monkeypatch, flip):
    """`run` gives boxes with their own extreme points in image pixels, with and without the mirrored pass."""
    detector, dataset = ideal_detector(folder, monkeypatch, *flip)
    for i in range(len(dataset)):
        found = run_on(detector, dataset, i)
        for wanted in annotated(dataset, i):
            assert nearest(found, wanted) < 0.05
        box, (t, l, b, r) = found[:, :4], found[:, 5:13].reshape(-1, 4, 2).transpose(1, 0, 2)  # noqa: E741
        np.testing.assert_array_equal(box, np.stack([l[:, 0], t[:, 1], r[:, 0], b[:, 1]], 1))


def test_the_mirrored_pass_finds_the_same(folder, monkeypatch):
    """Rows of the second pass, put back, are those of the first; without flip test nothing is mirrored."""
    detector, dataset = ideal_detector(folder, monkeypatch, '--flip_test')
    alone, _ = ideal_detector(folder, monkeypatch)
    for i in (1, 2, 5):
        detector.seen = i
        rows = detector.process(detector.forward(torch.zeros(2, 3, 128, 128)))[0]
        plain = alone.process({head: raw[:1] for head, raw in detector.forward([0, 0]).items()})[0]
        first, second = rows[: len(plain)], rows[len(plain) :]
        np.testing.assert_array_equal(first, plain)
        assert len(first) == len(second) > 0
        for row in first:
            assert nearest(second, row) < 1e-4


def test_scales_are_merged(folder, monkeypatch):
    """Boxes and points of a scale are divided by it; the duplicates that scales find lose score to the best."""
    detector, dataset = ideal_detector(folder, monkeypatch)
    rows = detector.process(detector.forward([0]))[0]
    meta = {'c': np.array([100, 80]), 's': 200.0, 'out_height': 32, 'out_width': 32}
    plain, halved = (detector.post_process(rows.copy(), meta, scale) for scale in (1, 2))
    coordinates = np.r_[0:4, 5:13]
    for cls in plain:
        np.testing.assert_allclose(halved[cls][:, coordinates] * 2, plain[cls][:, coordinates], rtol=1e-6)
        np.testing.assert_array_equal(halved[cls][:, 4], plain[cls][:, 4])
    once, twice = detector.merge_outputs([plain]), detector.merge_outputs([plain, plain])
    for cls in once:
        best = twice[cls][: len(once[cls])]
        assert len(twice[cls]) == 2 * len(once[cls])
        np.testing.assert_allclose(np.sort(best[:, 4])[::-1][:1], np.sort(once[cls][:, 4])[::-1][:1])
        assert not len(best) or twice[cls][:, 4].min() < 0.5 * once[cls][:, 4].max()


def test_at_most_100_detections(folder, monkeypatch):
    """The best 100 over all classes remain, however many were decoded."""
    detector, _ = ideal_detector(folder, monkeypatch)
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 5000, (2, 120, 2)).astype(np.float32)
    rows = [np.hstack([c, c + 5, rng.uniform(0.1, 1, (120, 1)), np.zeros((120, 8))]) for c in corners]
    results = detector.merge_outputs([{1: rows[0], 2: rows[1], 3: rows[0][:0]}])
    kept = np.concatenate([found[:, 4] for found in results.values()])
    best = np.sort(np.concatenate([found[:, 4] for found in rows]))[-100:]
    np.testing.assert_allclose(np.sort(kept), best, rtol=1e-6)


# ------------------------------------------------------------------------- a whole network, both sides


@pytest.fixture(scope='module')
def checkpoint_options():
    return '--agnostic_ex', '--scores_thresh', '0', '--center_thresh', '0', '--K', '8'


def test_trainer_and_detector_agree(folder, checkpoint_options):
    """A network is scored alike by `main.py --test` and by `test.py`."""
    opt, dataset = make_dataset(folder, 'val', *checkpoint_options)
    torch.manual_seed(0)
    detector = detector_factory['exdet'](opt)
    for module in detector.model.modules():
        if isinstance(module, torch.nn.Conv2d) and module.out_channels <= CLASSES:
            torch.nn.init.normal_(module.weight, std=0.1)
    trainer = ExdetTrainer(opt, detector.model)
    trainer.set_device(opt.device)
    _, results = trainer.val(0, val_loader(opt, torch.utils.data.Subset(dataset, [0, 1])), collect=True)
    for i in (0, 1):
        one, two = results[i], detector.run(dataset.image_path(i))['results']
        assert sum(len(rows) for rows in one.values()) > 0
        for cls in one:
            np.testing.assert_allclose(one[cls], two[cls], atol=1e-2)


def test_oracles_are_perfect_and_results_hold_the_points(folder, tmp_path):
    """With the truth in place of the heads the metric is 1; results.json holds the extreme points of each box."""
    opt, dataset = make_dataset(folder, 'val', *ORACLES)
    trainer = ExdetTrainer(opt, create_model(opt.arch, opt.heads, opt.head_conv))
    trainer.set_device(opt.device)
    losses, results = trainer.val(0, val_loader(opt, dataset), collect=True)
    metrics = dataset.run_eval(results, tmp_path)
    assert metrics['AP'] > 0.99 and losses['off_loss'] < 1e-3
    assert json.loads((tmp_path / 'metrics.json').read_text())['AP'] == metrics['AP']
    for row in json.loads((tmp_path / 'results.json').read_text()):
        assert set(row) == {'image_id', 'category_id', 'bbox', 'score', 'extreme_points'}
        x, y, w, h = row['bbox']
        t, l, b, r = np.reshape(row['extreme_points'], (4, 2))  # noqa: E741
        np.testing.assert_allclose([l[0], t[1], r[0], b[1]], [x, y, x + w, y + h], atol=0.02)


@pytest.mark.parametrize('level, count', [(2, 6), (4, 14)])
def test_debug_views(folder, tmp_path, monkeypatch, level, count):
    """Heatmaps, boxes and points, predicted beside true; from level 3 on a map for each side."""
    monkeypatch.delenv('DISPLAY', raising=False)
    opt, dataset = make_dataset(folder, 'val', *ORACLES, '--debug', str(level))
    opt.debug_dir = str(tmp_path)
    trainer = ExdetTrainer(opt, torch.nn.Identity())
    batch = as_batch(dataset[2])
    trainer.look([ideal_output(opt, batch)], batch)
    names = {path.stem.removeprefix('0_') for path in tmp_path.iterdir()}
    basic = {f'{kind}_{view}' for kind in ('pred', 'gt') for view in ('hm_tlbr', 'hm_c', 'boxes')}
    assert basic <= names and len(names) == count
    drawing = {name: cv2.imread(str(tmp_path / f'0_{name}.png')) for name in basic}
    assert np.abs(drawing['pred_boxes'].astype(int) - drawing['gt_boxes']).mean() < 10
    assert np.abs(drawing['gt_hm_tlbr'].astype(int) - drawing['gt_hm_c']).mean() > 1


def test_what_does_not_act_is_named(folder, capsys):
    """Soft-NMS is always on and offsets are always L1: the options say so."""
    options(folder, '--nms', '--reg_loss', 'sl1')
    printed = capsys.readouterr().out
    assert '--nms does not act in exdet' in printed and '--reg_loss does not act in exdet' in printed
