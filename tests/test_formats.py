"""Own data as other tools leave it: each format is known by its files, read as it is, trained on and tested."""

import json
import os
import pickle
import shutil

import cv2
import numpy as np
import pytest

from helpers import options
from lib.datasets import coco_file
from lib.datasets.dataset.formats import FORMATS, listing, open_folder
from lib.datasets.dataset.formats.yolo import Yolo
from lib.datasets.dataset_factory import get_dataset
from lib.datasets.splitting import choose_at_random
from lib.opts import opts
from lib.utils.errors import UserError

SIDE = 64
NAMES = ('cat', 'dog')
JOINTS = ('nose', 'left_ear', 'right_ear')
LONG_AGO = 1_000_000_000


class Scene:
    """An image of one object: its file name, class, and box x1 y1 x2 y2 in whole pixels that YOLO's parts can hold."""

    def __init__(self, number, suffix='.png'):
        self.stem, self.name = f'a {number} ü', f'a {number} ü{suffix}'
        self.cls = number % 2
        x, y = 4 + 4 * (number % 3), 8 + 4 * (number % 2)
        self.box = (x, y, x + 32, y + 24)

    @property
    def xywh(self):
        x1, y1, x2, y2 = self.box
        return [x1, y1, x2 - x1, y2 - y1]

    @property
    def joints(self):
        """x, y, v of three joints; the last is not annotated."""
        x, y = self.box[:2]
        return [x + 8, y + 8, 2, x + 16, y + 12, 1, 0, 0, 0]

    def draw(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        image = np.full((SIDE, SIDE, 3), 60, np.uint8)
        color = (30, 40, 220) if self.cls else (220, 40, 30)
        cv2.rectangle(image, self.box[:2], (self.box[2] - 1, self.box[3] - 1), color, -1)
        written, data = cv2.imencode('.png', image)
        assert written
        (folder / self.name).write_bytes(data.tobytes())


def scenes(count, first=0):
    return [Scene(number) for number in range(first, first + count)]


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding='utf-8')


def coco_of(members, joints=False, first_category=1, root=False, name=lambda scene: scene.name):
    """A COCO dict; with `root` Roboflow's category 0."""
    categories = [{'id': first_category + i, 'name': each, 'supercategory': 'animals'} for i, each in enumerate(NAMES)]
    if joints:
        categories = [{'id': 1, 'name': 'cat', 'keypoints': list(JOINTS), 'skeleton': [[1, 2], [1, 3]]}]
    if root:
        categories.insert(0, {'id': 0, 'name': 'animals', 'supercategory': 'none'})
    annotations = []
    for number, scene in enumerate(members):
        category = 1 if joints else first_category + scene.cls
        row = {'id': number + 1, 'image_id': number, 'category_id': category, 'bbox': scene.xywh, 'iscrowd': 0}
        row['area'] = row['bbox'][2] * row['bbox'][3]
        if joints:
            row |= {'keypoints': scene.joints, 'num_keypoints': 2}
        annotations.append(row)
    images = [{'id': i, 'file_name': name(scene), 'width': SIDE, 'height': SIDE} for i, scene in enumerate(members)]
    return {'images': images, 'annotations': annotations, 'categories': categories}


def yolo_line(scene, joints=0):
    """A label line; with `joints` 2 or 3 values each follow."""
    x, y, w, h = (value / SIDE for value in scene.xywh)
    numbers = [x + w / 2, y + h / 2, w, h]
    for at in range(0, 9, 3):
        px, py, v = scene.joints[at : at + 3]
        numbers += [px / SIDE, py / SIDE, v][:joints]
    return f'{0 if joints else scene.cls} {" ".join(map(str, numbers))}\n'


def voc_text(scene):
    """VOC's XML, whose pixels count from 1."""
    x1, y1, x2, y2 = (value + 1 for value in scene.box)
    return (
        f'<annotation><filename>{scene.name}</filename><size><width>{SIDE}</width><height>{SIDE}</height></size>'
        f'<object><name>{NAMES[scene.cls]}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax>'
        f'<ymax>{y2}</ymax></bndbox></object></annotation>'
    )


