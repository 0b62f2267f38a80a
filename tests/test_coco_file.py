"""The one reader of COCO files and results: many ways of writing come out in one, and hostile input is named."""

import copy
import gc
import json
import os
import random

import cv2
import numpy as np
import pytest
from PIL import Image

from lib.datasets import coco_file, image_headers
from lib.datasets.coco_file import (
    TEXT_IDS,
    collections_paused,
    distinct_names,
    normalise_coco,
    read_coco,
    read_id,
    read_results,
)
from lib.datasets.findings import Findings, printable
from lib.datasets.image_headers import OK, cache_path, load_cache, locate_images, read_headers
from lib.datasets.index import build_index, group_objects, pack
from lib.utils.errors import UserError
from lib.utils.files import read_json

IMAGE = {'id': 1, 'file_name': 'a.png', 'width': 40, 'height': 30}
ROW = {'id': 1, 'image_id': 1, 'category_id': 1, 'bbox': [4, 6, 10, 8]}
CATEGORY = {'id': 1, 'name': 'cat'}


def content(image=None, row=None, category=None):
    """A COCO object of one image, object and category, with some values changed."""
    return {
        'images': [IMAGE | (image or {})],
        'annotations': [ROW | (row or {})],
        'categories': [CATEGORY | (category or {})],
    }


def normalised(*args, **changes):
    findings = Findings('file')
    return normalise_coco(content(*args, **changes), findings), findings


def write_image(path, width=40, height=30):
    path.parent.mkdir(parents=True, exist_ok=True)
    written, data = cv2.imencode('.png', np.full((height, width, 3), 99, np.uint8))
    assert written
    path.write_bytes(data)


@pytest.mark.parametrize(
    ('value', 'expected'),
    [
        *((value, 7) for value in (7, 7.0, '7', '007', ' 7 ', '7.0', '+7')),
        *(
            (value, None)
            for value in (None, True, False, [7], {}, '', 7.5, float('nan'), float('inf'), 2**63, 10**4000)
        ),
        ('-3', -3),
    ],
)
def test_ids(value, expected):
    """Whole numbers in any type are ids; truth values, lists and numbers beyond 64 bits are none."""
    assert read_id(value) == expected


def test_text_ids_are_the_same_in_all_files():
    """Texts become numbers of their own, in a range that a float64 holds; a lone surrogate is a text as any other."""
    texts = ['im1', 'im2', '2007_000032', '1_000', '\ud800', '9' * 30]
    ids = [read_id(text) for text in texts]
    assert len(set(ids)) == len(texts) and all(TEXT_IDS <= each < 2 * TEXT_IDS for each in ids)
    assert read_id('im1') == 8971032335017692


BOXES = [
    [4, 6, 10, 8],
    [4.0, 6.0, 10.0, 8.0],
    ['4', '6', '10', '8'],
    [[4, 6, 10, 8]],
    [[4, 6], [10, 8]],
    '[4, 6, 10, 8]',
    '(4.0, 6, 10, 8)',
    '4 6 10 8',
]


@pytest.mark.parametrize('box', BOXES, ids=str)
def test_boxes(tmp_path, box):
    """Boxes as texts, nested or floats are one box, to the reader and to training."""
    assert normalised(row={'bbox': box})[0]['annotations'][0]['bbox'] == [4, 6, 10, 8]
    write_image(tmp_path / 'a.png')
    (tmp_path / 'c.json').write_text(json.dumps(content(row={'bbox': box})))
    index = build_index(str(tmp_path / 'c.json'), str(tmp_path), {1: 0})
    assert index.boxes.tolist() == [[4, 6, 14, 14]] and index.valid.all()


@pytest.mark.parametrize(
    'box', [None, 'box', [1, 2, 3], [1, 2, 3, True], [1, 2, 3, None], [10**400, 1, 2, 3], {}, 5], ids=repr
)
def test_boxes_that_are_none(box):
    """A value that is no four numbers is absent, and its entry keeps its place for the user of the box to name."""
    assert 'bbox' not in normalised(row={'bbox': box})[0]['annotations'][0]


