"""The pre-flight check, the packed index, own data, and samples that cannot be read."""

import json
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from lib.datasets import image_headers, test_images
from lib.datasets.dataset_factory import get_dataset
from lib.datasets.image_headers import DAMAGED, MISSING, OK, read_headers
from lib.datasets.loaders import EpochSampler
from lib.detectors.base_detector import read_given
from lib.opts import opts
from lib.utils.errors import UserError


def write_image(path, width=64, height=48):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8))


def folder(root, images=None, annotations=None, categories=None, splits=('train', 'val')) -> str:
    """Own data of two 64 x 48 images with one box each, or those given."""
    categories = categories or [{'id': 7, 'name': 'cat'}, {'id': 90, 'name': 'dog'}]
    if images is None:
        images = [{'id': i, 'file_name': f'{i}.jpg', 'width': 64, 'height': 48} for i in (3, 5)]
    if annotations is None:
        annotations = [
            {'id': 1, 'image_id': 3, 'category_id': 7, 'bbox': [10, 10, 20, 16]},
            {'id': 2, 'image_id': 5, 'category_id': 90, 'bbox': [30, 8, 24, 30]},
        ]
    for image in images:
        if isinstance(image, dict) and 'file_name' in image and not (root / 'images' / image['file_name']).exists():
            write_image(root / 'images' / image['file_name'])
    (root / 'images').mkdir(parents=True, exist_ok=True)
    (root / 'annotations').mkdir(exist_ok=True)
    for split in splits:
        content = {'images': images, 'annotations': annotations, 'categories': categories}
        (root / 'annotations' / f'{split}.json').write_text(json.dumps(content))
    return str(root)


def build(path, split='val', *args):
    get_dataset.cache_clear()
    opt = opts().parse(['ctdet', '--dataset', path, '--input_res', '64', '--gpus', '-1', *args])
    Dataset = get_dataset(opt.dataset, opt.task)
    return Dataset(opts.update_dataset_info_and_set_heads(opt, Dataset), split)


def test_own_data_needs_no_code(tmp_path):
    """Classes, names and ids (with gaps) come from the file."""
    dataset = build(folder(tmp_path))
    assert dataset.class_names == ['cat', 'dog'] and dataset.cat_ids == {7: 0, 90: 1}
    assert dataset.num_classes == dataset.opt.heads['hm'] == 2 and dataset.max_objs == 32
    assert [dataset[i]['hm'].max((1, 2)).tolist() for i in (0, 1)] == [[1, 0], [0, 1]]
    assert [dataset[i]['meta']['img_id'] for i in (0, 1)] == [3, 5]


def test_number_of_classes_is_a_fact_of_the_class():
    """The interface lists `num_classes` of a dataset's class: it is the number of its names, built-in or not."""
    numbers = {('coco', 'ctdet'): 80, ('pascal', 'ctdet'): 20, ('kitti', 'ddd'): 3, ('coco_hp', 'multi_pose'): 1}
    assert {names: get_dataset(*names).num_classes for names in numbers} == numbers


BROKEN_BOXES = {
    'empty or negative': [[10, 10, 0, 5], [10, 10, -4, 5]],
    'missing or not finite': [[10, 10, float('nan'), 5], None, [1, 2, 3], 'box'],
    'wholly outside': [[64, 10, 5, 5], [-9, 10, 9, 5]],
}


@pytest.mark.parametrize(('kind', 'box'), [(k, box) for k, boxes in BROKEN_BOXES.items() for box in boxes])
def test_broken_boxes_are_named_and_left_out(tmp_path, capsys, kind, box):
    """A broken box loses its target but keeps its slot; the others are trained on; its id is named."""
    good = {'id': 1, 'image_id': 3, 'category_id': 7, 'bbox': [10, 10, 20, 16]}
    bad = {'id': 77, 'image_id': 3, 'category_id': 7, 'bbox': box}
    dataset = build(folder(tmp_path, annotations=[bad, good]))
    said = capsys.readouterr().out
    assert kind in said and '77' in said and ' 1 boxes' in said
    assert dataset[0]['reg_mask'].tolist() == [0, 1] + [0] * 30
    assert [a['id'] for a in dataset.ground_truth()['annotations']] == [1]