def labelme_of(scene, image_path=None, kind='rectangle'):
    """labelme's JSON, of a rectangle, polygon, circle or two parts of one object."""
    x1, y1, x2, y2 = scene.box
    shape = {'label': NAMES[scene.cls], 'group_id': None, 'shape_type': kind, 'points': [[x2, y2], [x1, y1]]}
    if kind == 'polygon':
        shape['points'] = [[x1, y1 + 3], [x1 + 9, y1], [x2, y1 + 7], [x1 + 3, y2]]
    return {
        'version': '5.4.1',
        'flags': {},
        'shapes': [shape],
        'imagePath': image_path or scene.name,
        'imageData': None,
        'imageWidth': SIDE,
        'imageHeight': SIDE,
    }


# ------------------------------------------------------------------------------------------- folders of each format


def make_one_coco(root):
    """One COCO file with an images folder, six images that nothing divides."""
    write(root / 'labels.json', coco_of(scenes(6)))
    for scene in scenes(6):
        scene.draw(root / 'images')


def make_roboflow(root):
    """Roboflow's COCO export: a folder a split, category 0 a root without objects."""
    for split, members in (('train', scenes(4)), ('valid', scenes(2, 4)), ('test', scenes(1, 6))):
        write(root / split / '_annotations.coco.json', coco_of(members, root=True))
        for scene in members:
            scene.draw(root / split)
    write(root / 'README.roboflow.txt', 'exported')


def make_cvat(root):
    """CVAT's COCO export of boxes; its images lie in a folder of the subset."""
    write(root / 'annotations/instances_default.json', coco_of(scenes(6)))
    for scene in scenes(6):
        scene.draw(root / 'images/default')


def make_cvat_joints(root):
    """CVAT's COCO export of joints, beside one of boxes."""
    make_cvat(root)
    write(root / 'annotations/person_keypoints_default.json', coco_of(scenes(6), joints=True))


YAML = 'train: images/train\nval: images/val\nnc: 2\nnames:\n  0: cat\n  1: dog\n'


def make_yolo(root, yaml=YAML, layout=('images/{}', 'labels/{}'), splits=('train', 'val'), joints=0):
    """A YOLO folder; the last training image has no label file: it is background."""
    images, labels = layout
    for split, members in zip(splits, (scenes(4), scenes(2, 4)), strict=True):
        for scene in members:
            scene.draw(root / images.format(split))
            write(root / labels.format(split) / f'{scene.stem}.txt', yolo_line(scene, joints))
    Scene(9).draw(root / images.format(splits[0]))
    write(root / 'data.yaml', yaml)


def make_roboflow_yolo(root):
    """Roboflow's YOLO export, whose data.yaml leads out of the folder, with a test folder that is not there."""
    yaml = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 2\nnames: ['cat', 'dog']\n"
    make_yolo(root, yaml, ('{}/images', '{}/labels'), ('train', 'valid'))


def make_yolo_pose(root):
    """A YOLO folder of poses."""
    yaml = f'kpt_shape: [3, 3]\nflip_idx: [0, 2, 1]\nkpt_names:\n  0: [{", ".join(JOINTS)}]\n'
    make_yolo(root, 'train: images/train\nval: images/val\nnames: [cat]\n' + yaml, joints=3)


def make_voc(root):
    """A VOC year with lists."""
    for scene in scenes(6):
        scene.draw(root / 'JPEGImages')
        write(root / 'Annotations' / f'{scene.stem}.xml', voc_text(scene))
    for split, members in (('train', scenes(4)), ('val', scenes(2, 4)), ('dog_train', scenes(1))):
        write(root / 'ImageSets/Main' / f'{split}.txt', ''.join(f'{scene.stem}\n' for scene in members))


def make_voc_undivided(root):
    """XML and images in one folder, as labelImg leaves them."""
    for scene in scenes(6):
        scene.draw(root)
        write(root / f'{scene.stem}.xml', voc_text(scene))


def make_labelme(root):
    """labelme's files beside their images, with a Windows path, a polygon, and an image that nobody has labelled."""
    for scene in scenes(6):
        scene.draw(root)
        path = f'..\\somewhere\\{scene.name}' if scene.stem == 'a 1 ü' else None
        write(root / f'{scene.stem}.json', labelme_of(scene, path, 'polygon' if scene.cls else 'rectangle'))
    Scene(9).draw(root)