@pytest.mark.parametrize(
    ('value', 'expected', 'named'),
    [
        *((value, 0, 0) for value in (0, False, '0', 'false', 'False', 0.0, 'no')),
        *((value, 1, 0) for value in (1, True, '1', 'true', 1.0, 2)),
        (None, None, 0),
        *((value, None, 1) for value in ('Unspecified', [0], {}, float('nan'), 10**400)),
    ],
)
@pytest.mark.parametrize('key', ['iscrowd', 'ignore', 'difficult'])
def test_flags(key, value, expected, named):
    """A flag of any kind is 0 or 1; one that is none is named and absent, and the object stays."""
    coco, findings = normalised(row={key: value})
    (row,) = coco['annotations']
    assert row.get(key) == expected and findings.count() == named and row['bbox'] == ROW['bbox']


@pytest.mark.parametrize('key', ['area', 'keypoints', 'num_keypoints', 'truncated', 'occluded', 'alpha', 'dim'])
@pytest.mark.parametrize('value', ['x', [1, 'x'], {}, float('inf'), True])
def test_a_bad_optional_field_leaves_the_rest(key, value):
    """Each optional field is read on its own: a bad one is named and absent."""
    coco, findings = normalised(row={key: value})
    assert coco['annotations'] == [ROW] and findings.count() == 1 and key in next(iter(findings.names))


def test_keypoints_and_numbers():
    """Keypoints nested or as text are flat numbers; areas, sizes and facts as text are numbers."""
    row = {'keypoints': [['1', 2, 2], [3, 4.5, 1]], 'area': '80', 'dim': ['1', '2', '3'], 'depth': '9.5'}
    coco, findings = normalised({'width': '40', 'height': 30.0}, row)
    assert coco['images'][0] == IMAGE and findings.count() == 0
    assert coco['annotations'][0] == ROW | {
        'keypoints': [1, 2, 2, 3, 4.5, 1],
        'area': 80,
        'dim': [1, 2, 3],
        'depth': 9.5,
    }


def test_nothing_is_changed_that_needs_no_change():
    """Entries in the usual form are passed on as they are, and the argument stays as it was."""
    coco = content(row={'bbox': ['4', 6, 10, 8]})
    before = json.dumps(coco)
    result = normalise_coco(coco, Findings('file'))
    assert json.dumps(coco) == before and result['images'][0] is coco['images'][0]


def test_ids_of_other_types_meet():
    """Images, annotations and categories whose ids differ in type alone belong together."""
    coco, _ = normalised({'id': 1.0}, {'image_id': '1', 'category_id': 1.0}, {'id': '1'})
    (row,) = coco['annotations']
    assert (row['image_id'], row['category_id']) == (coco['images'][0]['id'], coco['categories'][0]['id']) == (1, 1)


@pytest.mark.parametrize('ids', [[1, 1], [None, None], [[4], {}], ['a', 'a'], [0, 0]])
def test_annotation_ids_are_names_alone(tmp_path, ids):
    """Ids that restart in each image, are absent or cannot be ids lose no object."""
    write_image(tmp_path / 'a.png')
    rows = [ROW | {'id': each} for each in ids] + [{key: value for key, value in ROW.items() if key != 'id'}]
    (tmp_path / 'c.json').write_text(json.dumps(content() | {'annotations': rows}))
    index = build_index(str(tmp_path / 'c.json'), str(tmp_path), {1: 0})
    assert index.valid.tolist() == [True] * 3


def test_broken_entries_are_named_and_keep_their_place():
    """Entries that are no objects do not throw the file away; annotations stay at their places."""
    coco = content()
    coco['images'] += [None, {'file_name': 'b.png'}, {'id': True}, IMAGE]
    coco['annotations'] = [5, *coco['annotations']]
    coco['categories'] += [{'id': None}, 'x', {'id': 2}]
    findings = Findings('file')
    result = normalise_coco(coco, findings)
    assert result['images'] == [IMAGE] and result['annotations'] == [{}, ROW]
    assert result['categories'] == [CATEGORY, {'id': 2, 'name': '2'}]
    assert findings.count() == 10  # what is no object is named as such, and as one without an id


