"""Targets -> decode gives back what is annotated: every task, random pictures of random sizes, crops and flips.

The truth takes the place of the heads (`--eval_oracle_*`) and goes the way of a network's output, to result rows in
image pixels. What is to come out is found from the annotations by plain arithmetic: mirrored, cut at the window.
"""

import json

import cv2
import numpy as np
import pytest
import torch

from lib.datasets.dataset_factory import get_dataset
from lib.opts import opts
from lib.trains.train_factory import train_factory

ORACLES = {
    'ctdet': ['hm', 'wh', 'offset'],
    'exdet': ['hm', 'offset'],
    'multi_pose': ['hm', 'wh', 'offset', 'kps', 'hmhp', 'hp_offset'],
    'ddd': ['hm', 'dep', 'dim', 'rot', 'wh', 'offset'],
}
VARIANTS = [
    ('ctdet', []),
    ('ctdet', ['--not_rand_crop']),
    ('ctdet', ['--keep_res', '--not_rand_crop']),
    ('ctdet', ['--cat_spec_wh']),
    ('ctdet', ['--dense_wh']),
    ('exdet', []),
    ('exdet', ['--agnostic_ex', '--not_rand_crop']),
    ('multi_pose', []),
    ('multi_pose', ['--dense_hp', '--not_rand_crop']),
    ('ddd', ['--aug_ddd', '0.8']),
    ('ddd', ['--aug_ddd', '0.8', '--keep_res']),
]
JOINTS = ['nose', 'left_hand', 'right_hand', 'left_foot', 'right_foot']
MIRRORED_JOINTS = [0, 2, 1, 4, 3]
PICTURES, EPOCHS = 10, 3