MAKERS = {
    make_one_coco: ('ctdet', 'COCO', {'train': 5, 'val': 1}),
    make_roboflow: ('ctdet', "Roboflow's COCO", {'train': 4, 'val': 2, 'test': 1}),
    make_cvat: ('ctdet', 'COCO', {'train': 5, 'val': 1}),
    make_cvat_joints: ('multi_pose', 'COCO', {'train': 5, 'val': 1}),
    make_yolo: ('ctdet', 'YOLO', {'train': 5, 'val': 2}),
    make_roboflow_yolo: ('ctdet', 'YOLO', {'train': 5, 'val': 2}),
    make_yolo_pose: ('multi_pose', 'YOLO', {'train': 5, 'val': 2}),
    make_voc: ('ctdet', 'VOC', {'train': 4, 'val': 2}),
    make_voc_undivided: ('ctdet', 'VOC', {'train': 5, 'val': 1}),
    make_labelme: ('ctdet', 'labelme', {'train': 5, 'val': 1}),
}


@pytest.fixture
def data(tmp_path):
    """A folder with a space and a letter beyond ASCII in its name, made anew."""
    coco_file._reported.clear()
    return tmp_path / 'my dätä'


def known(dataset):
    """What a dataset knows of each image: `{file name: (classes, boxes)}`."""
    found = {}
    for i in range(len(dataset)):
        objects = dataset.index.objects(i)
        names = [dataset.class_names[cls] for cls in objects.classes]
        found[os.path.basename(dataset.index.name(i))] = (names, objects.boxes.tolist())
    return found


def expected(scene, task='ctdet'):
    return (['cat' if task == 'multi_pose' else NAMES[scene.cls]], [list(map(float, scene.box))])


@pytest.mark.parametrize('make', MAKERS)
def test_a_format_is_read(data, capsys, make):
    """Guards detection in one line, classes, boxes, splits, joints, and that readers survive a spawned process."""
    make(data)
    task, name, counts = MAKERS[make]
    opt, dataset_class = options(task, data)
    assert f'is read as {name} (' in capsys.readouterr().out
    all_names = set()
    for split, count in counts.items():
        dataset = pickle.loads(pickle.dumps(dataset_class(opt, split)))
        found = known(dataset)
        assert len(found) == count and not all_names & set(found)
        all_names |= set(found)
        for scene in scenes(9):
            if scene.name in found:
                assert found[scene.name] == expected(scene, task), scene.name
        assert np.isfinite(dataset[0]['input']).all() and dataset[0]['hm'].max() == 1
        assert 'Scene' not in name
    assert {scene.name for scene in scenes(6)} <= all_names
    if task == 'multi_pose':
        assert (dataset.num_joints, dataset.flip_idx) == (3, [[1, 2]])
        scene = next(each for each in scenes(9) if each.name == os.path.basename(dataset.index.name(0)))
        assert dataset.index.objects(0).fields['keypoints'].ravel().tolist() == scene.joints


@pytest.mark.parametrize('make', MAKERS)
def test_a_format_trains_and_tests(scripts, data, tmp_path, make):
    """Guards two epochs, a resume of the run and a test, by the programs as a user calls them, with no conversion."""
    make(data)
    before = {path: path.read_bytes() for path in data.rglob('*') if path.is_file()}
    task, _, counts = MAKERS[make]
    common = [task, '--dataset', str(data), '--gpus', '-1', '--num_workers', '0', '--exp_dir', str(tmp_path / 'exp')]
    network = ['--arch', 'res_18', '--head_conv', '0', '--input_res', str(SIDE), '--pretrained', 'none']
    scripts('main').main([*common, *network, '--batch_size', '2', '--num_epochs', '2', '--val_intervals', '2'])
    run = tmp_path / f'exp/{task}/default'
    scripts('test').main([*common, '--load_model', str(run / 'model_best.pth')])
    metrics = json.loads((run / 'metrics.json').read_text())
    assert 0 <= metrics['kp_AP' if task == 'multi_pose' else 'AP'] <= 1
    rows = json.loads((run / 'results.json').read_text())
    assert len({row['image_id'] for row in rows}) == counts['val']
    assert {path: path.read_bytes() for path in data.rglob('*') if path.is_file()} == before
    if make in (make_yolo, make_yolo_pose, make_roboflow_yolo, make_voc, make_voc_undivided, make_labelme):
        truth = json.loads((run / 'ground_truth.json').read_text())
        assert {row['image_id'] for row in rows} == {image['id'] for image in truth['images']}


