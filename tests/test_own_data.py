"""Own data with joints of its own: any number of them is learnt, scored and drawn by the programs, without code."""

import json
import shutil

import cv2
import numpy as np
import pytest

from conftest import run_program
from lib.datasets.dataset_factory import get_dataset
from lib.datasets.evaluation.coco_eval import KEYPOINT_METRICS
from lib.opts import opts
from lib.utils.drawing import JOINT_SCORE, rainbow

SIDE, VAL = 64, 3
NAMES = {
    5: ['head', 'left_hand', 'right_hand', 'left_foot', 'right_foot'],
    21: [f'{side}_{finger}' for side in ('left', 'right') for finger in range(10)] + ['palm'],
}
PLAIN = ['--flip', '0', '--not_rand_crop', '--shift', '0', '--scale', '0', '--no_color_aug']


def draw_kite(number, joints):
    """An image of a kite with a dot at each joint, and its annotation."""
    rng = np.random.default_rng(number)
    corner, size = rng.uniform(2, 16, 2), rng.uniform(36, 44, 2)
    turn = np.arange(joints) * 2 * np.pi / joints + rng.uniform(-0.3, 0.3)
    places = corner + size / 2 + 0.43 * size * np.stack([np.cos(turn), np.sin(turn)], 1)  # [J, 2]
    image = np.full((SIDE, SIDE, 3), 40, np.uint8)
    cv2.rectangle(image, corner.astype(int), (corner + size).astype(int), (110, 110, 110), -1)
    for joint, place in enumerate(places):
        color = [130 if joint + 1 >> bit & 1 else 0 for bit in range(3)]
        cv2.circle(image, place.round().astype(int), 3, color, -1)
    keypoints = np.column_stack([places, np.full(joints, 2)]).ravel().tolist()
    return image, {'bbox': [*corner, *size], 'area': float(size.prod()), 'iscrowd': 0, 'keypoints': keypoints}


def write_folder(root, joints, train, **facts):
    """Own data of `train` images, of which the first VAL are shown again to validate."""
    (root / 'annotations').mkdir(parents=True)
    skeleton = [[1, joint] for joint in range(2, joints + 1)]
    category = {'id': 3, 'name': 'kite', 'keypoints': NAMES[joints], 'skeleton': skeleton, **facts}
    for split, count in (('train', train), ('val', VAL)):
        (root / 'images' / split).mkdir(parents=True)
        images, annotations = [], []
        for number in range(count):
            image, annotation = draw_kite(number % VAL, joints)
            name = f'{split}/{number}.png'
            assert cv2.imwrite(str(root / 'images' / name), image)
            images.append({'id': number, 'file_name': name, 'width': SIDE, 'height': SIDE})
            annotations.append({'id': number + 1, 'image_id': number, 'category_id': 3, **annotation})
        coco = {'images': images, 'annotations': annotations, 'categories': [category]}
        (root / f'annotations/{split}.json').write_text(json.dumps(coco))
    return root


def run_programs(scripts, data, exp_dir, *training):
    """main.py, test.py and demo.py one after another; the folder of the run."""
    common = ['multi_pose', '--gpus', '-1', '--exp_dir', str(exp_dir), '--num_workers', '0']
    network = ['--arch', 'res_18', '--head_conv', '0', '--input_res', str(SIDE), '--pretrained', 'none']
    training = [*network, '--batch_size', '3', '--lr', '1e-3', '--num_epochs', '1', '--val_intervals', '0', *training]
    scripts('main').main([*common, *training, '--dataset', str(data)])
    run = exp_dir / 'multi_pose/default'
    model = ['--load_model', str(run / 'model_last.pth')]
    scripts('test').main([*common, *model, '--dataset', str(data)])
    images = exp_dir / 'pictures'  # away from the data: the checkpoint holds joints and limbs
    shutil.copytree(data / 'images/val', images)
    scripts('demo').main([*common, *model, '--demo', str(images), '--no_display', '--vis_thresh', '0.2'])
    return run


def colored(image, place, color):
    """Return whether an image has that colour, more or less, at a place or beside it."""
    x, y = np.round(place).astype(int)
    near = image[y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3).astype(int)
    return (np.abs(near - color) < 40).all(1).any()


