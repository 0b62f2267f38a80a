"""The converters as real folders and accidents meet them: formats, pairing, losses, and files that must not be lost."""

import json
import os

import cv2
import numpy as np
import pytest

from test_tools import CAR, make_kitti, make_voc, read, voc_xml, write_text


def write_image(path, width=40, height=30, value=99):
    path.parent.mkdir(parents=True, exist_ok=True)
    written, data = cv2.imencode(path.suffix, np.full((height, width, 3), value, np.uint8))
    assert written
    path.write_bytes(data)


def classes_and_boxes(path):
    coco = read(path)
    names = {category['id']: category['name'] for category in coco['categories']}
    return [(names[row['category_id']], row['bbox']) for row in coco['annotations']]


def files_below(folder):
    return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


# --------------------------------------------------------------------------------------------------------- YOLO


def make_yolo(root, labels, yaml='names: [blue, red]', beside=False, encoding='utf-8'):
    """A split folder whose images all have the label file `labels`."""
    for split in ('train', 'val'):
        for i in range(2):
            write_image(root / f'images/{split}/{i}.png', 100, 100)
            folder = root / ('images' if beside else 'labels') / split
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f'{i}.txt').write_bytes(labels.encode(encoding))
    (root / 'data.yaml').write_bytes(yaml.encode(encoding))
    return root


@pytest.mark.parametrize(
    ('yaml', 'expected'),
    [
        ('names: {1: red, 0: blue}', ['blue', 'red']),
        ('names:\n  1: red   # second\n  0: "blue"\nnc: 2', ['blue', 'red']),
        ('names:\n- blue\n- red', ['blue', 'red']),
        ('names: ["blue # not a comment", \'red, [x]\']', ['blue # not a comment', 'red, [x]']),
        ('path: ..\nnames: [\n  blue,\n  red,\n]', ['blue', 'red']),
        ('names: [no, 007]', ['no', '007']),
        ('names: [cat, cat]', ['cat', 'cat (1)']),
        ('names: ["1", "0"]', ['1', '0']),
        ("'names': &x {'0': blue, '1': red}", ['blue', 'red']),
        ('names: {0: Stra\u00dfe, 1: \u72d7}', ['Stra\u00dfe', '\u72d7']),
    ],
)
def test_yaml_names(convert, tmp_path, yaml, expected):
    """The numbers of data.yaml are the classes, in whatever form YAML allows."""
    make_yolo(tmp_path / 'y', '0 .5 .5 .2 .2\n1 .5 .5 .4 .4\n', yaml)
    convert('convert_yolo_to_coco', 'y', 'own')
    found = classes_and_boxes(tmp_path / 'own/annotations/train.json')
    assert found == [(name, box) for name, box in zip(expected, ([40, 40, 20, 20], [30, 30, 40, 40]), strict=True)] * 2


def test_yaml_names_with_a_gap(convert, tmp_path):
    """A class number that data.yaml leaves out shifts no other; a blank line in classes.txt does not either."""
    make_yolo(tmp_path / 'y', '0 .5 .5 .2 .2\n2 .5 .5 .4 .4\n', 'names: {0: blue, 2: green}')
    convert('convert_yolo_to_coco', 'y', 'own')
    assert [name for name, _ in classes_and_boxes(tmp_path / 'own/annotations/val.json')] == ['blue', 'green'] * 2
    (tmp_path / 'y/data.yaml').unlink()
    write_text(tmp_path / 'y/classes.txt', 'blue\r\n\r\ngreen\r\n')
    convert('convert_yolo_to_coco', 'y', 'own2')
    assert [name for name, _ in classes_and_boxes(tmp_path / 'own2/annotations/val.json')] == ['blue', 'green'] * 2