def test_the_share_that_validates(data, scripts, tmp_path):
    """Guards --val_share: the same images always, few others when images are added, and test.py takes the run's."""
    names = [f'{number}.jpg' for number in range(100)]
    chosen = choose_at_random(names, 0.2, '--val_share')
    assert len(chosen) == 20 and chosen == choose_at_random(names[::-1], 0.2, '--val_share')
    grown = choose_at_random([*names, 'x.jpg', 'y.jpg', 'z.jpg'], 0.2, '--val_share')
    assert len(grown) == 21 and len(chosen & grown) >= 18
    copies = [f'{number}_jpg.rf.{copy}.jpg' for number in range(10) for copy in ('0a1', '9Zf', 'c00')]
    chosen = choose_at_random(copies, 0.3, '--val_share')
    assert len(chosen) == 9 and len({name.split('.')[0] for name in chosen}) == 3

    make_labelme(data)
    half = ['--val_share', '0.5']
    opt, dataset_class = options('ctdet', data, *half)
    assert len(dataset_class(opt, 'val')) == 3
    assert set(known(dataset_class(opt, 'val'))) == set(
        known(dataset_class(options('ctdet', data, *half, '--seed', '1')[0], 'val'))
    )
    opt.trainval = True
    assert len(dataset_class(opt, 'train')) == 6
    common = ['ctdet', '--dataset', str(data), '--gpus', '-1', '--num_workers', '0', '--exp_dir', str(tmp_path / 'exp')]
    network = ['--arch', 'res_18', '--head_conv', '0', '--input_res', str(SIDE), '--pretrained', 'none']
    scripts('main').main([*common, *network, '--batch_size', '2', '--num_epochs', '1', '--val_intervals', '0', *half])
    model = tmp_path / 'exp/ctdet/default/model_last.pth'
    assert opts().parse([*common, '--load_model', str(model)], program='test.py').val_share == 0.5
    with pytest.raises(UserError, match='--val_share 1.0: expected a number over 0 and under 1'):
        options('ctdet', data, '--val_share', '1')


def test_a_share_of_divided_data_is_noted(data, capsys):
    """Guards the note that --val_share does not act where the data say what validates, and only there."""
    make_voc(data)
    options('ctdet', data, '--val_share', '0.3')
    assert '--val_share does not act on data that are divided already' in capsys.readouterr().out
    shutil.rmtree(data / 'ImageSets')
    options('ctdet', data, '--val_share', '0.3')
    assert '--val_share' not in capsys.readouterr().out.replace('not divided: --val_share', '')


def test_exdet_says_what_to_do(data):
    """Guards the line of data without extreme points: the command for COCO's format, the reason for others."""
    make_one_coco(data)
    opt, dataset_class = options('exdet', data)
    with pytest.raises(UserError, match=r'gen_coco_extreme_points.py \S.*labels.json'):
        dataset_class(opt, 'train')
    shutil.rmtree(data)
    get_dataset.cache_clear()
    make_voc(data)
    opt, dataset_class = options('exdet', data)
    with pytest.raises(UserError, match='has extreme_points: they are made of segmentations, which COCO-format'):
        dataset_class(opt, 'train')


# ------------------------------------------------------------------------------------------- mixed, wrong and empty


def refusal(folder):
    get_dataset.cache_clear()
    with pytest.raises(UserError) as caught:
        options('ctdet', folder)
    message = str(caught.value)
    assert '\n' not in message and str(folder) in message
    return message