def test_classes_of_one_name_stay_apart():
    """Two categories of one name are two classes with names of their own, whatever their order."""
    assert distinct_names({7: 'cat', 3: 'cat', 1: 'dog'}) == {1: 'dog', 3: 'cat', 7: 'cat (7)'}
    assert distinct_names({1: 'a', 2: 'a', 3: 'a (2)'}) == {1: 'a', 2: "a (2)'", 3: 'a (2)'}
    with pytest.raises(UserError, match="lists a category id twice: 1 is 'cat' and 'dog'"):
        normalise_coco(content() | {'categories': [CATEGORY, {'id': '1', 'name': 'dog'}]}, Findings('file'))


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le', 'cp1252'])
def test_encodings(tmp_path, capsys, encoding):
    """JSON in UTF-8 and UTF-16 is read, marked or not; Latin-1 is too, with a word."""
    path = tmp_path / 'c.json'
    path.write_bytes(json.dumps(content(category={'name': 'Hähnchen'}), ensure_ascii=False).encode(encoding))
    assert read_coco(path)['categories'][0]['name'] == 'Hähnchen'
    assert ('Latin-1' in capsys.readouterr().out) == (encoding == 'cp1252')


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('[' * 200_000, 'nested too deep'),
        ('{"images": [], "x": ' + '9' * 5000 + '}', 'not JSON'),
        ('', 'not JSON'),
        ('\0\1\2', 'not JSON'),
        ('{"images": [{"id": 1}], "images": [{"id": 2}]}', "'images' twice"),
        ('[]', 'not COCO format'),
        ('{"images": [5]}', 'not COCO format'),
        ('{"images": [], "annotations": {}}', 'not COCO format'),
    ],
)
def test_files_that_are_none(tmp_path, text, words):
    """Broken files end in one line that names them."""
    (tmp_path / 'c.json').write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        read_coco(tmp_path / 'c.json')
    assert 'c.json' in str(caught.value) and '\n' not in str(caught.value)


def test_numbers_and_keys_beyond_json(tmp_path, capsys):
    """NaN, infinity, 1e999 and integers of 4,000 digits are values that are named; doubled keys are too."""
    text = json.dumps(content()).replace('"bbox": [4, 6, 10, 8]', '"bbox": [NaN, 1, 2, 3], "area": 1e999')
    (tmp_path / 'c.json').write_text(text.replace('"id": 1,', f'"id": 1, "x": 1, "x": 2, "iscrowd": {"9" * 4000},'))
    (row,) = read_coco(tmp_path / 'c.json')['annotations']
    assert not {'bbox', 'area', 'iscrowd'} & row.keys()
    said = capsys.readouterr().out
    assert "unusable 'area'" in said and "unusable 'iscrowd'" in said and 'written twice' in said


def test_many_doubled_keys_are_read_quickly(tmp_path):
    """An object of 100,000 doubled keys takes no longer than another."""
    (tmp_path / 'c.json').write_text('{' + ','.join(f'"{i}": 0, "{i}": 0' for i in range(100_000)) + '}')
    assert len(read_json(tmp_path / 'c.json')) == 100_000


def test_findings_are_named_once(tmp_path, capsys):
    """A file that is read several times in one program complains once."""
    (tmp_path / 'c.json').write_text(json.dumps(content(row={'area': 'x'})))
    for _ in range(3):
        read_coco(tmp_path / 'c.json')
    assert capsys.readouterr().out.count("unusable 'area'") == 1


def test_entries_without_a_needed_key(tmp_path, capsys):
    """Entries that lack what the caller needs are named and left out."""
    coco = content()
    coco['images'].append({'id': 2})
    (tmp_path / 'c.json').write_text(json.dumps(coco))
    assert read_coco(tmp_path / 'c.json', images=('id', 'file_name'))['images'] == [IMAGE]
    assert "without 'file_name'" in capsys.readouterr().out


