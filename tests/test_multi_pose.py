"""multi_pose: from annotated people to targets, through an ideal network, back to the people; bad input; options."""

import json

import cv2
import numpy as np
import pytest
import torch

from lib.datasets.dataset.coco_hp import COCO_JOINTS, COCOHP
from lib.datasets.dataset_factory import get_dataset
from lib.datasets.index import Objects
from lib.datasets.loaders import val_loader
from lib.datasets.sample.base import View
from lib.detectors.detector_factory import detector_factory
from lib.models.decode import multi_pose_decode
from lib.models.losses import FocalLoss
from lib.models.model import create_model, save_model
from lib.models.outputs import activate_poses, decode_poses
from lib.opts import model_facts, opts
from lib.trains.multi_pose import MultiPoseLoss, MultiPoseTrainer
from lib.utils.debugger import Debugger
from lib.utils.errors import UserError

SIDE = 224
JOINTS = {
    1: ['tip'],
    5: ['nose', 'left_hand', 'right_hand', 'left_foot', 'right_foot'],
    21: [f'{side}_{finger}' for side in ('left', 'right') for finger in range(10)] + ['palm'],
}
PARTS = ('hm_loss', 'hp_loss', 'hm_hp_loss', 'hp_offset_loss', 'wh_loss', 'off_loss')
ORACLES = [f'--eval_oracle_{head}' for head in ('hm', 'wh', 'offset', 'kps', 'hmhp', 'hp_offset')]