@pytest.mark.parametrize(
    'yaml',
    [
        'names: 5',
        'names: {a: 0, b: 1}',
        'names: {0: a, 0: b}',
        'names: [a, [b]]',
        'names: [a, ""]',
        'names: {-1: a}',
        'names: [a',
        '- names',
        'names: ' + '[' * 3000,
        'names: !!python/object/apply:os.system [["true"]]',
        'a: &a [x, x, x, x, x, x, x, x, x]\n'
        + '\n'.join(f'{chr(98 + i)}: &{chr(98 + i)} [{", ".join([f"*{chr(97 + i)}"] * 9)}]' for i in range(9))
        + '\nnames: *j',
    ],
)
def test_yaml_that_is_refused(convert, tmp_path, yaml):
    """Names that are neither a list nor a mapping from numbers are refused, in one line and without a hang."""
    make_yolo(tmp_path / 'y', '0 .5 .5 .2 .2\n', yaml)
    assert 'data.yaml' in convert('convert_yolo_to_coco', 'y', 'own', fails=True)
    assert not (tmp_path / 'own').exists()


BOX = [40, 30, 20, 40]  # of .5 .5 .2 .4 in 100 x 100 pixels


@pytest.mark.parametrize(
    'line',
    [
        '1 .5 .5 .2 .4',
        '1.000000 .5 .5 .2 .4',
        'red .5 .5 .2 .4',
        '1\t0.5\t0.5\t0.2\t0.4',
        '1,0.5,0.5,0.2,0.4',
        '1, 0.5, 0.5, 0.2, 0.4',
        '1;0.5;0.5;0.2;0.4',
        '1 0,5 0,5 0,2 0,4',
        '1 .5 .5 .2 .4 .87',
        '1 .4 .3 .6 .3 .6 .7 .4 .7',
        '1 .4 .3 .6 .3 .5 .7',
        '1 .5 .5 .2 .4 .45 .4 2 .5 .5 1 0 0 0',
    ],
)
@pytest.mark.parametrize('end', ['\n', '\r\n'])
def test_yolo_lines(convert, tmp_path, line, end):
    """Lines whose meaning is plain: other separators, outlines, a confidence, joints, class names and numbers."""
    make_yolo(tmp_path / 'y', f'{line}{end}{end}{line}{end}')
    convert('convert_yolo_to_coco', 'y', 'own')
    assert classes_and_boxes(tmp_path / 'own/annotations/train.json') == [('red', BOX)] * 4


def test_yolo_joints_of_the_yaml(convert, tmp_path):
    """`kpt_shape` says that joints follow the box, where an outline has as many numbers."""
    make_yolo(tmp_path / 'y', '1 .5 .5 .2 .4 .1 .1 .9 .9\n', 'kpt_shape: [2, 2]\nnames: [blue, red]')
    convert('convert_yolo_to_coco', 'y', 'own')
    assert classes_and_boxes(tmp_path / 'own/annotations/train.json') == [('red', BOX)] * 2


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16'])
def test_yolo_files_of_windows_editors(convert, tmp_path, encoding):
    """A byte order mark in labels and data.yaml loses no line and no key."""
    make_yolo(tmp_path / 'y', '0 .5 .5 .2 .4\n', encoding=encoding)
    convert('convert_yolo_to_coco', 'y', 'own')
    assert classes_and_boxes(tmp_path / 'own/annotations/train.json') == [('blue', BOX)] * 2


@pytest.mark.parametrize(
    'line',
    [
        '1 50 50 20 40',
        '1 50 50',
        'cow .5 .5 .2 .4',
        '1 .5 .5 .2 .4 7',
        '1 nan .5 .2 .4',
        'x',
        '9 .5 .5 .2 .4',
        '1.5 .5 .5 .2 .4',
    ],
)
def test_yolo_lines_that_are_refused(convert, tmp_path, line):
    """Nothing is converted of lines that are all unclear, and the message shows one; some of them make status 1."""
    make_yolo(tmp_path / 'y', f'{line}\n')
    assert f"found '{line}'" in convert('convert_yolo_to_coco', 'y', 'own', fails=True)
    assert not (tmp_path / 'own').exists()
    make_yolo(tmp_path / 'y', '1 .5 .5 .2 .4\n' * 5 + f'{line}\n')
    said = convert('convert_yolo_to_coco', 'y', 'own', fails=True)
    assert '4 of 24 lines were left out' in said and f"found '{line}'" in said
    assert len(read(tmp_path / 'own/annotations/train.json')['annotations']) == 10
    make_yolo(tmp_path / 'y', '1 .5 .5 .2 .4\n' * 9 + f'{line}\n')
    assert '4 ' in convert('convert_yolo_to_coco', 'y', 'own')