def test_results(tmp_path):
    """Results have the ids of the annotation file and plain numbers; what cannot be used is absent."""
    rows = [
        {'image_id': 'im1', 'category_id': '1', 'bbox': ['1', 2, 3, 4], 'score': '0.5'},
        {'image_id': [1], 'category_id': {}, 'bbox': [10**400, 2, 3, 4], 'score': 'x', 'keypoints': ['', 1, 2]},
        7,
    ]
    (tmp_path / 'r.json').write_text(json.dumps(rows))
    assert read_results(tmp_path / 'r.json') == [
        {'image_id': read_id('im1'), 'category_id': 1, 'bbox': [1, 2, 3, 4], 'score': 0.5},
        {},
        {},
    ]
    (tmp_path / 'r.json').write_text('{"a": 1}')
    with pytest.raises(UserError, match='not a results file'):
        read_results(tmp_path / 'r.json')


def test_messages_are_one_line_that_can_be_printed():
    """Names from files are shown in one short line of valid text."""
    assert printable('a\nb\udce9') == 'a b\\udce9' and len(printable('x' * 10_000)) < 200


# ----------------------------------------------------------------------------------------------- image files


def test_file_names_of_other_tools(tmp_path):
    """Backslashes, `images/` in front, and paths of another machine lead to the file; a name that is right stays."""
    folder = tmp_path / 'images'
    for name in ('a.png', 'sub/b.png', 'images/c.png', 'back\\slash.png', 'caf\u00e9.png'):
        write_image(folder / name)
    given = {
        'a.png': 'a.png',
        './a.png': './a.png',
        'images/a.png': 'a.png',
        'images\\a.png': 'a.png',
        '.\\sub\\b.png': 'sub/b.png',
        'data/images/sub/b.png': 'sub/b.png',
        'images/c.png': 'images/c.png',
        'back\\slash.png': 'back\\slash.png',
        'C:\\data\\images\\sub\\b.png': 'sub/b.png',
        '/elsewhere/sub/b.png': 'sub/b.png',
        'cafe\u0301.png': 'caf\u00e9.png',
        'other/a.png': 'other/a.png',  # not there: no other folder's file stands for it
        'x\ud800': 'x\ud800',
    }
    for name, place in given.items():
        assert locate_images(folder, [name]) == [place]
    assert locate_images(folder, ['/x/a.png', '/y/a.png']) == ['/x/a.png', '/y/a.png']


@pytest.mark.parametrize('name', [b'caf\xe9.png', b'n' * 246 + b'.png', 'x\u00b2.png'.encode()])
def test_odd_file_names(tmp_path, name):
    """Names that are not UTF-8, of 250 bytes or with a raised 2 are indexed, and their headers remembered."""
    text = os.fsdecode(name)
    write_image(tmp_path / text)
    (tmp_path / 'c.json').write_text(json.dumps(content({'file_name': text})))
    for _ in range(2):
        assert build_index(str(tmp_path / 'c.json'), str(tmp_path), {1: 0}).name(0) == text


@pytest.mark.parametrize('name', [5, None, '', 'a\0b.png', '\ud800.png', ['a.png']])
def test_file_names_that_are_none(tmp_path, capsys, name):
    """An image whose file_name no file can have is left out and named; the others are used."""
    write_image(tmp_path / 'a.png')
    coco = content()
    coco['images'].append({'id': 2, 'file_name': name})
    (tmp_path / 'c.json').write_text(json.dumps(coco))
    assert build_index(str(tmp_path / 'c.json'), str(tmp_path), {1: 0}).image_ids.tolist() == [1]
    assert 'without a file_name' in capsys.readouterr().out


def test_a_cache_that_cannot_be_written_is_a_note(tmp_path, monkeypatch, capsys):
    """A full disk, or a file where the cache folder should be, costs a note and no image."""
    write_image(tmp_path / 'a.png')
    (tmp_path / 'cache').write_text('a file')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    for _ in range(2):
        assert read_headers(str(tmp_path), ['a.png'])[0].state == OK
    assert capsys.readouterr().out.count('note: image headers') == 1

    def full(*args, **kwargs):
        raise OSError(28, 'No space left on device')

    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'other'))
    monkeypatch.setattr(image_headers.np, 'savez', full)
    assert read_headers(str(tmp_path), ['a.png'])[0].state == OK
    assert 'No space left' in capsys.readouterr().out