def random_person(rng, joints, corner):
    """A person of about a quarter of the image, joints on a jittered grid so that no two share a cell.

    Some joints are hidden (v = 1), some are not annotated.
    """
    x, y = corner + rng.uniform(-10, 4, 2)
    w, h = rng.uniform(84, 100, 2)
    spots = rng.permutation(25)[:joints]
    shares = (np.stack([spots % 5, spots // 5], 1) + rng.uniform(0.3, 0.7, (joints, 2))) / 5
    places = (x, y) + shares * (w, h)
    flags = rng.choice([0, 1, 2], joints, p=[0.2, 0.3, 0.5])
    flags[0] = 2
    inside = ((places >= 0) & (places < SIDE)).all(1)
    keypoints = [
        [px, py, int(v)] if v and ok else [0, 0, 0] for (px, py), v, ok in zip(places, flags, inside, strict=True)
    ]
    return {'bbox': [x, y, w, h], 'keypoints': np.ravel(keypoints).tolist()}


def write_folder(root, images, joints=5, category=None, draw=None):
    """Own data: `images` is a list of lists of annotations; `draw` gets each image with its people."""
    (root / 'annotations').mkdir(parents=True)
    (root / 'images').mkdir()
    person = {'id': 7, 'name': 'person', 'keypoints': JOINTS[joints], 'skeleton': [[1, 2]] if joints > 1 else []}
    coco = {'images': [], 'annotations': [], 'categories': [category or person]}
    for number, people in enumerate(images):
        image = np.full((SIDE, SIDE, 3), 60, np.uint8)
        if draw:
            draw(image, people)
        name = f'{number}.png'
        assert cv2.imwrite(str(root / 'images' / name), image)
        coco['images'].append({'id': number, 'file_name': name, 'width': SIDE, 'height': SIDE})
        for annotation in people:
            facts = {'id': len(coco['annotations']), 'image_id': number, 'category_id': 7, 'iscrowd': 0}
            coco['annotations'].append({**facts, 'area': 8000, **annotation})
    for split in ('train', 'val'):
        (root / 'annotations' / f'{split}.json').write_text(json.dumps(coco))
    return root


def scenes(joints, count=6):
    """Images of 0 to 4 people in the four quarters."""
    rng = np.random.default_rng(joints)
    corners = np.array([(4, 4), (116, 4), (4, 116), (116, 116)])
    return [[random_person(rng, joints, c) for c in rng.permutation(corners)[: i % 5]] for i in range(count)]


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """A folder of random people for each number of joints."""
    return {j: write_folder(tmp_path_factory.mktemp(f'people{j}') / 'own', scenes(j), j) for j in JOINTS}


def options(folder, *args):
    """Parsed options of a small network on the CPU."""
    opt = opts().parse(
        ['multi_pose', '--dataset', str(folder), '--arch', 'res_18', '--input_res', '128', '--gpus', '-1']
        + ['--pretrained', 'none', '--num_workers', '0', '--exp_dir', str(folder / 'exp'), *args]
    )
    opt.device = torch.device('cpu')
    return opts.update_dataset_info_and_set_heads(opt, get_dataset(opt.dataset, opt.task))


def make_dataset(folder, split='val', *args):
    opt = options(folder, *args)
    return get_dataset(opt.dataset, opt.task)(opt, split)


def batch_of(*samples):
    return torch.utils.data.default_collate(list(samples))


def scattered(values, ind, mask, size):
    """Map [B, d, h, w] that holds values [B, N, d] at the cells of the slots whose mask is set, 0 elsewhere."""
    values = torch.as_tensor(values)
    flat = torch.zeros(len(values), values.shape[2], size[0] * size[1])
    for image in range(len(values)):
        used = mask[image] > 0
        flat[image][:, ind[image][used]] = values[image][used].T
    return flat.unflatten(2, size)


def ideal_output(batch, opt):
    """Raw network output that says exactly what the targets say."""
    size = tuple(batch['hm'].shape[2:])
    there = batch['ind'] > 0
    output = {'hm': torch.logit(batch['hm'], eps=1e-4)}
    output['wh'] = scattered(batch['wh'], batch['ind'], there, size)
    output['reg'] = scattered(batch['reg'], batch['ind'], there, size)
    output['hps'] = batch['dense_hps'] if opt.dense_hp else scattered(batch['hps'], batch['ind'], there, size)
    if opt.hm_hp:
        output['hm_hp'] = batch['hm_hp'] if opt.mse_loss else torch.logit(batch['hm_hp'], eps=1e-4)
    if opt.reg_hp_offset:
        output['hp_offset'] = scattered(batch['hp_offset'], batch['hp_ind'], batch['hp_mask'], size)
    return output


def on_map(points, view):
    """Image points [n, 2] on the output map, by plain arithmetic."""
    points = np.array(points, float)
    if view.flipped:
        points[:, 0] = SIDE - points[:, 0] - 1
    return (points - view.c) * view.output_size[0] / view.s + np.array(view.output_size) / 2


def mirrored(keypoints, names):
    """Keypoints [J, 3] with left and right exchanged, by name."""
    sides = {'left': 'right', 'right': 'left'}
    return keypoints[[names.index('_'.join(sides.get(part, part) for part in name.split('_'))) for name in names]]


VARIANTS = {
    'plain': [],
    'dense_hp': ['--dense_hp'],
    'without joint heatmaps': ['--not_hm_hp'],
    'mse_loss': ['--mse_loss'],
    'shift and scale': ['--not_rand_crop'],
}


@pytest.mark.parametrize('joints, variant', [(1, 'plain'), (21, 'plain'), *((5, name) for name in VARIANTS)])
def test_targets_decode_to_the_annotated_people(folders, monkeypatch, joints, variant):
    """Random scenes, flips and crops: an ideal network's decoded boxes and joints are the annotated ones."""
    dataset = make_dataset(folders[joints], 'train', '--flip', '0.5', *VARIANTS[variant])
    views, view_of = [], dataset.view
    monkeypatch.setattr(dataset, 'view', lambda rng, size: views.append(view_of(rng, size)) or views[-1])
    people_found, joints_found, flips = 0, 0, 0
    for epoch in range(4):
        dataset.set_epoch(epoch)
        for i, people in enumerate(scenes(joints)):
            batch = batch_of(dataset[i])
            view, last = views[-1], dataset.opt.output_w - 1
            flips += view.flipped
            dets = decode_poses(activate_poses(ideal_output(batch, dataset.opt), dataset.opt.mse_loss), K=20)[0][0]
            expected = []
            for person in people:
                x, y, w, h = person['bbox']
                box = np.sort(on_map([[x, y], [x + w, y + h]], view), 0).clip(0, last).ravel()
                if (box[2:] > box[:2]).all():
                    expected.append((box, np.reshape(person['keypoints'], (-1, 3))))
            assert (dets[:, 4] > 0.99).sum() == len(expected)
            for box, keypoints in expected:
                row = dets[np.abs(dets[:, :4] - box).max(1).argmin()]
                np.testing.assert_allclose(row[:4], box, atol=1e-3)
                if view.flipped:
                    keypoints = mirrored(keypoints, JOINTS[joints])
                places = on_map(keypoints[:, :2], view)
                seen = (keypoints[:, 2] > 0) & (places >= 0).all(1) & (places < last + 1).all(1)
                np.testing.assert_allclose(row[5:-1].reshape(-1, 2)[seen], places[seen], atol=2e-3)
                people_found, joints_found = people_found + 1, joints_found + seen.sum()
    assert people_found > 20 and joints_found >= people_found / 2 and 4 < flips < 20


def test_joints_lie_where_their_pixels_go(tmp_path):
    """Flipped, cropped and rotated by any angle, a joint's target is over the dot drawn at the joint, of its side."""
    dots = {'left': (255, 0, 0), 'right': (0, 0, 255), 'nose': (0, 255, 0)}

    def draw(image, people):
        image[:] = 0
        for person in people:
            for name, (x, y, v) in zip(JOINTS[5], np.reshape(person['keypoints'], (-1, 3)), strict=True):
                if v:
                    cv2.circle(image, (round(x), round(y)), 5, dots[name.split('_')[0]], -1)

    folder = write_folder(tmp_path / 'dots', scenes(5), 5, draw=draw)
    dataset = make_dataset(folder, 'train', '--aug_rot', '1', '--rotate', '40', '--no_color_aug', '--input_res', '256')
    checked = 0
    for epoch in range(4):
        dataset.set_epoch(epoch)
        for i in range(1, 5):
            sample = dataset[i]
            image = sample['input'] * dataset.std.reshape(3, 1, 1) + dataset.mean.reshape(3, 1, 1)
            places = sample['hp_offset'] + np.stack([sample['hp_ind'] % 64, sample['hp_ind'] // 64], 1)
            for slot in np.flatnonzero(sample['hp_mask']):
                x, y = np.minimum((places[slot] * 4).round().astype(int), 255)
                color = [dots['nose'], dots['left'], dots['right'], dots['left'], dots['right']][slot % 5]
                # A mirrored person's left hand is what was the right one.
                shown = image[:, y, x] > 0.5
                if flipped(dataset, epoch, i) and slot % 5:
                    color = color[::-1]
                assert (shown == (np.array(color) > 0)).all(), (epoch, i, slot)
                checked += 1
    assert checked > 60


def flipped(dataset, epoch, i):
    """Whether that sample is mirrored."""
    return dataset.view(np.random.default_rng([dataset.opt.seed, epoch, i]), dataset.image_size(i)).flipped


def test_rotated_samples_teach_joint_heatmaps_alone(folders):
    """Boxes are not turned with the image, so nothing is learnt of them; unrotated samples stay whole."""
    turned = ('--aug_rot', '1', '--rotate', '30')
    for args in ((), ('--dense_hp',)):
        plain, rotated = (make_dataset(folders[5], 'train', *args, *more)[4] for more in ((), turned))
        box_masks = ['reg_mask', 'dense_hps_mask' if args else 'hps_mask']
        assert all(plain[mask].any() and not rotated[mask].any() for mask in box_masks)
        assert (rotated['hm'] == np.float32(0.9999)).all() and plain['hm'].max() == 1
        assert rotated['hm_hp'].max() == 1 and rotated['hp_mask'].any()


def test_somebody_who_is_turned_into_the_image(folders):
    """Joints that a rotation brings in are learnt, though the box, which is not turned, is outside; else nobody is."""
    dataset = make_dataset(folders[1], 'train')
    keypoints = np.array([[[172, 112, 2]]], np.float32)
    person = Objects(
        np.array([[165, 60, 200, 160]], np.float32), np.array([0]), np.array([True]), {'keypoints': keypoints}
    )
    for rot, brought_in in ((0, 0), (45, 1)):
        view = View(np.array([112.0, 112.0]), 100.0, (128, 128), (32, 32), SIDE, rot=rot)
        targets, _ = dataset.targets(person, view, 0)
        assert targets['hp_mask'].sum() == targets['hm_hp'].max() == brought_in


def test_rotation_is_drawn_as_asked(folders):
    """With probability aug_rot, by a normal angle that is clipped at twice --rotate."""
    dataset = make_dataset(folders[1], 'train', '--aug_rot', '0.25', '--rotate', '10')
    angles = np.array([dataset.rotation(np.random.default_rng(i)) for i in range(2000)])
    turned = angles[angles != 0]
    assert 0.2 < len(turned) / 2000 < 0.3
    assert np.abs(turned).max() == 20 and 0.85 < (np.abs(turned) < 15).mean() < 0.91


def test_people_without_joints_are_centres_and_no_more(tmp_path):
    """A person nobody annotated joints of: its centre is a positive, its box and offset are not learnt."""
    people = [{'bbox': [10, 10, 80, 90], 'keypoints': [0] * 15}, {'bbox': [120, 100, 80, 90], 'keypoints': [150] * 15}]
    sample = make_dataset(write_folder(tmp_path / 'own', [people]))[0]
    assert (sample['hm'] == 1).sum() == 2
    assert sample['reg_mask'][:3].tolist() == [0, 1, 0]
    assert sample['hps_mask'].sum() == 10 and not sample['hps_mask'][0].any()


def test_unusable_joints_are_named_and_counted(tmp_path, capsys):
    """Joints missing, of an odd count or not finite: a line that counts them; the people stay, without joints."""
    person = {'bbox': [30, 30, 80, 90]}
    bad = [person, {**person, 'keypoints': [50, 50, 2] * 4}, {**person, 'keypoints': [50, float('nan'), 2] * 5}]
    dataset = make_dataset(write_folder(tmp_path / 'own', [[p, {**person, 'keypoints': [50, 60, 2] * 5}] for p in bad]))
    said = capsys.readouterr().out
    assert "3 objects without usable 'keypoints' (15 numbers; ids): 0, 2, 4" in said
    assert "1 annotations with an unusable 'keypoints', taken as absent (ids): 4" in said
    for i in range(3):
        sample = dataset[i]
        assert sample['reg_mask'][:2].tolist() == [0, 1] and sample['hps_mask'].sum() == 10
        assert np.isfinite(sample['meta']['gt_det']).all() and (sample['hm'] == 1).sum() == 1


def test_nobody_with_joints(tmp_path):
    """Training on no joints at all is refused in one line; such a validation set is scored as far as it goes."""
    folder = write_folder(tmp_path / 'own', [[{'bbox': [30, 30, 80, 90]}], []])
    with pytest.raises(UserError, match="nobody in '.*train.json' has a joint"):
        make_dataset(folder, 'train')
    dataset = make_dataset(folder, 'val')
    found = {0: {1: np.array([[30, 30, 110, 120, 0.9, *[50] * 10]], np.float32)}}
    metrics = dataset.run_eval(found, str(tmp_path))
    assert metrics['AP'] == pytest.approx(1) and metrics['kp_AP'] == -1


def test_an_image_of_nobody(folders):
    """It is a training sample without a positive, its truth one zero row, its loss finite."""
    dataset = make_dataset(folders[5])
    sample = dataset[0]
    assert sample['meta']['gt_det'].shape == (1, 16) and not sample['meta']['gt_det'].any()
    assert not sample['hm'].any() and not sample['reg_mask'].any() and not sample['hp_mask'].any()
    loss = MultiPoseLoss(dataset.opt)
    loss_value, stats = loss([ideal_output(batch_of(sample), dataset.opt)], batch_of(sample))
    assert torch.isfinite(loss_value) and stats['hp_loss'] == 0


def test_coco_people(tmp_path):
    """coco_hp: trains on the images that have a person, validates on all; 17 joints in mirrored pairs; serves ctdet."""
    folder = write_folder(tmp_path / 'own', [[], [{'bbox': [30, 30, 80, 90], 'keypoints': [50, 60, 2] * 17}]], 5)
    root = tmp_path / 'coco'
    (root / 'annotations').mkdir(parents=True)
    text = (folder / 'annotations' / 'val.json').read_text()
    coco = json.loads(text.replace('"category_id": 7', '"category_id": 1').replace('"id": 7', '"id": 1'))
    for split in ('train', 'val'):
        (root / 'annotations' / f'person_keypoints_{split}2017.json').write_text(json.dumps(coco))
        (root / f'{split}2017').symlink_to(folder / 'images')
    for task, lacks in (('multi_pose', ()), ('ctdet', ('hps', 'hm_hp'))):
        opt = opts().parse([task, '--dataset', 'coco_hp', '--data_dir', str(tmp_path), '--gpus', '-1'])
        dataset_class = get_dataset('coco_hp', task)
        opts.update_dataset_info_and_set_heads(opt, dataset_class)
        datasets = {split: dataset_class(opt, split) for split in ('train', 'val')}
        assert {split: len(dataset) for split, dataset in datasets.items()} == {'train': 1, 'val': 2}
        sample = datasets['train'][0]
        assert sample['hm'].shape == (1, 128, 128) and sample['ind'].shape == (32,)
        assert not any(key in sample for key in lacks)
    sides = [(COCO_JOINTS[a], COCO_JOINTS[b]) for a, b in COCOHP.flip_idx]
    assert len(sides) == 8 and all(a.replace('left', 'right') == b and a != b for a, b in sides)
    assert dataset_class.main_metric == 'AP'
    assert get_dataset('coco_hp', 'multi_pose').main_metric == 'kp_AP'


def random_output(opt, batch, seed=0, images=None):
    """A raw output with noise in every head."""
    generator = torch.Generator().manual_seed(seed)
    size = (images or len(batch['hm']), opt.output_h, opt.output_w)
    return {
        head: torch.randn(size[0], channels, *size[1:], generator=generator) * (3 if 'hm' not in head else 1)
        for head, channels in opt.heads.items()
    }


def stats_of(folder, *args):
    """Statistics of the loss, of a noisy output on a fixed augmented batch."""
    dataset = make_dataset(folder, 'train', '--seed', '5', *args)
    batch = batch_of(dataset[3], dataset[4])
    loss, stats = MultiPoseLoss(dataset.opt)([random_output(dataset.opt, batch)], batch)
    assert loss == stats['loss'] and torch.isfinite(loss)
    return {name: float(value) for name, value in stats.items()}


LOSS_OPTIONS = {
    'reg_loss sl1': (['--reg_loss', 'sl1'], {'hp_offset_loss', 'wh_loss', 'off_loss'}),
    'reg_loss l2': (['--reg_loss', 'l2'], {'hp_offset_loss', 'wh_loss', 'off_loss'}),
    'mse_loss': (['--mse_loss'], {'hm_loss', 'hm_hp_loss'}),
    'dense_hp': (['--dense_hp'], {'hp_loss'}),
    'hm_hp_weight': (['--hm_hp_weight', '0'], {'hm_hp_loss'}),
    'wh_weight': (['--wh_weight', '0'], {'wh_loss'}),
    'off_weight': (['--off_weight', '0'], {'hp_offset_loss', 'off_loss'}),
    'hm_weight': (['--hm_weight', '2'], set()),
    'hp_weight': (['--hp_weight', '0.5'], set()),
}


@pytest.mark.parametrize('name', LOSS_OPTIONS)
def test_loss_options_act(folders, name):
    """Each changes the loss, by the parts that it is about and no others."""
    args, parts = LOSS_OPTIONS[name]
    plain, changed = stats_of(folders[5]), stats_of(folders[5], *args)
    assert list(plain) == ['loss', *PARTS]
    assert plain['loss'] != changed['loss']
    assert {part for part in PARTS if plain[part] != changed[part]} == parts
    if name.endswith('_weight') and parts:
        assert all(changed[part] == 0 for part in parts)


def test_loss_is_the_weighted_sum_averaged_over_stacks(folders):
    """Each part is found by hand, of a dense and of a sparse kind; two stacks are averaged; gradients flow."""
    dataset = make_dataset(folders[5], 'train')
    opt, batch = dataset.opt, batch_of(dataset[3], dataset[4])
    outputs = [random_output(opt, batch, seed) for seed in (1, 2)]
    for output in outputs:
        output['hps'].requires_grad_()
    loss, stats = MultiPoseLoss(opt)(outputs, batch)
    weights = dict(zip(PARTS, (1, 1, 1, 1, 0.1, 1), strict=True))
    torch.testing.assert_close(loss, sum(weight * stats[part] for part, weight in weights.items()))

    joints = 0
    for output in outputs:
        total = 0
        for image, slot in batch['hps_mask'].any(2).nonzero().tolist():
            y, x = divmod(int(batch['ind'][image, slot]), opt.output_w)
            error = (output['hps'][image, :, y, x] - batch['hps'][image, slot]).abs()
            total = total + (error * batch['hps_mask'][image, slot]).sum()
        joints = joints + total / (batch['hps_mask'].sum() + 1e-4) / 2
    torch.testing.assert_close(stats['hp_loss'], joints)

    offsets = 0
    for output in outputs:
        for image, slot in batch['hp_mask'].nonzero().tolist():
            y, x = divmod(int(batch['hp_ind'][image, slot]), opt.output_w)
            offsets = offsets + (output['hp_offset'][image, :, y, x] - batch['hp_offset'][image, slot]).abs().sum() / 2
    torch.testing.assert_close(stats['hp_offset_loss'], offsets / (2 * batch['hp_mask'].sum() + 1e-4))
    loss.backward()
    assert outputs[0]['hps'].grad.abs().sum() > 0


def test_squared_error_on_joint_heatmaps(folders):
    """--mse_loss compares the raw joint maps with the targets; the centres' stay with the focal loss."""
    dataset = make_dataset(folders[5], 'train', '--mse_loss')
    batch = batch_of(dataset[3])
    output = random_output(dataset.opt, batch)
    stats = MultiPoseLoss(dataset.opt)([output], batch)[1]
    torch.testing.assert_close(stats['hm_hp_loss'], ((output['hm_hp'] - batch['hm_hp']) ** 2).mean())
    torch.testing.assert_close(stats['hm_loss'], FocalLoss()(output['hm'].sigmoid(), batch['hm']))


HEAD_OPTIONS = {
    '--not_hm_hp': {'hm_hp', 'hp_offset'},
    '--not_reg_hp_offset': {'hp_offset'},
    '--not_reg_offset': {'reg'},
}


@pytest.mark.parametrize('option', HEAD_OPTIONS)
def test_heads_that_are_switched_off(folders, option):
    """Head, targets and loss go together, and detection works without them."""
    opt = options(folders[5], option)
    assert {'hm', 'wh', 'hps', 'reg', 'hm_hp', 'hp_offset'} - opt.heads.keys() == HEAD_OPTIONS[option]
    sample = make_dataset(folders[5], 'val', option)[2]
    assert not HEAD_OPTIONS[option] & sample.keys()
    stats = stats_of(folders[5], option)
    gone = {f'{head}_loss'.replace('reg_', 'off_') for head in HEAD_OPTIONS[option]}
    assert {part for part in PARTS if stats[part] == 0} == gone
    detector = fake_detector(folders[5], random_output(opt, batch_of(sample)), option)
    assert detector.run(np.zeros((50, 60, 3), np.uint8))['results'][1].shape == (100, 15)


@pytest.mark.parametrize('args', [[], ['--dense_hp'], ['--mse_loss'], ['--not_hm_hp']])
def test_oracles_make_a_random_network_perfect(folders, tmp_path, args):
    """With every head replaced by the truth, main.py --test finds everybody and all joints; results.json holds them."""
    oracles = [oracle for oracle in ORACLES if '--not_hm_hp' not in args or 'hp' not in oracle.replace('kps', '')]
    opt = options(folders[5], *args, *oracles, '--K', '10')
    dataset = get_dataset(opt.dataset, opt.task)(opt, 'val')
    trainer = MultiPoseTrainer(opt, create_model(opt.arch, opt.heads, opt.head_conv))
    trainer.set_device(opt.device)
    _, results = trainer.val(0, val_loader(opt, dataset), collect=True)
    metrics = dataset.run_eval(results, str(tmp_path))
    assert metrics['kp_AP'] > 0.97 and metrics['AP'] > 0.9
    assert json.loads((tmp_path / 'metrics.json').read_text()) == metrics
    rows = json.loads((tmp_path / 'results.json').read_text())
    assert len(rows) == 60 and all(len(row['keypoints']) == 15 for row in rows)
    assert all(row['keypoints'][2::3] == [1] * 5 and row['category_id'] == 7 for row in rows)


@pytest.mark.parametrize('loss', [[], ['--mse_loss']])
@pytest.mark.parametrize('oracle', ORACLES)
def test_each_oracle_replaces_its_head(folders, oracle, loss):
    """One option, one head, at the objects' cells the truth."""
    opt = options(folders[5], oracle, *loss)
    batch = batch_of(make_dataset(folders[5], 'val', *loss)[4])
    output, ideal = random_output(opt, batch), ideal_output(batch, opt)
    replaced = MultiPoseLoss(opt).with_oracles(output, batch)
    changed = {head for head in output if not torch.equal(replaced[head], output[head])}
    head = {'offset': 'reg', 'kps': 'hps', 'hmhp': 'hm_hp'}.get(oracle[14:], oracle[14:])
    assert changed == {head}
    shown = ideal[head].abs().sum(1) > 0
    torch.testing.assert_close(replaced[head].movedim(1, 3)[shown], ideal[head].movedim(1, 3)[shown])


def fake_detector(folder, output, *args):
    """A detector whose network answers with `output`, whatever it sees."""
    detector = detector_factory['multi_pose'](options(folder, *args))
    detector.forward = lambda images: output
    return detector


@pytest.mark.parametrize('args', [[], ['--nms'], ['--flip_test']])
def test_detector_gives_back_the_people(folders, args):
    """An ideal network's people come out in the pixels of the image, with certain joints."""
    dataset = make_dataset(folders[21])
    for i in (1, 4):
        batch = batch_of(dataset[i])
        output = ideal_output(batch, dataset.opt)
        if '--flip_test' in args:
            output = with_mirror_image(output, dataset.flip_idx)
        done = fake_detector(folders[21], output, *args).run(np.zeros((SIDE, SIDE, 3), np.uint8))
        rows, scores = done['results'][1], done['keypoint_scores'][1]
        certain = rows[:, 4] > 0.9
        assert rows.shape[1] == 47 and scores.shape == (len(rows), 21) and certain.sum() == i
        for person in scenes(21)[i]:
            x, y, w, h = person['bbox']
            box = np.clip([x, y, x + w, y + h], 0, SIDE - SIDE / 32)
            k = np.abs(rows[:, :4] - box).max(1).argmin()
            np.testing.assert_allclose(rows[k, :4], box, atol=0.02)
            keypoints = np.reshape(person['keypoints'], (-1, 3))
            seen = keypoints[:, 2] > 0
            np.testing.assert_allclose(rows[k, 5:].reshape(-1, 2)[seen], keypoints[seen, :2], atol=0.02)
            in_box = seen & (keypoints[:, :2] <= box[2:]).all(1)
            assert (scores[k][in_box] > 0.99).all() and in_box.sum() > 5


def with_mirror_image(output, flip_idx):
    """Return the output of a network that mirrors perfectly for (image, mirror image), joint by joint."""
    partner = {a: b for pair in flip_idx for a, b in (pair, pair[::-1])}
    both = {}
    for head, maps in output.items():
        mirrored = maps.flip(3).clone()
        if head == 'hm_hp':
            for j in range(maps.shape[1]):
                mirrored[:, partner.get(j, j)] = maps[:, j].flip(2)
        if head == 'hps':
            for j in range(maps.shape[1] // 2):
                mirrored[:, 2 * partner.get(j, j)] = -maps[:, 2 * j].flip(2)
                mirrored[:, 2 * partner.get(j, j) + 1] = maps[:, 2 * j + 1].flip(2)
        both[head] = torch.cat([maps, mirrored])
    return both


def test_flip_test_of_a_network_that_mirrors_is_the_plain_pass(folders):
    """The averages of maps and their mirror images are the maps; offsets within cells are the plain pass's."""
    opt = options(folders[5])
    output = random_output(opt, None, images=1)
    both = with_mirror_image(output, opt.flip_idx)
    both['reg'][1], both['hp_offset'][1] = 9, 9
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    plain = fake_detector(folders[5], output).run(image)
    flip = fake_detector(folders[5], both, '--flip_test').run(image)
    np.testing.assert_allclose(plain['results'][1], flip['results'][1], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(plain['keypoint_scores'][1], flip['keypoint_scores'][1], rtol=1e-4)
    both['hps'][1] += 1
    moved = fake_detector(folders[5], both, '--flip_test').run(image)
    assert not np.allclose(plain['results'][1][:, 5:], moved['results'][1][:, 5:], atol=1e-3)


def test_joint_scores_stay_beside_their_rows(folders):
    """Through the soft-NMS of two scales, which moves and drops rows, each keeps the scores it was decoded with."""
    output = random_output(options(folders[5]), None, images=1)
    output['wh'] = output['wh'].abs() + 6  # large enough to overlap
    detector = fake_detector(folders[5], output, '--test_scales', '1,0.5')
    parts = []
    merge = detector.merge_outputs
    detector.merge_outputs = lambda detections: merge([parts.append(part[1].copy()) or part for part in detections])
    done = detector.run(np.zeros((SIDE, SIDE, 3), np.uint8))
    rows, scores = done['results'][1], done['keypoint_scores'][1]
    before = np.concatenate(parts)  # box, score, joints, joint scores
    assert len(before) == 200 and 100 < len(rows) <= 200
    joints, own_scores = before[:, 5:15], before[:, 15:]
    assert rows[:, 4].sum() < 0.9 * before[:, 4].sum()  # some have lost score to others
    for row, score in zip(rows, scores, strict=True):
        same = (joints == row[5:]).all(1)
        assert (own_scores[same] == score).all(1).any()


def test_nms_acts_at_one_scale_too(folders):
    """--nms lowers the scores of people who overlap better ones; without it one scale is left alone."""
    output = random_output(options(folders[5]), None, images=1)
    output['wh'] = output['wh'].abs() + 6  # large enough to overlap
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    plain, thinned = (fake_detector(folders[5], output, *args).run(image)['results'][1] for args in ([], ['--nms']))
    np.testing.assert_allclose(plain[:, 4], decode_poses(activate_poses(output, mse_loss=False), 100)[0][0, :, 4])
    assert thinned[0, 4] == plain[0, 4] and thinned[:, 4].sum() < 0.9 * plain[:, 4].sum()


def test_test_scale_is_undone(folders):
    """Objects found at scale 2 are reported in the pixels of the image, boxes and joints."""
    output = random_output(options(folders[5]), None, images=1)
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    plain, twice = (fake_detector(folders[5], output, '--test_scales', s).run(image)['results'][1] for s in ('1', '2'))
    points = np.r_[0:4, 5:15]
    # At a fixed input size scale 2 shows the middle half of the image.
    np.testing.assert_allclose(twice[:, points], plain[:, points] / 2 + SIDE / 4, atol=1e-2)


def test_K_is_not_limited(folders):
    """All K people come out, more than 100 too, also after merging."""
    output = random_output(options(folders[5]), None, images=1)
    for k in (7, 150):
        done = fake_detector(folders[5], output, '--K', str(k)).run(np.zeros((SIDE, SIDE, 3), np.uint8))
        assert done['results'][1].shape == (k, 15) and done['keypoint_scores'][1].shape == (k, 5)


def test_mse_loss_reads_joint_maps_raw(folders):
    """With --mse_loss the joints' heatmaps are probabilities already (clamped), the centres' are not."""
    opt = options(folders[5], '--mse_loss')
    output = random_output(opt, None, images=1)
    maps = activate_poses(output, opt.mse_loss)
    assert torch.equal(maps['hm'], output['hm'].sigmoid()) and torch.equal(maps['hm_hp'], output['hm_hp'].clamp(0, 1))
    dets = decode_poses(maps, 9)[0]
    heads = [maps[head] for head in ('hm', 'wh', 'hps', 'reg', 'hm_hp', 'hp_offset')]
    assert np.array_equal(dets, multi_pose_decode(*heads, K=9).numpy())


def test_trainer_and_detector_agree(folders, tmp_path):
    """main.py --test and test.py find the same on the same checkpoint, whose facts spare the options."""
    opt = options(folders[5], '--input_res', '64', '--not_reg_hp_offset')
    torch.manual_seed(0)
    model = create_model(opt.arch, opt.heads, opt.head_conv)
    save_model(tmp_path / 'model.pth', 1, model, **model_facts(opt))
    dataset = get_dataset(opt.dataset, opt.task)(opt, 'val')
    trainer = MultiPoseTrainer(opt, model)
    trainer.set_device(opt.device)
    _, results = trainer.val(0, val_loader(opt, dataset), collect=True)
    detector_opt = opts().init(['multi_pose', '--load_model', str(tmp_path / 'model.pth'), '--gpus', '-1'])
    assert detector_opt.heads == opt.heads and detector_opt.flip_idx == [[1, 2], [3, 4]]
    detector = detector_factory['multi_pose'](detector_opt)
    found = detector.run(dataset.image_path(3))['results'][1]
    np.testing.assert_allclose(found, results[3][1], rtol=1e-3, atol=1e-2)


def test_views(folders, tmp_path, monkeypatch):
    """Training and detecting draw heatmaps and people; joints that are not annotated are not drawn."""
    drawn = []
    poses = Debugger.add_poses
    monkeypatch.setattr(Debugger, 'add_poses', lambda self, *args: drawn.append(args) or poses(self, *args))
    opt = options(folders[5], '--debug', '4', '--vis_thresh', '0.01', '--exp_dir', str(tmp_path), *ORACLES)
    dataset = get_dataset(opt.dataset, opt.task)(opt, 'val')
    batch = batch_of(dataset[4])
    trainer = MultiPoseTrainer(opt, torch.nn.Identity())
    trainer.look([random_output(opt, batch)], batch)
    names = {path.name for path in (tmp_path / 'multi_pose/default/debug').iterdir()}
    assert names == {f'0_{kind}_{view}.png' for kind in ('pred', 'gt') for view in ('hm', 'hmhp', 'poses')}
    truth = drawn[-1][1]
    missing = np.isnan(truth[:, 5:].reshape(-1, 5, 2)).all(2)
    flags = np.array([np.reshape(person['keypoints'], (-1, 3))[:, 2] for person in scenes(5)[4]])
    assert (missing == (flags == 0)).all() and missing.any() and not missing.all()
    np.testing.assert_allclose(truth[0, :4], batch['meta']['gt_det'][0, 0, :4].numpy() * 4)

    detector = fake_detector(folders[5], ideal_output(batch, opt), '--debug', '4', '--exp_dir', str(tmp_path / 'det'))
    image = np.full((SIDE, SIDE, 3), 60, np.uint8)
    detector.run(image)
    folder = tmp_path / 'det/multi_pose/default/debug'
    assert {path.name for path in folder.iterdir()} == {
        '0_1_pred_hm.png', '0_1_pred_hmhp.png', '0_1_pred_poses.png', '0_multi_pose.png',
    }  # fmt: skip
    assert (cv2.imread(str(folder / '0_multi_pose.png')) != image).any()


def test_options_that_act_only_together(folders, capsys):
    """--aug_rot without --rotate turns nothing, and is said."""
    options(folders[5], '--aug_rot', '0.5')
    assert '--rotate' in capsys.readouterr().out
    options(folders[5], '--aug_rot', '0.5', '--rotate', '20')
    assert '--rotate' not in capsys.readouterr().out