def test_boxes_partly_outside_are_clipped(tmp_path, capsys):
    """They stay, cut at the border of the map."""
    box = {'id': 1, 'image_id': 3, 'category_id': 7, 'bbox': [-10, -10, 40, 40]}
    dataset = build(folder(tmp_path, annotations=[box]))
    assert 'left out' not in capsys.readouterr().out
    x1, y1, x2, y2 = dataset[0]['meta']['gt_det'][0, :4]
    assert (x1, y2) == (0, 9.5) and y1 >= 0 and x2 == 7.5


def test_unknown_and_doubled_ids(tmp_path, capsys):
    """Unknown images and categories are counted and left out; annotation ids that come twice are names, no more."""
    row = {'id': 1, 'image_id': 3, 'category_id': 7, 'bbox': [10, 10, 20, 16]}
    rows = [row, {**row}, {**row, 'id': 2, 'image_id': 99}, {**row, 'id': 3, 'category_id': 8}, {**row, 'id': [4]}]
    rows.append({**row, 'id': 5, 'category_id': [7]})
    dataset = build(folder(tmp_path, annotations=rows))
    said = capsys.readouterr().out
    assert 'unknown image' in said and 'unknown category 8' in said and 'category_id is no integer' in said
    assert len(dataset.index.boxes) == 3


def test_images_without_objects_stay(tmp_path):
    """Background images are trained on: an empty heatmap and a zero row of truth."""
    dataset = build(folder(tmp_path, annotations=[]))
    sample = dataset[0]
    assert len(dataset) == 2 and sample['hm'].max() == 0 and sample['reg_mask'].sum() == 0
    assert sample['meta']['gt_det'].tolist() == [[0] * 6]