def whole_object(rng, task, box, camera):
    """An annotation of a box [x, y, w, h], with all that its task wants to know."""
    x, y, w, h = box
    annotation = {'category_id': 1 if task == 'multi_pose' else int(rng.integers(1, 4)), 'bbox': list(box)}
    if task == 'exdet':
        (top, bottom), (left, right) = x + w * rng.uniform(size=2), y + h * rng.uniform(size=2)
        annotation['extreme_points'] = [[top, y], [x, left], [bottom, y + h], [x + w, right]]
    if task == 'multi_pose':  # on a jittered grid: an ideal map holds one offset a cell
        spots = rng.permutation(25)[: len(JOINTS)]
        places = (x, y) + (np.stack([spots % 5, spots // 5], 1) + rng.uniform(0.3, 0.7, (5, 2))) / 5 * (w, h)
        annotation['keypoints'] = np.column_stack([places, [2, *rng.integers(0, 3, 4)]]).ravel().tolist()
    if task == 'ddd':  # the middle of the 2D box is that of the 3D box, as the method assumes
        depth, alpha, dim = rng.uniform(5, 60), rng.uniform(-np.pi, np.pi), rng.uniform(0.5, 4, 3)
        u, v = x + w / 2, y + h / 2
        z = depth - camera[2, 3]
        across = (u * depth - camera[0, 3] - camera[0, 2] * z) / camera[0, 0]
        down = (v * depth - camera[1, 3] - camera[1, 2] * z) / camera[1, 1]
        turn = alpha + np.arctan2(u - camera[0, 2], camera[0, 0])
        facts = {'dim': list(dim), 'location': [across, down + dim[0] / 2, z], 'rotation_y': turn}
        annotation |= {'depth': depth, 'alpha': alpha, 'truncated': 0, 'occluded': 0, **facts}
    return annotation


def write_scenes(root, task, seed=0):
    """Own data: pictures of random sides with an object in some of their quarters, each a rectangle of its own grey.

    Returns the annotations of each picture.
    """
    rng = np.random.default_rng(seed)
    (root / 'annotations').mkdir(parents=True)
    (root / 'images').mkdir()
    names = ['person'] if task == 'multi_pose' else ['Car', 'Pedestrian', 'Cyclist']
    facts = {'keypoints': JOINTS, 'skeleton': []} if task == 'multi_pose' else {}
    categories = [{'id': i, 'name': name, **facts} for i, name in enumerate(names, start=1)]
    images, scenes = [], []
    for number in range(PICTURES):
        sides = rng.integers(160, 400, 2)
        if task == 'ddd':  # its window is as wide as the picture
            sides[1] = sides[0] * rng.uniform(0.4, 0.6)
        camera = np.array([[rng.uniform(200, 700), 0, 0, 40], [0, 300, 0, -3], [0, 0, 1, 0.3]])
        camera[:2, 2] = sides / 2 + rng.uniform(-20, 20, 2)
        picture, scene = np.zeros((sides[1], sides[0], 3), np.uint8), []
        for quarter in rng.permutation(4)[: rng.integers(1, 5)]:
            size = sides / 2 * rng.uniform(0.6, 0.95, 2)
            corner = (quarter % 2, quarter // 2) * sides / 2 + rng.uniform(0, 1, 2) * (sides / 2 - size)
            scene.append(whole_object(rng, task, (*corner, *size), camera))
            grey = 50 * len(scene)
            cv2.rectangle(picture, np.ceil(corner).astype(int), (corner + size).astype(int), (grey,) * 3, -1)
        assert cv2.imwrite(str(root / f'images/{number}.png'), picture)
        size = {'width': int(sides[0]), 'height': int(sides[1])}
        images.append({'id': number, 'file_name': f'{number}.png', **size, 'calib': camera.tolist()})
        scenes.append(scene)
    rows = [{'image_id': i, 'iscrowd': 0, 'area': 1000, **each} for i, scene in enumerate(scenes) for each in scene]
    coco = {'images': images, 'categories': categories}
    coco['annotations'] = [{'id': i, **row} for i, row in enumerate(rows, start=1)]
    for split in ('train', 'val'):
        (root / f'annotations/{split}.json').write_text(json.dumps(coco))
    return scenes


class Window:
    """What a sample sees of its picture."""

    def __init__(self, view, width):
        self.c, self.flipped, self.width = view.c, view.flipped, width
        self.size = np.array(view.output_size)
        self.zoom = view.output_size[0] / np.ravel(view.s)[0]  # cells of the output map a pixel

    def on_map(self, points):
        """Points [n, 2] of the picture on the output map, mirrored if it is."""
        points = np.array(points, float)
        if self.flipped:
            points[:, 0] = self.width - points[:, 0] - 1
        return (points - self.c) * self.zoom + self.size / 2

    def in_image(self, points):
        """Points [n, 2] of the map in the pixels of the (mirrored) picture."""
        return (points - self.size / 2) / self.zoom + self.c

    def cut(self, points):
        return np.clip(points, 0, self.size - 1)


def wanted_row(task, each, window):
    """What an annotation is to give: its row of results, with NaN where it is not told; the part of its box on the map
    that is seen, [2, 2]; whether that is all of it.
    """
    x, y, w, h = each['bbox']
    corners = np.sort(window.on_map([[x, y], [x + w, y + h]]), 0)
    seen = window.cut(corners)
    whole = bool((seen == corners).all())
    box = window.in_image(seen).ravel()
    row = [*box, np.nan]
    if task == 'exdet':
        points = window.in_image(window.cut(window.on_map(each['extreme_points'])))
        row += points[[0, 3, 2, 1] if window.flipped else slice(None)].ravel().tolist()
    if task == 'multi_pose':
        joints = np.reshape(each['keypoints'], (-1, 3))[MIRRORED_JOINTS if window.flipped else slice(None)]
        places = window.on_map(joints[:, :2])
        known = (joints[:, 2] > 0) & (places >= 0).all(1) & (places < window.size).all(1)
        row += np.where(known[:, None], window.in_image(places), np.nan).ravel().tolist()
    if task == 'ddd':  # where the window cuts the 2D box its middle is not that of the 3D box
        place = [*each['location'], each['rotation_y']] if whole else [np.nan] * 4
        row = [each['alpha'], *box, *each['dim'], *place, np.nan]
    return np.array(row), seen, whole


def in_first_cell(each, window):
    """Whether an extreme point is in the map's first cell, whose index 0 is an empty slot to the oracles."""
    return (window.cut(window.on_map(each['extreme_points'])) < 1).all(1).any()


def distances(task, rows, wanted):
    """Largest difference of each row [n, columns] from the wanted one, angles modulo a turn."""
    error = np.abs(rows - wanted)
    if task == 'ddd':
        error[:, [0, 11]] = np.abs((error[:, [0, 11]] + np.pi) % (2 * np.pi) - np.pi)
    return np.nanmax(error, 1, initial=0)


def make_dataset(root, task, *args):
    """The training split with an ideal trainer; `meta` is told as for validation."""
    side = ['--input_h', '128', '--input_w', '256'] if task == 'ddd' else ['--input_res', '256']
    words = [task, '--dataset', str(root), '--arch', 'res_18', '--gpus', '-1', '--pretrained', 'none', *side]
    words += ['--exp_dir', str(root / 'exp'), '--shift', '0.15', '--scale', '0.4', '--no_color_aug', *args]
    opt = opts().parse([*words, *(f'--eval_oracle_{head}' for head in ORACLES[task])])
    dataset_class = get_dataset(opt.dataset, opt.task)
    opts.update_dataset_info_and_set_heads(opt, dataset_class)
    opt.device, opt.debug = torch.device('cpu'), 1
    return dataset_class(opt, 'train'), train_factory[task](opt, torch.nn.Identity())


@pytest.mark.parametrize(('task', 'args'), VARIANTS)
def test_targets_decode_to_the_annotations(tmp_path, monkeypatch, task, args):
    """Boxes, joints, extreme points and 3D boxes come back, cut ones as far as they are seen, and nothing else."""
    scenes = write_scenes(tmp_path / 'own', task)
    dataset, trainer = make_dataset(tmp_path / 'own', task, *args)
    views, view_of = [], dataset.view
    monkeypatch.setattr(dataset, 'view', lambda rng, image: views.append(view_of(rng, image)) or views[-1])
    least = (
        8 if task == 'exdet' else 2
    )  # cells: [keep] exdet may look a cell beside the centre, where small ones are cold
    flips, whole = [], []
    for epoch in range(EPOCHS):
        dataset.set_epoch(epoch)
        for i, scene in enumerate(scenes):
            sample = dataset[i]
            batch = torch.utils.data.default_collate([sample])
            results = trainer.detect(trainer.loss.with_oracles({}, batch), batch)
            window = Window(views[-1], dataset.image_size(i)[0])
            flips.append(window.flipped)
            picture = (sample['input'] * dataset.std.reshape(3, 1, 1) + dataset.mean.reshape(3, 1, 1)) * 255
            shown = 0
            for number, each in enumerate(scene, start=1):
                wanted, seen, is_whole = wanted_row(task, each, window)
                extent = (seen[1] - seen[0]).min()
                shown += extent > 0
                if extent < least or (task == 'exdet' and in_first_cell(each, window)):
                    continue
                whole.append(is_whole)
                assert distances(task, results[each['category_id']], wanted).min() < 0.05, (epoch, i, number)
                x, y = (seen.mean(0) * 4).astype(int)
                np.testing.assert_allclose(picture[:, y, x], 50 * number, atol=1)
            score = -1 if task == 'ddd' else 4
            found = sum((rows[:, score] > 0.5).sum() for rows in results.values())
            assert task == 'exdet' or found == shown  # exdet: points of several objects can make up one more
    assert sum(whole) >= 5 and len(whole) - sum(whole) >= 5 and (task == 'ddd' or 0 < sum(flips) < len(flips))