@pytest.mark.parametrize('seed', range(40))
def test_a_damaged_cache_counts_as_empty(tmp_path, monkeypatch, seed):
    """A cache with changed or missing bytes, or of another program, gives no wrong header and no error."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    write_image(tmp_path / 'a.png')
    first = read_headers(str(tmp_path), ['a.png'])
    path = cache_path(str(tmp_path))
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    if seed % 2:
        del data[rng.integers(len(data)) :]
    else:
        for at in rng.integers(len(data), size=3):
            data[at] ^= 1 << rng.integers(8)
    path.write_bytes(data)
    assert read_headers(str(tmp_path), ['a.png']) == first


def test_a_foreign_cache_counts_as_empty(tmp_path):
    """Arrays of another shape, type or meaning are no cache."""
    path = tmp_path / 'c.npz'
    good = {'names': np.array([b'a']), 'rows': np.array([[1, 2, OK, 4, 3, 0]])}
    np.savez(path, **good)
    assert list(load_cache(path)) == ['a']
    for changes in (
        {'rows': good['rows'][:, :5]},
        {'rows': good['rows'] * 1.0},
        {'names': np.array(['a'])},
        {'names': np.array(5)},
    ):
        np.savez(path, **(good | changes))
        assert load_cache(path) == {}
    for row in ([1, 2, OK, -4, 3, 0], [1, 2, 9, 4, 3, 0]):
        np.savez(path, names=good['names'], rows=np.array([row]))
        assert load_cache(path) == {}


@pytest.mark.filterwarnings('error')
def test_large_images_are_measured_without_a_word(tmp_path, monkeypatch):
    """Pillow's limits do not decide which images are used, and are as before afterwards."""
    write_image(tmp_path / 'a.png')
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    assert read_headers(str(tmp_path), ['a.png'])[0].size == (40, 30)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_the_budget_of_pixels_holds_for_remembered_headers(tmp_path, monkeypatch):
    """--max_pixels, or the default, is compared on each reading: a cache made under another one doesn't decide."""
    write_image(tmp_path / 'a.png')

    def state(max_pixels=0):
        return read_headers(str(tmp_path), ['a.png'], max_pixels)[0].state

    assert [state(), state(1199), state(1200)] == [OK, image_headers.TOO_LARGE, OK]
    monkeypatch.setattr(image_headers, 'default_max_pixels', lambda: 1000)
    assert [state(), state(1200)] == [image_headers.TOO_LARGE, OK]


# Values of which some need reading, and lists of them that need none.
VALUES = (0, 1, 2, 7, 2.0, 2.5, -1, -0.5, float('nan'), float('inf'), True, None, '5', 'x', {}, 2**62, 2**63, 10**400)
VALUES += ([1, 2, 3, 4], [1.5, 2, 3], [], [1, 2, 3, True], [1, 2, 3, float('nan')], [10**400] * 3, [[1, 2, 3]], '1 2 3')
EASY = ([0, 1], [1, 2.5], [1, 640], [[1, 2, 3, 4.5]] * 2, [[1, 2, 3]] * 2, [[0] * 6, [1.5] * 3])


def alike(one, other):
    """Whether two contents are the same to the type of each number."""
    return repr(one) == repr(other)