def test_five_joints_are_learnt_scored_and_drawn(scripts, tmp_path):
    """Folder -> main.py -> test.py -> demo.py: the joints are found, each with a score, and drawn with their limbs."""
    data = write_folder(tmp_path / 'own', 5, train=120)
    run = run_programs(scripts, data, tmp_path / 'exp', *PLAIN)
    metrics = json.loads((run / 'metrics.json').read_text())
    assert metrics['kp_AP'] > 0.5 and set(KEYPOINT_METRICS) < set(metrics)
    entries = json.loads((run / 'demo/results.json').read_text())
    assert [entry['image'] for entry in entries] == [f'{number}.png' for number in range(VAL)]
    drawn = []
    for entry in entries:
        best = entry['detections'][0]
        found, scores = np.array(best['keypoints']), np.array(best['keypoint_scores'])
        assert found.shape == (5, 2) and scores.shape == (5,)
        image = cv2.imread(str(run / 'demo' / entry['image']))
        found *= image.shape[0] / SIDE
        for joint, color in enumerate(rainbow(5)):
            if scores[joint] > JOINT_SCORE:  # others are rings
                drawn.append(colored(image, found[joint], color))
            if joint > 0:
                drawn.append(colored(image, 0.6 * found[0] + 0.4 * found[joint], color))
    assert len(drawn) > 18 and np.mean(drawn) > 0.9


def own_folder(root, joints):
    return write_folder(root, joints, train=4)


def toy_folder(root, joints):
    small = ['--task', 'multi_pose', '--train', 4, '--val', VAL, '--size', SIDE]
    done = run_program('tools/make_toy_data.py', root, *small, '--joints', joints)
    assert done.returncode == 0, done.stderr
    return root


@pytest.mark.parametrize(('make', 'joints'), [(toy_folder, 5), (own_folder, 21)])
def test_every_number_of_joints_goes_through_the_programs(scripts, tmp_path, make, joints):
    """Toy people with 5 joints and hands with 21, augmented in all ways: each row has its joints and their scores."""
    data = make(tmp_path / 'own', joints)
    augmented = ['--flip', '0.5', '--aug_rot', '0.5', '--rotate', '30']
    run = run_programs(scripts, data, tmp_path / 'exp', '--num_iters', '1', *augmented)
    assert set(KEYPOINT_METRICS) < set(json.loads((run / 'metrics.json').read_text()))
    rows = json.loads((run / 'results.json').read_text())
    assert len(rows) == 100 * VAL and all(len(row['keypoints']) == 3 * joints for row in rows)
    entries = json.loads((run / 'demo/results.json').read_text())
    detections = [each for entry in entries for each in entry['detections']]
    assert len(entries) == VAL and len(detections) == 100 * VAL
    assert all(len(each['keypoints']) == len(each['keypoint_scores']) == joints for each in detections)
    assert sum(path.suffix in ('.png', '.jpg') for path in (run / 'demo').iterdir()) == VAL


@pytest.mark.parametrize('joints', NAMES)
@pytest.mark.parametrize('sigma', [None, 0.05])
def test_tolerances_are_the_files(tmp_path, joints, sigma):
    """Joints as far off as gives OKS 0.77 pass 6 of COCO's 10 thresholds; sigmas are the category's, else 1/J each."""
    facts = {} if sigma is None else {'sigmas': [sigma] * joints}
    data = write_folder(tmp_path / 'own', joints, train=1, **facts)
    opt = opts().parse(['multi_pose', '--dataset', str(data), '--arch', 'res_18', '--gpus', '-1'])
    dataset_class = get_dataset(opt.dataset, opt.task)
    dataset = dataset_class(opts.update_dataset_info_and_set_heads(opt, dataset_class), 'val')
    results = {}
    for number in range(VAL):
        truth = draw_kite(number, joints)[1]
        x, y, w, h = truth['bbox']
        distance = 2 * (sigma or 1 / joints) * np.sqrt(-2 * truth['area'] * np.log(0.77))
        places = np.reshape(truth['keypoints'], (joints, 3))[:, :2] + [distance, 0]
        results[number] = {1: np.array([[x, y, x + w, y + h, 0.9, *places.ravel()]])}
    assert dataset.run_eval(results, str(tmp_path))['kp_AP'] == pytest.approx(0.6)