def test_yolo_corners_are_doubted(convert, tmp_path):
    """Boxes that would reach far out of their images were written as something else, perhaps as corners."""
    make_yolo(tmp_path / 'y', '1 .1 .1 .9 .9\n')
    assert 'may have been misunderstood' in convert('convert_yolo_to_coco', 'y', 'own', fails=True)


@pytest.mark.parametrize('layout', ['images/{}', '{}', '{}/images'])
def test_yolo_labels_beside_images(convert, tmp_path, layout):
    """Labels are found beside their images too."""
    write_text(tmp_path / 'y/data.yaml', 'names: [blue, red]')
    for split in ('train', 'valid'):
        write_image(tmp_path / 'y' / layout.format(split) / 'a.jpg', 100, 100)
        write_text(tmp_path / 'y' / layout.format(split) / 'a.txt', '1 .5 .5 .2 .4\n')
    convert('convert_yolo_to_coco', 'y', 'own')
    assert classes_and_boxes(tmp_path / 'own/annotations/val.json') == [('red', BOX)]


def test_yolo_flat_folder(convert, tmp_path):
    """One folder of images, labels and classes.txt, as labelImg leaves it."""
    for i in range(5):
        write_image(tmp_path / f'y/{i}.jpg', 100, 100)
        write_text(tmp_path / f'y/{i}.txt', '1 .5 .5 .2 .4\n')
    write_text(tmp_path / 'y/classes.txt', 'blue\nred\n')
    convert('convert_yolo_to_coco', 'y', 'own')
    assert classes_and_boxes(tmp_path / 'own/annotations/train.json') == [('red', BOX)] * 4


def test_yolo_without_labels(convert, tmp_path):
    """Images without any label file are no dataset of backgrounds; label files without images are losses."""
    make_yolo(tmp_path / 'y', '1 .5 .5 .2 .4\n')
    for path in (tmp_path / 'y/labels').rglob('*.txt'):
        path.rename(path.with_name(f'x{path.name}'))
    said = convert('convert_yolo_to_coco', 'y', 'own', fails=True)
    assert 'label files' in said and '4 label files left out, without an image' in said


# ---------------------------------------------------------------------------------------------------------- VOC


def voc_object(extra, box=(1, 1, 21, 11)):
    x1, y1, x2, y2 = box
    return (
        f'<object><name>dog</name>{extra}<bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax>'
        f'<ymax>{y2}</ymax></bndbox></object>'
    )


@pytest.mark.parametrize(
    ('text', 'ignore'),
    [('Unspecified', 0), ('', 0), ('x', 0), ('0', 0), ('False', 0), ('0.0', 0), ('1', 1), ('True', 1), ('1.0', 1)],
)
def test_voc_flags(convert, tmp_path, text, ignore):
    """Optional fields of any content lose no box."""
    for i in range(2):
        write_image(tmp_path / f'v/{i}.png')
        extra = f'<difficult>{text}</difficult><truncated>{text}</truncated><pose>{text}</pose><occluded>x</occluded>'
        write_text(tmp_path / f'v/{i}.xml', f'<annotation>{voc_object(extra)}</annotation>')
    said = convert('convert_voc_to_coco', 'v', 'own')
    (row,) = read(tmp_path / 'own/annotations/train.json')['annotations']
    assert (row['bbox'], row['ignore']) == ([0, 0, 20, 10], ignore)
    assert ('taken as not difficult' in said) == (text in ('Unspecified', 'x'))