@pytest.mark.parametrize(
    ('makers', 'words'),
    [
        ((make_yolo, make_voc), ['YOLO (data.yaml)', 'VOC (Annotations/']),
        ((make_one_coco, make_roboflow), ['COCO (labels.json)', "Roboflow's COCO (test/_annotations.coco.json, "]),
        ((make_cvat, make_labelme), ['COCO (annotations/instances_default.json)', 'labelme (a 0 ü.json)']),
        ((make_voc_undivided, make_labelme), ['VOC (a 0 ü.xml)', 'labelme (a 0 ü.json)']),
    ],
)
def test_mixed_formats_are_refused(data, makers, words):
    """Guards that two formats in one folder are one line, which names the files of both."""
    for make in makers:
        make(data)
    message = refusal(data)
    assert 'several formats' in message and all(word in message for word in words), message


def test_unclear_folders_are_refused(data, tmp_path):
    """Guards wrong paths, empty folders, folders within, and several COCO files."""
    with pytest.raises(UserError, match='neither a built-in .* nor a folder'):
        options('ctdet', tmp_path / 'nowhere')
    data.mkdir()
    write(data.parent / 'data.yaml', YAML)
    with pytest.raises(UserError, match='is a file: give the folder that holds it'):
        options('ctdet', data.parent / 'data.yaml')
    assert 'found an empty folder' in refusal(data)
    write(data / 'notes.txt', 'x')
    Scene(0).draw(data / 'photos')
    message = refusal(data)
    assert 'found notes.txt, photos/' in message and all(each.layout in message for each in FORMATS)
    make_voc(data / 'inner')
    assert f'did you mean {data / "inner"}?' in refusal(data)
    make_labelme(data / 'other/labels')
    assert f'did you mean {data / "inner"} or {data / "other"}?' in refusal(data)  # and no mix of the two
    shutil.rmtree(data)
    make_one_coco(data)
    write(data / 'copy.json', coco_of(scenes(6)))
    message = refusal(data)
    assert 'several COCO files: copy.json, labels.json' in message
    os.rename(data / 'copy.json', data / 'my_val.json')
    os.rename(data / 'labels.json', data / 'my_train.json')
    get_dataset.cache_clear()
    opt, dataset_class = options('ctdet', data)
    assert [len(dataset_class(opt, split)) for split in ('train', 'val')] == [6, 6]


def test_own_layout_ignores_further_files(data):
    """Guards that other JSON files in `annotations`, as tools leave them there, do not make our layout unclear."""
    for split in ('train', 'val'):
        write(data / f'annotations/{split}.json', coco_of(scenes(2)))
        write(data / f'annotations/instances_{split}.json', coco_of(scenes(2)))
    for scene in scenes(2):
        scene.draw(data / 'images')
    opt, dataset_class = options('ctdet', data)
    assert dataset_class(opt, 'val').annotation_file == str(data / 'annotations/val.json')


def test_own_layout_with_one_file(data):
    """train.json alone is divided by --val_share, which is said; val.json alone is scored, and trains nothing."""
    write(data / 'annotations/train.json', coco_of(scenes(10)))
    for scene in scenes(10):
        scene.draw(data / 'images')
    opt, dataset_class = options('ctdet', data)
    parts = [set(dataset_class(opt, split).index.names.tolist()) for split in ('train', 'val')]
    assert list(map(len, parts)) == [8, 2] and not parts[0] & parts[1]
    assert dataset_class.source.format.description().endswith(
        'is read as COCO (train annotations/train.json; not divided: --val_share of the images validates)'
    )
    (data / 'annotations/val.json').symlink_to(data / 'not_mounted.json')  # meant, and not there: no other images
    get_dataset.cache_clear()
    opt, dataset_class = options('ctdet', data)
    with pytest.raises(UserError, match='val.json. is missing'):
        dataset_class(opt, 'val')
    os.rename(data / 'annotations/train.json', data / 'annotations/val.json')
    get_dataset.cache_clear()
    opt, dataset_class = options('ctdet', data)
    assert len(dataset_class(opt, 'val')) == 10
    with pytest.raises(UserError, match=r'has no images for train \(COCO: val annotations/val.json\)'):
        dataset_class(opt, 'train')