@pytest.mark.parametrize('seed', range(60))
def test_reading_columns_is_reading_rows(monkeypatch, seed):
    """Fields that need no reading are told by the whole column: content and findings are as of row after row."""
    rng = random.Random(seed)

    def rows(readers, easy):
        columns = {key: rng.choice([VALUES, *EASY] if seed % 3 else EASY) for key in ('id', *readers)}
        made = [{key: rng.choice(column) for key, column in columns.items() if rng.random() < 0.8} for _ in range(6)]
        return made if easy else [*made, rng.choice([5, None, []])]

    written = {
        'images': rows(coco_file.IMAGE_READERS, seed % 2),
        'annotations': rows(coco_file.ROW_READERS, seed % 4),
        'categories': [],
    }
    before, findings, one_by_one = copy.deepcopy(written), Findings('file'), Findings('file')
    read = normalise_coco(written, findings)
    monkeypatch.setattr(coco_file, 'PLAIN', {})
    assert alike(read, normalise_coco(written, one_by_one)) and alike(written, before)
    assert findings.lines() == one_by_one.lines()


@pytest.mark.parametrize('reader', coco_file.PLAIN, ids=lambda reader: reader.__name__)
def test_columns_that_need_no_reading(reader):
    """A column passes exactly where the reader would give back each of its values, but for counts beyond 64 bits."""
    is_plain = coco_file.PLAIN[reader]
    for value in VALUES:
        given_back = value is not None and reader(value) is value
        assert is_plain([value, value]) == (given_back and (reader, value) != (coco_file._read_count, 2**63)), value
    assert is_plain([])


@pytest.mark.parametrize(
    ('shape', 'values', 'expected'),
    [
        ((2,), [[1, 2.5], [3, 4]], [[1, 2.5], [3, 4]]),
        ((2,), [[1, 2.5], None, [3, 4]], [[1, 2.5], [np.nan] * 2, [3, 4]]),
        (
            (2,),
            [[1, 2.5], '3 4', [5], [[6], [7]], [8, np.inf], [10**400, 1]],
            [[1, 2.5], [3, 4], None, [6, 7], None, None],
        ),
        ((1, 2), [[1, 2]], [[[1, 2]]]),
        ((), [1, 2.5, None], [1, 2.5, np.nan]),
        ((), [1, '2.5', True, 'x'], [1, 2.5, np.nan, np.nan]),
        ((2,), [], np.zeros((0, 2))),
        ((2,), [None], [[np.nan] * 2]),
    ],
)
def test_packing(shape, values, expected):
    """Numbers in one array; what is no such value is NaN, beside others that are."""
    packed = pack([{} if value is None else {'x': value} for value in values], 'x', shape)
    expected = [[np.nan] * 2 if row is None else row for row in expected] if isinstance(expected, list) else expected
    assert packed.dtype == np.float32 and packed.shape == (len(values), *shape)
    np.testing.assert_array_equal(packed, np.array(expected, np.float32).reshape(packed.shape))


def test_objects_go_to_their_images():
    """In the order of the usable images, each's in the file's order; others are named, unless of no concern."""
    images = [{'id': 5}, {'id': 3}, {'id': 9}, {'id': 7}]
    of = [(3, 1), (5, 1), (7, 1), (4, 1), (3, 8), (3, 2), (None, 1), (5, None), (4, 9), (5, 1), (None, None), (5, 9)]
    annotations = [
        {'id': place} | {key: value for key, value in zip(('image_id', 'category_id'), pair, strict=True) if value}
        for place, pair in enumerate(of)
    ]
    findings = Findings('file')
    usable = [{'id': 9}, {'id': 5}, {'id': 3}]
    rows, order, counts = group_objects(
        {'images': images, 'annotations': annotations}, usable, {1: 0, 2: 1, 9: 2}, frozenset({9}), findings
    )
    assert rows.tolist() == [0, 1, 5, 9] and rows[order].tolist() == [1, 9, 0, 5] and counts.tolist() == [0, 2, 2]
    assert findings.names == {
        'objects left out, of an unknown image (ids)': ['3'],
        'objects left out, of the unknown category 8 (ids)': ['4'],
        'objects left out, whose image_id is no integer or text (ids)': ['6', '10'],
        'objects left out, whose category_id is no integer or text (ids)': ['7', '10'],
    }


def test_what_is_read_counts_as_old():
    """No search for garbage among new objects goes through a large file's."""
    with collections_paused():
        rows = [{'x': [place]} for place in range(1000)]
    assert gc.isenabled() and not any(each is rows[5] for each in gc.get_objects(0))