@pytest.mark.parametrize(
    'layout',
    [
        '{split}/Annotations/{n}.xml {split}/JPEGImages/{n}.png',
        'annotations/{split}/{n}.xml images/{split}/{n}.png',
        '{split}/{n}.xml {split}/{n}.png',
        'data/{split}/x/y/{n}.xml data/{split}/{n}.png',
    ],
)
def test_voc_pairs_by_place(convert, tmp_path, layout):
    """Files of one name in two folders go with the image of their own folder."""
    for split, width in (('train', 40), ('val', 44)):
        for n in range(3):
            xml, image = layout.format(split=split, n=n).split()
            write_image(tmp_path / 'v' / image, width)
            write_text(tmp_path / 'v' / xml, voc_xml(str(n), [(split, (1, 1, 9, 9), 0)], size=(width, 30)))
    convert('convert_voc_to_coco', 'v', 'own')
    pairs = []
    for split in ('train', 'val'):
        coco = read(tmp_path / f'own/annotations/{split}.json')
        widths = {image['id']: image['width'] for image in coco['images']}
        names = {category['id']: category['name'] for category in coco['categories']}
        pairs += [(names[row['category_id']], widths[row['image_id']]) for row in coco['annotations']]
    assert sorted(pairs) == [('train', 40)] * 3 + [('val', 44)] * 3


def test_voc_gives_no_image_away(convert, tmp_path):
    """An XML file whose own image is gone does not take the one of another folder, and ties are left out."""
    make_voc(tmp_path / 'v/val', 20)
    write_text(tmp_path / 'v/train/annotations/p1.xml', voc_xml('p1', [('wrong', (1, 1, 9, 9), 0)]))
    write_image(tmp_path / 'v/a/tie.png')
    write_image(tmp_path / 'v/b/tie.png')
    write_text(tmp_path / 'v/c/tie.xml', voc_xml('tie', [('wrong', (1, 1, 9, 9), 0)]))
    said = convert('convert_voc_to_coco', 'v', 'own')
    assert 'that another describes' in said and 'several images are as near' in said
    names = {
        name for split in ('train', 'val') for name, _ in classes_and_boxes(tmp_path / f'own/annotations/{split}.json')
    }
    assert names == {'dog', 'cat'}


def test_voc_lists(convert, tmp_path):
    """Lines with spaces, suffixes, folders or flags name their images; trainval and test become train and val."""
    names = ['my photo', 'a.b', '000', 'x 1', 'caf\u00e9', 'plain']
    for name in names:
        write_image(tmp_path / f'v/JPEGImages/{name}.png')
        write_text(tmp_path / f'v/Annotations/{name}.xml', voc_xml(name, [('dog', (1, 1, 9, 9), 0)]))
    lines = ['my photo', 'a.b.png', 'JPEGImages/000.png', 'x 1', 'C:\\voc\\JPEGImages\\caf\u00e9.png']
    (tmp_path / 'trainval.txt').write_bytes('\r\n'.join(lines).encode('utf-8-sig'))
    write_text(tmp_path / 'test.txt', 'plain  -1\n')
    convert('convert_voc_to_coco', 'v', 'own', '--split_file', 'trainval.txt', 'test.txt')
    found = {
        split: [image['file_name'] for image in read(tmp_path / f'own/annotations/{split}.json')['images']]
        for split in ('train', 'val')
    }
    assert found == {'train': [f'{name}.png' for name in names[:5]], 'val': ['plain.png']}
    assert sorted(path.name for path in (tmp_path / 'own/annotations').iterdir()) == ['train.json', 'val.json']


def test_voc_lists_of_folders(convert, tmp_path):
    """Of images of one name a list means the one in the folder that it names, else the nearest; a tie is refused."""
    for split in ('train', 'val'):
        write_image(tmp_path / f'v/{split}/0.png', 40 if split == 'train' else 44)
        write_text(tmp_path / f'v/{split}/0.xml', voc_xml('0', [('dog', (1, 1, 9, 9), 0)]))
        write_text(tmp_path / f'v/{split}/list/{split}.txt', '0\n')
        write_text(tmp_path / f'named/{split}.txt', f'{split}/0.png\n')
        write_text(tmp_path / f'tie/{split}.txt', '0\n')
    for folder in ('v/{}/list', 'named'):
        lists = [f'{folder.format(split)}/{split}.txt' for split in ('train', 'val')]
        convert('convert_voc_to_coco', 'v', 'own', '--split_file', *lists)
        widths = [read(tmp_path / f'own/annotations/{split}.json')['images'][0]['width'] for split in ('train', 'val')]
        assert widths == [40, 44]
    assert 'several images have' in convert(
        'convert_voc_to_coco', 'v', 'o2', '--split_file', 'tie/train.txt', 'tie/val.txt', fails=True
    )


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'iso-8859-1', 'windows-1252', 'gbk', 'shift_jis'])
def test_voc_encodings(convert, tmp_path, encoding):
    """The XML library decodes what the declaration says."""
    name = '\u732b' if encoding in ('gbk', 'shift_jis') else 'H\u00e4hnchen'
    for i in range(2):
        write_image(tmp_path / f'v/{i}.png')
        text = voc_xml(str(i), [(name, (1, 1, 9, 9), 0)])
        head = f'<?xml version="1.0" encoding="{encoding.removesuffix("-sig")}"?>'
        (tmp_path / f'v/{i}.xml').write_bytes((head + text).encode(encoding))
    convert('convert_voc_to_coco', 'v', 'own')
    assert read(tmp_path / 'own/annotations/train.json')['categories'][0]['name'] == name