def test_roboflow_roots(data):
    """Guards that category 0 goes only where it has no object and stands above all others; valid may lack a split."""
    make_roboflow(data)
    assert get_dataset(str(data), 'ctdet').class_names == list(NAMES)
    content = coco_of(scenes(1, 6), root=True)
    content['annotations'][0]['category_id'] = 0
    write(data / 'test/_annotations.coco.json', content)
    get_dataset.cache_clear()
    assert get_dataset(str(data), 'ctdet').class_names == ['animals', *NAMES]
    opt, dataset_class = options('ctdet', data)
    assert [dataset_class.source.has(opt, split) for split in ('train', 'val')] == [True, True]
    shutil.move(data / 'train', data.parent / 'train')
    get_dataset.cache_clear()
    opt, dataset_class = options('ctdet', data)
    assert [dataset_class.source.has(opt, split) for split in ('train', 'val')] == [False, True]
    with pytest.raises(UserError, match='has no images for train .*val valid/_annotations.coco.json'):
        dataset_class(opt, 'train')
    shutil.move(data.parent / 'train', data / 'train')
    shutil.rmtree(data / 'valid')
    shutil.rmtree(data / 'test')
    get_dataset.cache_clear()
    opt, dataset_class = options('ctdet', data, '--val_share', '0.25')
    assert [len(dataset_class(opt, split)) for split in ('train', 'val', 'test')] == [3, 1, 1]


def test_coco_names_of_files(data):
    """Guards COCO's own names: a file a split, captions and the like passed over, images beside in train2017."""
    for split, members in (('train2017', scenes(4)), ('val2017', scenes(2, 4))):
        write(data / f'annotations/instances_{split}.json', coco_of(members))
        write(data / f'annotations/captions_{split}.json', coco_of(members))
        for scene in members:
            scene.draw(data / split)
    opt, dataset_class = options('ctdet', data)
    assert [len(dataset_class(opt, split)) for split in ('train', 'val')] == [4, 2]
    assert known(dataset_class(opt, 'val'))[Scene(4).name] == expected(Scene(4))


# ------------------------------------------------------------------------------------------------- hostile content


@pytest.mark.parametrize(
    ('paths', 'path'),
    [
        ('train: ../train/images\nval: ../valid/images', ''),
        ('train: C:\\Users\\me\\data\\train\\images\nval: D:/data/valid/images/', ''),
        ('train: /content/drive/set/train/images\nval: /content/drive/set/valid/images', 'path: /content/drive/set\n'),
        ('train: [train/images]\nval: [valid/images]', 'path: ../datasets/coco8\n'),
        ('train: ./train/images\nval: ./valid', 'path: .\n'),
        ('train: nowhere\nval: nowhere', ''),
        ('', ''),
    ],
)
@pytest.mark.parametrize('names', ['[cat, dog]', '{0: cat, 1: dog}'])
def test_data_yaml_that_leads_astray(data, paths, path, names):
    """Guards data.yaml as other machines wrote it: the folders beside it are found all the same."""
    make_yolo(data, f'{path}{paths}\nnames: {names}\n', ('{}/images', '{}/labels'), ('train', 'valid'))
    opt, dataset_class = options('ctdet', data)
    assert [len(dataset_class(opt, split)) for split in ('train', 'val')] == [5, 2]
    assert known(dataset_class(opt, 'val'))[Scene(5).name] == expected(Scene(5))


def test_data_yaml_that_leads_elsewhere(data, tmp_path):
    """Guards images outside the folder, a list of folders, lists of images, and a `val` that is not there."""
    make_yolo(tmp_path / 'other', layout=('{}/images', '{}/labels'))
    places = [tmp_path / 'other/train/images', '../other/val/images']
    write(data / 'data.yaml', f'train:\n- "{places[0]}"\n- {places[1]}\nval: ../gone/images\nnames: [cat, dog]\n')
    opt, dataset_class = options('ctdet', data, '--val_share', '0.4')
    train, val = (dataset_class(opt, split) for split in ('train', 'val'))
    assert (len(train), len(val)) == (4, 3)
    assert all(os.path.isfile(train.image_path(i)) for i in range(4)) and train[0]['hm'].max() <= 1
    found = known(train) | known(val)
    assert all(found[scene.name] == expected(scene) for scene in scenes(6))

    lists = {'train': scenes(4), 'val': scenes(2, 4)}
    for split, members in lists.items():
        lines = [f'./{split}/images/{scene.name}' for scene in members] + ['./train/images/gone.png']
        write(tmp_path / f'other/{split}.txt', '\n'.join(lines))
    write(tmp_path / 'other/data.yaml', 'train: train.txt\nval: val.txt\nnames: [cat, dog]\n')
    opt, dataset_class = options('ctdet', tmp_path / 'other')
    assert [len(dataset_class(opt, split)) for split in ('train', 'val')] == [4, 2]


