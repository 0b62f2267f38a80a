"""The remembered index: as the one that is made, noticed when anything changes, shared, and never trusted blindly."""

import copy
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lib.datasets import coco_file, index, remembered
from lib.datasets.annotations import CocoFile, Share
from lib.datasets.index import build_index
from test_coco_file import write_image

OBJECT = {'image_id': 1, 'category_id': 1, 'bbox': [1, 2, 10, 12], 'keypoints': [5, 6, 2]}
LONG_AGO = 1_000_000_000


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a file of annotations, two images, broken entries of several kinds, and a cache of its own."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    coco_file._reported.clear()
    for name in ('a.png', 'b.png'):
        write_image(tmp_path / name)
    annotations = [dict(OBJECT, id=i) for i in range(3)]
    annotations += [
        dict(OBJECT, id=7, bbox=[1, 1, -3, 4]),
        dict(OBJECT, id=8, image_id=99),
        dict(OBJECT, keypoints=[1]),
    ]
    images = [{'id': i, 'file_name': name} for i, name in enumerate(('a.png', 'images\\b.png', 'gone.png'), start=1)]
    images.append({'id': 'x y', 'file_name': 5})
    categories = [{'id': 1, 'name': 'cat'}, {'id': 2, 'name': 'cat'}]
    write(tmp_path, {'images': images, 'annotations': annotations, 'categories': categories})
    return tmp_path


def write(folder, content, when=LONG_AGO):
    """Write the annotation file, as if it had been there since `when`."""
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    (folder / 'c.json').write_bytes(text)
    os.utime(folder / 'c.json', (when, when))


def build(folder, class_of=None, **options):
    return build_index(str(folder / 'c.json'), str(folder), class_of or {1: 0, 2: 1}, {'keypoints': (1, 3)}, **options)


def said(capsys):
    """The lines that were said since the last call, as a start says them: each process says a file's faults anew."""
    coco_file._reported.clear()
    return capsys.readouterr().out.splitlines()


def same(one, other):
    """Whether two indices hold the same arrays, bit for bit."""
    a, b = one.to_arrays(), other.to_arrays()
    return a.keys() == b.keys() and all(a[n].dtype == b[n].dtype and a[n].tobytes() == b[n].tobytes() for n in a)


@pytest.fixture
def made(monkeypatch):
    """How often a file was parsed."""
    parsed = []
    real = coco_file.parse_coco
    monkeypatch.setattr(coco_file, 'parse_coco', lambda path: parsed.append(path) or real(path))
    return parsed


def test_a_warm_start_is_a_cold_one(folder, made, capsys, monkeypatch):
    """Arrays and findings are the same; nothing is parsed, and the arrays are mapped and cannot be written to."""
    with monkeypatch.context() as context:
        context.setattr(remembered, 'load_packed', lambda path: None)
        context.setattr(index, 'load_packed', lambda path: None)
        cold, cold_said = build(folder), said(capsys)
    warm, warm_said = build(folder), said(capsys)
    assert len(made) == 1 and same(cold, warm) and warm_said == cold_said
    kinds = ('missing', 'negative', 'unknown image', "'keypoints'", 'another spelling', 'has their name', 'file_name')
    assert all(any(kind in line for line in warm_said) for kind in kinds)
    assert warm.objects(0).boxes.tolist()[0] == [1, 2, 11, 14] and warm.name(1) == 'b.png'
    with pytest.raises(ValueError, match='read-only'):
        warm.boxes[0] = 0
    maps = Path('/proc/self/maps')
    assert not maps.exists() or f'{folder}/cache/centernet/index-' in maps.read_text()


def test_faults_of_the_text_are_said_again(folder, made, capsys):
    """Doubled keys and another encoding are no findings of an entry, and are said as well."""
    text = json.dumps({'images': [{'id': 1, 'file_name': 'a.png'}], 'annotations': [OBJECT], 'categories': []})
    write(folder, text.replace('"categories"', '"x": 1, "x": "caf\xe9", "categories"').encode('latin-1'))
    build(folder)
    cold = said(capsys)
    build(folder)
    assert said(capsys) == cold and len(made) == 1
    assert sum('written twice' in line or 'Latin-1' in line for line in cold) == 2


def test_categories_are_remembered(folder, made, capsys):
    """Own data's classes, with the faults of the file."""
    first, first_said = CocoFile(folder / 'c.json').categories(), said(capsys)
    assert CocoFile(folder / 'c.json').categories() == first and said(capsys) == first_said and len(made) == 1
    assert [row['name'] for row in first] == ['cat', 'cat (2)']
    write(folder, {'images': [], 'categories': [{'id': 5, 'name': 'new'}]}, LONG_AGO + 1)
    assert CocoFile(folder / 'c.json').categories() == [{'id': 5, 'name': 'new'}]


def test_a_cold_start_reads_once(folder, made):
    """What was read for the classes is taken over for the index of the file, or of a share of its images."""
    for annotations in (CocoFile(str(folder / 'c.json')), Share(CocoFile(str(folder / 'c.json')), 'train', 0.5)):
        shutil.rmtree(folder / 'cache', ignore_errors=True)
        annotations.categories()
        assert len(build_index(annotations, str(folder), {1: 0, 2: 1})) and len(made) == 1
        made.clear()