def test_voc_entities_are_refused(convert, tmp_path):
    """Documents that declare entities, which may expand without end or read files, are left out and named."""
    make_voc(tmp_path / 'v', 20)
    bomb = '<!DOCTYPE a [<!ENTITY a "xxxxxxxxxx">' + ''.join(
        f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(9)
    )
    body = voc_xml('p0', [('&j;', (1, 1, 9, 9), 0)])
    write_text(tmp_path / 'v/annotations/p0.xml', f'{bomb}]>{body}')
    write_text(tmp_path / 'secret', 'secret')
    outside = f'<!DOCTYPE a [<!ENTITY j SYSTEM "file://{tmp_path}/secret">]>'
    write_text(tmp_path / 'v/annotations/p1.xml', f'{outside}{body}')
    said = convert('convert_voc_to_coco', 'v', 'own')
    assert 'p0.xml' in said and 'which declare entities: p1.xml' in said
    assert 'secret' not in (tmp_path / 'own/annotations/train.json').read_text()


def test_voc_losses(convert, tmp_path):
    """XML without images, or objects without numbers, beyond a tenth make status 1, and the message shows them."""
    make_voc(tmp_path / 'v', 4)
    (tmp_path / 'v/images/p0.png').unlink()
    assert '1 of 4 XML files were left out' in convert('convert_voc_to_coco', 'v', 'own', fails=True)
    for path in (tmp_path / 'v/annotations').iterdir():
        path.write_text(path.read_text().replace('xmin>', 'left>'))
    assert 'none of its 6 objects can be used' in convert('convert_voc_to_coco', 'v', 'own', fails=True)


# -------------------------------------------------------------------------------------------------------- KITTI


@pytest.mark.parametrize('suffix', ['.jpg', '.jpeg', '.JPG'])
@pytest.mark.parametrize('lists', [False, True])
def test_kitti_images(convert, tmp_path, suffix, lists):
    """Frames need not be PNG; lists may name files."""
    make_kitti(tmp_path / 'k')
    for path in (tmp_path / 'k/training/image_2').iterdir():
        write_image(path.with_suffix(suffix), 600, 210)
        path.unlink()
    if lists:
        for subset, frames in (('train', range(6)), ('val', range(6, 12))):
            write_text(tmp_path / f'k/ImageSets/{subset}.txt', ''.join(f'{i:06d}{suffix}\r\n' for i in frames))
    convert('convert_kitti_to_coco', 'k', 'out')
    sizes = [len(read(tmp_path / f'out/annotations/kitti_3dop_{subset}.json')['images']) for subset in ('train', 'val')]
    assert sizes == [6, 6]
    image = read(tmp_path / 'out/annotations/kitti_3dop_val.json')['images'][0]
    assert (tmp_path / 'out/images/trainval' / image['file_name']).is_file() and image['file_name'].endswith(suffix)