@pytest.mark.parametrize(
    ('yaml', 'words'),
    [
        ('names: [cat', 'is not YAML'),
        ('train: images/train\n', 'no class names'),
        ('names: 5', "'names' to be a list or a mapping"),
        ('names: [cat, dog]\nkpt_shape: [3, 3]\nflip_idx: [0, 1, 1]', "'flip_idx' to swap pairs"),
        ('names: [cat, dog]\nkpt_shape: [3, 3]\nkpt_names: [a]', "'kpt_names' to list the 3 joints"),
    ],
)
def test_broken_data_yaml(data, yaml, words):
    """Guards that each is one line that names the file."""
    make_yolo(data)
    write(data / 'data.yaml', yaml)
    assert words in refusal(data)


def test_joints_without_an_order_are_noted(data, capsys):
    """Guards the note that mirrored images do not swap joints, and joints of two values, where 0, 0 is no joint."""
    make_yolo(data, 'names: [cat]\nkpt_shape: [3, 2]\n', joints=2)
    opt, dataset_class = options('multi_pose', data)
    dataset, _ = (dataset_class(opt, split) for split in ('train', 'val'))
    assert capsys.readouterr().out.count('has no flip_idx') == 1 and dataset.flip_idx == []
    joints = np.array(dataset.index.objects(0).fields['keypoints'])[0]
    assert joints[:, 2].tolist() == [2, 2, 0] and joints[:2, 0].tolist() == [Scene(0).joints[0], Scene(0).joints[3]]


def test_bad_files_are_counted(data, capsys):
    """Guards labels without images, images that are gone or broken, and lines that say nothing, in every format."""
    make_yolo(data / 'yolo')
    write(data / 'yolo/labels/train/stray.txt', '0 .5 .5 .1 .1\n')
    write(data / f'yolo/labels/train/{Scene(0).stem}.txt', yolo_line(Scene(0)) + '0 50 50 3 3\n7 .5 .5 .1 .1\n')
    (data / f'yolo/images/train/{Scene(1).name}').write_bytes(b'not an image')
    (data / 'yolo/images/val/loop.png').symlink_to('loop.png')
    make_voc(data / 'voc')
    (data / f'voc/JPEGImages/{Scene(2).name}').unlink()
    write(data / f'voc/Annotations/{Scene(3).stem}.xml', '<annotation><object>')
    make_labelme(data / 'labelme')
    (data / 'labelme' / Scene(0).name).unlink()
    write(data / f'labelme/{Scene(1).stem}.json', '{"shapes": [')
    point = labelme_of(Scene(2))
    point['shapes'].append({'label': 'cat', 'shape_type': 'point', 'points': [[3, 3]]})
    write(data / f'labelme/{Scene(2).stem}.json', point)
    for name, train, words in (
        ('yolo', 4, ['stray.txt', 'not in parts of the image', 'class 7 that has no name', 'unreadable or cut short']),
        ('voc', 2, ['without an image', 'broken', f'train.txt): {Scene(2).stem}']),
        ('labelme', 3, ['without their image', 'broken', 'points that span a box']),
    ):
        opt, dataset_class = options('ctdet', data / name)
        capsys.readouterr()
        dataset = dataset_class(opt, 'train')
        said = capsys.readouterr().out
        assert len(dataset) == train and all(word in said for word in words), said
        val = dataset_class(opt, 'val')
        repeated = set(said.splitlines()) & set(capsys.readouterr().out.splitlines())
        assert len(val) and not repeated


def test_nothing_that_can_be_used(data):
    """Guards one line where no label can be understood, with what was expected and what was found."""
    make_yolo(data)
    for path in (data / 'labels').rglob('*.txt'):
        path.write_text('0 300 200 40 20\n')
    opt, dataset_class = options('ctdet', data)
    with pytest.raises(UserError, match="none of its 4 lines can be used; expected `class cx cy w h` .* '0 300 200"):
        dataset_class(opt, 'train')