def test_broken_images_are_named_and_left_out(tmp_path, capsys):
    """Missing, cut short and unreadable images, and entries that name none."""
    images = [{'id': i, 'file_name': f'{i}.jpg', 'width': 64, 'height': 48} for i in range(5)]
    path = folder(tmp_path, images=[*images, {'id': True}, {'id': 'x'}, {**images[0]}], annotations=[])
    (tmp_path / 'images/1.jpg').unlink()
    whole = (tmp_path / 'images/2.jpg').read_bytes()
    (tmp_path / 'images/2.jpg').write_bytes(whole[: len(whole) // 2])
    (tmp_path / 'images/3.jpg').write_text('not a picture')
    dataset = build(path)
    said = capsys.readouterr().out
    assert dataset.index.image_ids.tolist() == [0, 4]
    assert '1 images left out, missing: 1.jpg' in said
    assert '2 images left out, unreadable or cut short: 2.jpg, 3.jpg' in said
    assert 'without an integer id' in said and 'without a file_name' in said and 'another has: 0' in said


@pytest.mark.parametrize(
    ('make', 'words'),
    [
        (lambda r: shutil.rmtree(r / 'images'), ['images', 'missing']),
        (lambda r: (r / 'annotations/val.json').write_text('{'), ['val.json', 'not JSON']),
        (lambda r: (r / 'annotations/val.json').write_text(''), ['val.json', 'not JSON']),
        (lambda r: (r / 'annotations/val.json').write_text('[]'), ['val.json', 'not COCO']),
        (lambda r: (r / 'annotations/val.json').write_text('{"images": [], "annotations": 3}'), ['not COCO']),
        (lambda r: (r / 'annotations/val.json').write_text('{"images": [], "annotations": []}'), ['lists no images']),
        (lambda r: [p.unlink() for p in (r / 'images').iterdir()], ['no usable image']),
    ],
)
def test_datasets_that_cannot_be_used(tmp_path, make, words):
    """Nothing to go on with: one line that names the file."""
    path = folder(tmp_path)
    make(tmp_path)
    with pytest.raises(UserError) as caught:
        build(path)
    assert '\n' not in str(caught.value) and all(word in str(caught.value) for word in words)


def test_training_needs_an_object(tmp_path):
    """A file without annotations cannot be learnt from; as validation or test data it is what it is."""
    path = folder(tmp_path, annotations=[])
    assert len(build(path, 'val')) == 2
    with pytest.raises(UserError, match=r"train.json' has no object to learn.*\(cat, dog\)"):
        build(path, 'train')


def test_nothing_but_unusable_objects_is_refused(tmp_path):
    """A file whose objects are all of unknown categories is a mistake, not background."""
    row = {'id': 1, 'image_id': 3, 'category_id': 55, 'bbox': [1, 1, 5, 5]}
    with pytest.raises(UserError, match='no usable object'):
        build(folder(tmp_path, annotations=[row]))


def test_folder_without_annotations(tmp_path):
    """A folder that is no dataset says what belongs into it."""
    with pytest.raises(UserError, match='annotations.*train.json'):
        opts().parse(['ctdet', '--dataset', str(tmp_path)])


def test_odd_images_become_inputs(tmp_path):
    """Grey, alpha, 16 bit and 1 x 1 images are read like any other."""
    written = {
        'gray.png': np.full((48, 64), 128, np.uint8),
        'alpha.png': np.full((48, 64, 4), 128, np.uint8),
        'deep.png': np.full((48, 64, 3), 128 * 257, np.uint16),
        'dot.png': np.full((1, 1, 3), 128, np.uint8),
    }
    (tmp_path / 'images').mkdir()
    images = []
    for i, (name, image) in enumerate(written.items()):
        cv2.imwrite(str(tmp_path / 'images' / name), image)
        images.append({'id': i, 'file_name': name, 'width': image.shape[1], 'height': image.shape[0]})
    for split in ('train', 'val'):
        box = {'id': 1, 'image_id': 0, 'category_id': 7, 'bbox': [4, 4, 9, 9]}
        dataset = build(folder(tmp_path, images=images, annotations=[box]), split)
        inputs = [dataset[i]['input'] for i in range(4)]
        assert all(x.shape == (3, 64, 64) and np.isfinite(x).all() for x in inputs)
    centers = np.array([x[:, 32, 32] for x in inputs[:3]])
    np.testing.assert_allclose(centers, centers[:1].repeat(3, 0), atol=0.02)


def test_image_that_breaks_later_is_skipped(tmp_path, capsys):
    """An image damaged after the check is named once and replaced by the next one."""
    dataset = build(folder(tmp_path))
    (tmp_path / 'images/3.jpg').write_text('gone bad')
    for _ in range(2):
        assert dataset[0]['meta']['img_id'] == 5
    assert capsys.readouterr().out.count('skipped') == 1
    (tmp_path / 'images/5.jpg').unlink()
    with pytest.raises(UserError, match='none of the images'):
        dataset[0]


def test_exif_orientation_follows_the_json(tmp_path):
    """The image is turned when the JSON's size says that its boxes were drawn so, and only then."""
    from PIL import Image

    (tmp_path / 'images').mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (64, 48), 'red').save(tmp_path / 'images/a.jpg', exif=exif)
    for size in ((64, 48), (48, 64)):
        images = [{'id': 1, 'file_name': 'a.jpg', 'width': size[0], 'height': size[1]}]
        dataset = build(folder(tmp_path, images=images, annotations=[]))
        assert dataset.image_size(0) == size
        assert dataset[0]['meta']['c'].tolist() == [size[0] / 2, size[1] / 2]


def big_photo(tmp_path, width=800, height=600):
    """Own data of one smooth JPEG, several times as large as the network's input."""
    (tmp_path / 'images').mkdir()
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    gray = 127 + 60 * np.sin(x / 20) + 60 * np.cos(y / 20 + x / 50)
    pixels = cv2.merge([gray.astype(np.uint8), 255 - gray.astype(np.uint8), (gray / 2).astype(np.uint8)])
    cv2.imwrite(str(tmp_path / 'images/big.jpg'), pixels, [cv2.IMWRITE_JPEG_QUALITY, 98])
    image = {'id': 1, 'file_name': 'big.jpg', 'width': width, 'height': height}
    box = {'id': 1, 'image_id': 1, 'category_id': 7, 'bbox': [100, 100, 400, 300]}
    return folder(tmp_path, images=[image], annotations=[box])


@pytest.mark.parametrize('size', [(800, 600), (803, 597)])
def test_large_photos_are_decoded_smaller_in_training_alone(tmp_path, monkeypatch, size):
    """Cut, mirrored and rotated as the image in full is, and validation reads it in full."""
    from lib.datasets.sample import base

    path = big_photo(tmp_path, *size)
    read, reductions = base.read_image, []

    def spy(path, size, reduction, max_pixels):
        reductions.append(reduction)
        return read(path, size, reduction, max_pixels)

    monkeypatch.setattr(base, 'read_image', spy)
    data = build(path, 'train', '--input_res', '160', '--no_color_aug')
    views = []
    for epoch in range(12):
        data.set_epoch(epoch)
        _, _, view, window = data.look(0)
        if epoch % 3 == 0:  # ctdet never rotates
            view = base.View(view.c, view.s, view.input_size, view.output_size, view.width, view.flipped, rot=30)
            window = data.window(0, view)
        views.append(view)
        whole = read(data.image_path(0), size)
        if view.flipped:
            whole = whole[:, ::-1]
        full = cv2.warpAffine(whole, view.to_input, view.input_size, flags=cv2.INTER_LINEAR)
        inside = cv2.warpAffine(np.ones(whole.shape[:2], np.uint8), view.to_input, view.input_size)
        inside = cv2.erode(inside, np.ones((3, 3)), borderValue=0) > 0
        assert np.abs(window.astype(int) - full)[inside].mean() < 1  # level; 1.7 if one pixel of the photo off
    assert set(reductions) == {2, 4}
    assert {view.flipped for view in views} == {False, True}
    reductions.clear()
    build(path, 'val', '--input_res', '160')[0]
    assert reductions == [1]


def test_image_of_another_size_than_checked_is_skipped(tmp_path, capsys):
    """A file that was replaced no longer fits its boxes; it is named, and the next one taken."""
    dataset = build(folder(tmp_path))
    write_image(tmp_path / 'images/3.jpg', 80, 60)
    assert dataset[0]['meta']['img_id'] == 5
    assert "3.jpg' is not of 64 x 48 pixels any more" in capsys.readouterr().out


def test_tiff_orientation(tmp_path):
    """Pillow gives the size of a turned TIFF as it is shown, unlike a JPEG's; the index has cv2's."""
    from PIL import Image

    (tmp_path / 'images').mkdir()
    Image.new('RGB', (64, 48), 'red').save(tmp_path / 'images/a.tif', tiffinfo={0x0112: 6})
    images = [{'id': 1, 'file_name': 'a.tif', 'width': 48, 'height': 64}]
    dataset = build(folder(tmp_path, images=images, annotations=[]))
    assert dataset.image_size(0) == (48, 64)
    assert dataset[0]['meta']['c'].tolist() == [24, 32]


def test_headers_are_remembered(tmp_path, monkeypatch):
    """Unchanged files are not opened again; changed ones are."""
    from lib.datasets import image_headers

    write_image(tmp_path / 'a.png')
    write_image(tmp_path / 'sub' / 'b.png', 20, 10)
    names = ['a.png', 'sub/b.png', 'c.png']
    first = read_headers(str(tmp_path), names)
    assert [h.state for h in first] == [OK, OK, MISSING] and first[1].size == (20, 10)
    opened = []
    real = image_headers.read_header
    monkeypatch.setattr(image_headers, 'read_header', lambda path: opened.append(path) or real(path))
    assert read_headers(str(tmp_path), names) == first and opened == []
    (tmp_path / 'a.png').write_bytes(b'broken')
    assert read_headers(str(tmp_path), names)[0].state == DAMAGED and len(opened) == 1


def test_augmentation_depends_on_seed_epoch_and_index_alone(toy):
    """Neither the order of reading nor another process changes a sample; seed, epoch and index do."""
    dataset = build(toy, 'train')
    dataset.set_epoch(3)
    first = dataset[2]
    dataset[5], dataset[1]
    again = pickle.loads(pickle.dumps(dataset))[2]
    assert all(np.array_equal(first[key], again[key]) for key in first)
    others = [dataset[4], build(toy, 'train', '--seed', '5')[2]]
    dataset.set_epoch(4)
    assert all(not np.array_equal(first['input'], other['input']) for other in [*others, dataset[2]])


def test_batches_depend_on_seed_and_epoch():
    """The order is a permutation of its own each epoch; a mid-epoch resume takes the rest of it."""
    sampler = EpochSampler(10, seed=1)
    order = list(sampler)
    assert sorted(order) == list(range(10)) and list(sampler) == order
    sampler.skip = 4
    assert list(sampler) == order[4:] and len(sampler) == 6
    sampler.skip, sampler.epoch = 0, 2
    assert list(sampler) != order
    assert list(EpochSampler(10, seed=2)) != order


def test_max_objs_follows_own_data(tmp_path):
    """The most objects on one image, rounded up to 16, at least 32."""
    row = {'image_id': 3, 'category_id': 7, 'bbox': [10, 10, 20, 16]}
    dataset = build(folder(tmp_path, annotations=[{**row, 'id': i} for i in range(1, 35)]))
    assert dataset.max_objs == 48 and dataset[0]['reg_mask'].sum() == 34


def test_trainval_trains_on_both_files(tmp_path, capsys):
    """--trainval on own data."""
    assert len(build(folder(tmp_path), 'train', '--trainval')) == 4
    assert '--trainval: training on' in capsys.readouterr().out


def test_missing_builtin_dataset():
    """coco that was not downloaded: one line with the path."""
    opt = opts().parse(['ctdet', '--data_dir', '/nowhere', '--gpus', '-1'])
    Dataset = get_dataset('coco', 'ctdet')
    with pytest.raises(UserError, match='/nowhere/coco/annotations/instances_train2017.json'):
        Dataset(opts.update_dataset_info_and_set_heads(opt, Dataset), 'train')
    assert Path('/nowhere').exists() is False


def test_splits_that_number_classes_differently(tmp_path):
    """The same id for different classes in train and val is refused, naming both."""
    path = folder(tmp_path)
    content = json.loads((tmp_path / 'annotations/val.json').read_text())
    content['categories'] = [{'id': 7, 'name': 'dog'}, {'id': 90, 'name': 'cat'}]
    (tmp_path / 'annotations/val.json').write_text(json.dumps(content))
    with pytest.raises(UserError, match="7 'dog'.*'cat'"):
        build(path)


def test_nothing_but_broken_boxes_is_refused(tmp_path):
    """When no box is left there is nothing to learn."""
    row = {'id': 1, 'image_id': 3, 'category_id': 7, 'bbox': [1, 1, 0, 5]}
    with pytest.raises(UserError, match='no usable object'):
        build(folder(tmp_path, annotations=[row]))


def test_damaged_cache_counts_as_empty(tmp_path):
    """A cut cache file is read past, and replaced."""
    from lib.datasets.image_headers import cache_path

    write_image(tmp_path / 'a.png')
    first = read_headers(str(tmp_path), ['a.png'])
    cache = cache_path(str(tmp_path))
    cache.write_bytes(cache.read_bytes()[:40])
    assert read_headers(str(tmp_path), ['a.png', './/a.png'])[0] == first[0]
    assert read_headers(str(tmp_path), ['.//a.png'])[0].state == OK


@pytest.mark.parametrize(
    'facts',
    [
        {'keypoints': 17},
        {'keypoints': ['a', 3]},
        {'keypoints': ['a', 'b'], 'skeleton': [[1, 2, 3]]},
        {'keypoints': ['a', 'b'], 'skeleton': [[1, 3]]},
        {'keypoints': ['a', 'b'], 'sigmas': ['x', 'y']},
        {'keypoints': ['a', 'b'], 'flip_pairs': [0, 1]},
        {'keypoints': ['a', 'b', 'c'], 'flip_pairs': [[0, 1], [1, 2]]},
    ],
)
def test_broken_joint_facts_are_one_line(tmp_path, facts):
    """A category whose joints make no sense says which key, and no skeleton at all is fine."""
    from lib.datasets.dataset.custom import Custom
    from lib.datasets.sample.multi_pose import MultiPoseSample

    path = folder(tmp_path, categories=[{'id': 7, 'name': 'hand', **facts}])
    with pytest.raises(UserError, match='json.*(keypoints|skeleton|sigmas|flip_pairs)'):
        Custom(path, MultiPoseSample.choose_categories)
    folder(tmp_path, categories=[{'id': 7, 'name': 'hand', 'keypoints': ['a'], 'skeleton': None}])
    assert Custom(path, MultiPoseSample.choose_categories).skeleton == []


def test_workers_share_the_annotations():
    """Looking at every annotation makes a worker copy next to nothing; as Python objects these were 40 MiB and more."""
    program = Path(__file__).parent.parent / 'benchmarks' / 'worker_memory.py'
    args = [sys.executable, str(program), '--images', '20000', '--objects', '150000', '--workers', '1']
    done = subprocess.run(args, capture_output=True, text=True, timeout=120)
    sizes = re.findall(r'worker \d: ([\d.]+) MiB', done.stdout)
    assert len(sizes) == 1, done.stderr
    assert float(sizes[0]) < 16


def test_sources_serve_what_they_have(monkeypatch):
    """A new task is served by each source whose annotations hold what it needs, without an edit of the source."""
    from dataclasses import replace

    from lib.datasets.source_factory import check_dataset_name, datasets_for, source_factory
    from lib.tasks import TASKS

    offered = {each for source in source_factory.values() for each in source.offers}
    assert all(set(task.needs) <= offered for task in TASKS.values())
    monkeypatch.setitem(TASKS, 'throwaway', replace(TASKS['ctdet'], needs=('boxes', 'joints')))
    assert datasets_for('throwaway') == ['coco_hp'] and datasets_for('ctdet') == ['coco', 'coco_hp', 'pascal']
    with pytest.raises(UserError, match="dataset 'kitti' serves ddd, not ctdet"):
        check_dataset_name('kitti', 'ctdet')


def test_names_are_checked_without_torch():
    """Typing errors are answered at once: neither torch, cv2 nor an evaluator is imported before."""
    program = (
        "import sys, lib.datasets.source_factory; print({'torch', 'cv2', 'faster_coco_eval'} & sys.modules.keys())"
    )
    source = Path(__file__).parent.parent / 'src'
    done = subprocess.run([sys.executable, '-c', program], cwd=source, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == 'set()', done.stderr


def test_max_pixels_holds_wherever_images_are_read(tmp_path):
    """The check of the data, the samples, test.py's images and the detector refuse images of more pixels."""
    path = folder(tmp_path)
    with pytest.raises(UserError, match='no usable image is left'):
        build(path, 'val', '--max_pixels', str(64 * 48 - 1))
    dataset = build(path, 'val', '--max_pixels', str(64 * 48))
    image = dataset.image_path(0)
    assert dataset[0]['input'].shape == (3, 64, 64) and read_given(image, None, 64 * 48).image.shape == (48, 64, 3)
    dataset.opt.max_pixels -= 1
    assert '--max_pixels' in test_images.TestImages(dataset, range(len(dataset)), None)[0].problem
    with pytest.raises(UserError, match='none of the images'):
        dataset[0]
    with pytest.raises(UserError, match='--max_pixels'):
        read_given(image, None, 64 * 48 - 1)


@pytest.mark.skipif(sys.platform != 'linux', reason='processes read headers on Linux alone')
def test_processes_read_the_headers_that_threads_do(tmp_path, monkeypatch):
    """Those of many files: of sound ones, one cut short, one that is no image, and one that is missing, in order."""
    names = [f'{i}.png' for i in range(7)]
    for i, name in enumerate(names):
        cv2.imwrite(str(tmp_path / name), np.zeros((3 + i, 40, 3), np.uint8))
    (tmp_path / '2.png').write_bytes((tmp_path / '2.png').read_bytes()[:-20])
    (tmp_path / '4.png').write_text('no image')
    by_threads = read_headers(str(tmp_path), [*names, 'missing.png'])
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setattr(image_headers, 'MANY', 3)
    monkeypatch.setattr(image_headers, 'BATCH', 2)
    monkeypatch.setattr(image_headers, 'read_in_threads', None)
    assert read_headers(str(tmp_path), [*names, 'missing.png']) == by_threads
    assert [header.state for header in by_threads] == [OK, OK, DAMAGED, OK, DAMAGED, OK, OK, MISSING]
    assert by_threads[6].size == (40, 9)