@pytest.mark.parametrize(('bus', 'code'), [(0, 0), (2, 0), (10, 1), (None, 1)])
def test_kitti_foreign_classes(convert, tmp_path, bus, code):
    """Labels of other classes are named; too many of them make status 1, and nothing is written of these alone."""
    make_kitti(tmp_path / 'k')
    other = CAR.replace('Car', 'Bus')
    for path in (tmp_path / 'k/training/label_2').iterdir():
        path.write_text(other * 3 if bus is None else CAR * 20 + other * bus)
    said = convert('convert_kitti_to_coco', 'k', 'out', fails=bool(code))
    assert ("unknown class 'bus'" in said) == (bus != 0) and ('Pedestrian, Car' in said) == bool(code)
    assert (tmp_path / 'out').exists() == (bus is not None)


def test_kitti_frames_with_other_digits(convert, tmp_path):
    """A frame called by a digit that is no number is left out and named."""
    make_kitti(tmp_path / 'k', 20)
    for folder, suffix in (('image_2', 'png'), ('label_2', 'txt'), ('calib', 'txt')):
        os.rename(
            tmp_path / f'k/training/{folder}/000003.{suffix}', tmp_path / f'k/training/{folder}/00000\u00b2.{suffix}'
        )
    assert 'not named by a number' in convert('convert_kitti_to_coco', 'k', 'out')


# ---------------------------------------------------------------------------- what is there already stays there


def make_folders(root):
    """A folder of each format, as (tool, folder)."""
    make_voc(root / 'voc', 4)
    make_yolo(root / 'yolo', '0 .5 .5 .2 .2\n')
    make_kitti(root / 'kitti', 4)
    for path in (root / 'kitti/training/label_2').iterdir():
        path.write_text(CAR)
    return [('convert_voc_to_coco', 'voc'), ('convert_yolo_to_coco', 'yolo'), ('convert_kitti_to_coco', 'kitti')]


@pytest.mark.parametrize('link', [[], ['--link']])
def test_converting_twice(convert, tmp_path, link):
    """The same conversion into the same place gives the same files, linked or not, and adds none."""
    for tool, folder in make_folders(tmp_path):
        before = files_below(tmp_path / folder)
        convert(tool, folder, f'{folder}_out', *link)
        first = files_below(tmp_path / f'{folder}_out')
        convert(tool, folder, f'{folder}_out', *link)
        assert files_below(tmp_path / f'{folder}_out') == first and files_below(tmp_path / folder) == before


def test_in_place(convert, tmp_path):
    """Converting a folder into itself, or where its images lie, changes none of its files."""
    write_image(tmp_path / 'flat/images/x.png', 20)
    for tool, folder in [*make_folders(tmp_path)[:2], ('convert_yolo_to_coco', 'flat')]:
        write_image(tmp_path / folder / 'images/p1.png', 20)
        before = files_below(tmp_path / folder)
        (tmp_path / f'link_{folder}').symlink_to(tmp_path / folder)
        for output in (folder, f'{folder}/.', f'link_{folder}'):
            convert(tool, folder, output, fails=True)
        assert files_below(tmp_path / folder) == before


def test_foreign_files_stay(convert, tmp_path):
    """Annotation files of the user's or of another program are not replaced, and images of the same name neither."""
    for tool, folder in make_folders(tmp_path):
        name = 'kitti_trainval' if folder == 'kitti' else 'val'
        for content in ('{"images": [], "made_by": {"tool": "merge_pascal_json"}}', '[]', 'x'):
            write_text(tmp_path / f'o_{folder}/annotations/{name}.json', content)
            assert 'no earlier output' in convert(tool, folder, f'o_{folder}', fails=True)
            assert (tmp_path / f'o_{folder}/annotations/{name}.json').read_text() == content
        assert not (tmp_path / f'o_{folder}/images').exists()
    write_image(tmp_path / 'own/images/p1.png', 20)
    mine = (tmp_path / 'own/images/p1.png').read_bytes()
    convert('convert_voc_to_coco', 'voc', 'own')
    assert (tmp_path / 'own/images/p1.png').read_bytes() == mine and (tmp_path / 'own/images/p1_2.png').exists()
    write_image(tmp_path / 'k/images/trainval/000000.png', 20)
    assert 'is no copy of' in convert('convert_kitti_to_coco', 'kitti', 'k', fails=True)