def test_shapes_of_labelme(data):
    """Guards circles (a centre and a point of the edge), masks' corners, and groups that make one object."""
    scene = Scene(0)
    content = labelme_of(scene)
    content['shapes'] = [
        {'label': 'ball', 'shape_type': 'circle', 'points': [[30, 30], [33, 34]]},
        {'label': 'cat', 'shape_type': 'polygon', 'group_id': 1, 'points': [[1, 1], [9, 2], [5, 8]]},
        {'label': 'cat', 'shape_type': 'polygon', 'group_id': 1, 'points': [[20, 20], [30, 22], [25, 28]]},
        {'label': 'cat', 'shape_type': 'mask', 'points': [[40, 41], [50, 52]], 'mask': 'iVBOR'},
    ]
    for number in range(2):
        Scene(number).draw(data)
        write(data / f'{number}.json', content | {'imagePath': Scene(number).name})
    opt, dataset_class = options('ctdet', data)
    (found,) = known(dataset_class(opt, 'val')).values()
    boxes = [[25, 25, 35, 35], [1, 1, 30, 28], [40, 41, 50, 52]]
    assert sorted(zip(*found, strict=True)) == sorted(zip(['ball', 'cat', 'cat'], boxes, strict=True))


def test_changes_of_label_files_are_noticed(data):
    """Guards the remembered index: kept while all files stay, made anew when a label or an image comes or changes."""
    make_yolo(data)
    for path in data.rglob('*'):
        os.utime(path, (LONG_AGO, LONG_AGO))
    opt, dataset_class = options('ctdet', data)
    annotations = dataset_class(opt, 'train').annotations
    version = annotations.version()
    assert version and open_folder(data).parts()['train'].version() == version
    parsed = []
    real = type(annotations).parse
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(annotations), 'parse', lambda self: parsed.append(self) or real(self))
        assert known(dataset_class(opt, 'train'))[Scene(0).name] == expected(Scene(0)) and not parsed
        label = data / f'labels/train/{Scene(9).stem}.txt'
        write(label, yolo_line(Scene(1)))
        os.utime(label, (LONG_AGO, LONG_AGO))
        get_dataset.cache_clear()  # as a new start
        opt, dataset_class = options('ctdet', data)
        assert known(dataset_class(opt, 'train'))[Scene(9).name] == expected(Scene(1)) and len(parsed) == 1


def test_a_folder_is_listed_once_until_it_changes(data, monkeypatch):
    """Guards the start on large folders: three detections list the folder once, and a new label file is still seen."""
    make_yolo(data)
    for path in (data, *data.rglob('*')):
        os.utime(path, (LONG_AGO, LONG_AGO))
    listed = []
    real = listing.list_folder
    monkeypatch.setattr(listing, 'list_folder', lambda folder: listed.append(folder) or real(folder))
    for _ in range(3):
        assert isinstance(open_folder(data), Yolo)
    assert len(listed) == 1
    extra = data / 'images/scene.xml'
    write(extra, voc_text(Scene(0)))
    with pytest.raises(UserError, match='several formats'):
        open_folder(data)
    extra.unlink()  # at once: too soon for the folder's time to tell the two states apart
    assert isinstance(open_folder(data), Yolo)


def test_a_listing_of_a_folder_that_just_changed_is_not_kept(data, monkeypatch):
    """Guards against a change within the resolution of a folder's time; a folder that may not be read shows nothing."""
    make_yolo(data)
    seen = listing.list_folder(data)
    changed = max(seen.times.values()) / 1e9
    for taken, current in ((changed, False), (changed + listing.SETTLED / 2, False), (changed + 1, True)):
        seen.taken = taken
        assert seen.is_current() == current
    real, closed = os.scandir, data / 'lost+found'
    closed.mkdir()

    def scandir(place):
        if place == closed:
            raise PermissionError(13, 'Permission denied', str(place))
        return real(place)

    monkeypatch.setattr(os, 'scandir', scandir)
    assert listing.list_folder(data).levels and isinstance(open_folder(data), Yolo)