def change_file(folder):
    content = json.loads((folder / 'c.json').read_text())
    content['annotations'][0]['bbox'] = [1, 2, 11, 12]  # as many bytes
    write(folder, content, LONG_AGO + 1)


def change_image(folder):
    write_image(folder / 'a.png', 50, 20)


@pytest.mark.parametrize(
    'change',
    [
        change_file,
        change_image,
        lambda folder: (folder / 'b.png').unlink(),
        lambda folder: write_image(folder / 'gone.png'),
        lambda folder: write_image(folder / 'images' / 'b.png', 20, 10),
        lambda folder: (folder / 'b.png').rename(folder / 'c.png'),
    ],
)
def test_changes_are_noticed(folder, made, change):
    """A file of annotations, or an image, that changes, comes, goes or moves: the index is made again."""
    (folder / 'images').mkdir()
    before = build(folder)
    change(folder)
    after = build(folder)
    assert len(made) == 2 and not same(before, after)
    assert same(build(folder), after) and len(made) == 2


def test_other_choices_are_other_indices(folder, made):
    """Classes, fields, the budget of pixels and the reader's code are part of the key; both choices stay."""
    first = build(folder)
    assert build(folder, {1: 1, 2: 0}).classes[0] == 1
    assert build_index(str(folder / 'c.json'), str(folder), {1: 0, 2: 1}).fields == {}
    assert build(folder, other_categories=frozenset([2])) and len(made) == 4
    assert same(build(folder), first) and len(made) == 4


def test_other_code_reads_again(folder, made, monkeypatch):
    """An index that another version of the reader has made is not taken."""
    build(folder)
    monkeypatch.setattr(coco_file, 'reader_version', lambda: 'other')
    build(folder)
    assert len(made) == 2


def test_a_file_that_was_just_written_is_not_remembered(folder, made):
    """It could change again within what its file system takes for the same time."""
    for _ in range(2):
        write(folder, (folder / 'c.json').read_bytes(), time.time())
        build(folder)
    assert len(made) == 2 and not list((folder / 'cache').rglob('index-*'))


@pytest.mark.parametrize('seed', range(40))
def test_a_damaged_index_is_made_again(folder, made, seed):
    """Changed or missing bytes, or another program's: the same index, and a sound one is left."""
    first = copy.deepcopy(build(folder))  # what is mapped would be changed with the file
    (path,) = (folder / 'cache').rglob('index-*')
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    if seed == 0:
        data[:] = b'another program'
    elif seed % 2:
        del data[rng.integers(len(data)) :]
    else:
        for at in rng.integers(len(data), size=3):
            data[at] ^= 1 << rng.integers(8)
    path.write_bytes(data)
    assert same(build(folder), first) and len(made) == 2
    assert same(build(folder), first) and len(made) == 2


def test_a_folder_that_cannot_be_written_costs_a_note(folder, capsys, monkeypatch):
    """A file where the cache folder should be: one note in all, for headers, categories and index."""
    (folder / 'no').write_text('a file')
    monkeypatch.setenv('XDG_CACHE_HOME', str(folder / 'no'))
    first = build(folder)
    CocoFile(folder / 'c.json').categories()
    assert same(build(folder), first)
    assert sum(line.startswith('note:') for line in said(capsys)) == 1


def build_in_process(folder, queue):
    queue.put(build(folder).to_arrays())


def test_several_start_at_once(folder):
    """Four processes that find nothing remembered: each has the whole index, and a sound one is left."""
    context = multiprocessing.get_context('fork')
    queue = context.Queue()
    processes = [context.Process(target=build_in_process, args=(folder, queue)) for _ in range(4)]
    for process in processes:
        process.start()
    found = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    mapped = build(folder).to_arrays()
    assert all(
        np.array_equal(arrays[name], mapped[name], equal_nan=name[0] == 'f') for arrays in found for name in mapped
    )
    assert not list((folder / 'cache').rglob('*-writing-*'))


MEASURE = """
import json, sys
from pathlib import Path
import torch
from lib.datasets.index import build_index

def own():
    fields = dict(line.split(':') for line in Path('/proc/self/smaps_rollup').read_text().splitlines()[1:])
    return sum(int(fields[name].split()[0]) for name in ('Private_Clean', 'Private_Dirty')) / 1024

before = own()
index = build_index(sys.argv[1], sys.argv[2], {1: 0}, {'keypoints': (17, 3)})
print(json.dumps([len(index), len(index.boxes), own() - before]))
"""


@pytest.mark.skipif(not os.path.exists('/proc/self/smaps_rollup'), reason='memory is measured on Linux alone')
def test_a_warm_start_takes_little_memory(folder):
    """20 000 objects with 17 joints: parsed they take 50 MB and more, mapped a tenth."""
    joints = list(range(100, 151))
    annotations = [{**OBJECT, 'id': i, 'keypoints': joints, 'image_id': 1 + i % 2} for i in range(20_000)]
    images = [{'id': 1, 'file_name': 'a.png'}, {'id': 2, 'file_name': 'b.png'}]
    write(folder, {'images': images, 'annotations': annotations, 'categories': [{'id': 1, 'name': 'cat'}]})
    command = [sys.executable, '-c', MEASURE, str(folder / 'c.json'), str(folder)]
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)}
    cold, warm = (json.loads(subprocess.check_output(command, env=env).splitlines()[-1]) for _ in range(2))
    assert cold[:2] == warm[:2] == [2, 20_000] and warm[2] < 15