@pytest.mark.parametrize('name', [b'caf\xe9', b'n' * 246, 'x\u00b2'.encode()])
def test_odd_file_names(convert, tmp_path, name):
    """Names that are not UTF-8, as long as the disk allows or with a raised 2 are converted, and found again."""
    stem = os.fsdecode(name)
    for folder in ('a', 'b'):
        write_image(tmp_path / f'{folder}/{stem}.png', 40 if folder == 'a' else 44)
        write_text(tmp_path / f'{folder}/{stem}.xml', f'<annotation>{voc_object("")}</annotation>')
    convert('convert_voc_to_coco', 'a', 'b', 'own', '--val_fraction', '0.5')
    names = [read(tmp_path / f'own/annotations/{split}.json')['images'][0]['file_name'] for split in ('train', 'val')]
    assert len(set(names)) == 2 and all((tmp_path / 'own/images' / each).is_file() for each in names)


def coco_file(path, name, **row):
    image = {'id': 1, 'file_name': name}
    annotation = {'id': 1, 'image_id': 1, 'category_id': 1, 'bbox': [1, 2, 3, 4], **row}
    content = {
        'images': [image],
        'annotations': [annotation],
        'categories': [{'id': 1, 'name': 'cat'}],
        'info': {'x': 1},
    }
    write_text(path, json.dumps(content))
    return path.read_text()


def test_merge_with_a_forgotten_output(convert, tmp_path):
    """The last of the files is not taken for the output; an earlier merge of the same files is replaced."""
    texts = {name: coco_file(tmp_path / f'{name}.json', f'{name}.png') for name in 'abc'}
    assert 'two or more' in convert('merge_pascal_json', 'a.json', 'b.json', fails=True)
    assert 'no earlier output' in convert('merge_pascal_json', 'a.json', 'b.json', 'c.json', fails=True)
    (tmp_path / 'link.json').symlink_to('a.json')
    os.link(tmp_path / 'b.json', tmp_path / 'hard.json')
    for output in ('a.json', './a.json', 'link.json', 'hard.json'):
        assert 'overwrite' in convert('merge_pascal_json', 'a.json', 'b.json', output, fails=True)
    assert {name: (tmp_path / f'{name}.json').read_text() for name in 'abc'} == texts
    for _ in range(2):
        convert('merge_pascal_json', 'a.json', 'b.json', 'm.json')
    merged = (tmp_path / 'm.json').read_text()
    assert 'no earlier output' in convert('merge_pascal_json', 'a.json', 'c.json', 'm.json', fails=True)
    assert (tmp_path / 'm.json').read_text() == merged


def test_merge_reads_what_training_reads(convert, tmp_path):
    """Ids that are texts, doubled class names and doubled annotation ids are merged as training takes them."""
    coco = {
        'images': [{'id': 'im1', 'file_name': 'a.png'}, {'id': 2.0, 'file_name': 'b.png'}],
        'annotations': [
            {'id': 1, 'image_id': 'im1', 'category_id': '1', 'bbox': ['1', 2, 3, 4]},
            {'id': 1, 'image_id': '2', 'category_id': 2, 'bbox': [[1, 2, 3, 4]]},
        ],
        'categories': [{'id': 1, 'name': 'cat'}, {'id': 2, 'name': 'cat'}],
    }
    write_text(tmp_path / 'a.json', json.dumps(coco))
    coco_file(tmp_path / 'b.json', 'c.png')
    convert('merge_pascal_json', 'a.json', 'b.json', 'm.json')
    found = classes_and_boxes(tmp_path / 'm.json')
    assert found == [('cat', [1, 2, 3, 4]), ('cat (2)', [1, 2, 3, 4]), ('cat', [1, 2, 3, 4])]


def test_extreme_points_in_place(convert, tmp_path):
    """A file may be its own output: nothing of it is lost but what is added, and a link stays a link."""
    square = [[1, 2, 5, 2, 5, 6, 1, 6]]
    coco_file(tmp_path / 'a.json', 'a.png', segmentation=square, iscrowd='false', note='kept')
    before = read(tmp_path / 'a.json')
    (tmp_path / 'link.json').symlink_to('a.json')
    for path in ('a.json', 'link.json'):
        convert('gen_coco_extreme_points', path, path)
        after = read(tmp_path / 'a.json')
        assert after['annotations'][0].pop('extreme_points') == [[3, 2], [1, 4], [3, 6], [5, 4]]
        assert after == before
    assert (tmp_path / 'link.json').is_symlink()
    text = coco_file(tmp_path / 'other.json', 'x.png')
    assert 'no earlier output' in convert('gen_coco_extreme_points', 'a.json', 'other.json', fails=True)
    assert (tmp_path / 'other.json').read_text() == text
    for _ in range(2):
        convert('gen_coco_extreme_points', 'a.json', 'new.json')


@pytest.mark.parametrize('segmentation', [[[10**400, 1, 2, 3, 4, 5]], 5, [[]], {'size': [1], 'counts': [-1]}, [['x']]])
def test_extreme_points_of_broken_segmentations(convert, tmp_path, segmentation):
    """An object whose segmentation cannot be used is named and keeps its place."""
    coco_file(tmp_path / 'a.json', 'a.png', segmentation=[[1, 2, 5, 2, 5, 6, 1, 6]])
    coco = read(tmp_path / 'a.json')
    coco['annotations'].append(coco['annotations'][0] | {'id': [7], 'segmentation': segmentation})
    write_text(tmp_path / 'a.json', json.dumps(coco))
    assert 'at position 1' in convert('gen_coco_extreme_points', 'a.json', 'b.json')
    assert 'extreme_points' not in read(tmp_path / 'b.json')['annotations'][1]


def test_vis_pred_reads_what_training_reads(convert, tmp_path):
    """Boxes as texts, text ids and backslashes are read; entries that cannot be drawn are named, the rest is drawn."""
    for name in ('images/a/b.png', 'images/a_b.png'):
        write_image(tmp_path / name, 200, 200)
    coco = {
        'images': [{'id': 'x', 'file_name': 'a\\b.png'}, {'id': 'y', 'file_name': 'images/a_b.png'}],
        'annotations': [{'image_id': 'x', 'category_id': 1, 'bbox': ['20', '20', '50', '50']}],
        'categories': [{'id': 1, 'name': 'cat', 'skeleton': 5}],
    }
    rows = [
        {'image_id': 'y', 'category_id': '1', 'bbox': [[20, 20, 50, 50]], 'score': '0.9'},
        {'image_id': 'y', 'category_id': 1, 'bbox': [20, 20, 1e300, 50], 'score': 0.9},
        {'image_id': 'y', 'category_id': 1, 'bbox': [20, 20, 50, 50], 'score': 'x'},
        None,
    ]
    write_text(tmp_path / 'c.json', json.dumps(coco))
    write_text(tmp_path / 'r.json', json.dumps(rows))
    said = convert('vis_pred', 'c.json', 'r.json', 'images', '--output', 'out', '--truth')
    assert 'without a usable score' in said and "'skeleton' is no list" in said
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['a_b.png', 'a_b_2.png']
    drawn = [cv2.imread(str(tmp_path / 'out' / name)) != 99 for name in ('a_b.png', 'a_b_2.png')]
    half = drawn[0].shape[1] // 2
    drawn = [panels[-half:] for panels in drawn]  # square ones, below their captions
    assert drawn[0][:, :half].any() and not drawn[0][:, half:].any()
    assert drawn[1][:, half:].any() and not drawn[1][:, :half].any()


def test_vis_pred_writes_over_no_image(convert, tmp_path):
    """An image that a link leads to from the output folder is not drawn over."""
    write_image(tmp_path / 'images/a.png')
    (tmp_path / 'out').mkdir()
    os.link(tmp_path / 'images/a.png', tmp_path / 'out/a.png')
    coco_file(tmp_path / 'c.json', 'a.png')
    write_text(tmp_path / 'r.json', '[]')
    before = (tmp_path / 'images/a.png').read_bytes()
    assert 'would overwrite' in convert('vis_pred', 'c.json', 'r.json', 'images', '--output', 'out', fails=True)
    assert (tmp_path / 'images/a.png').read_bytes() == before
