"""VOC folders through convert_voc_to_coco."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from .case import Case, tool
from .coco import assert_boxes, boxes_of_file, write_image
from .mutations import WRITABLE, break_alike, break_bytes, break_file, break_files, break_text, pick

IMAGES, WIDTH, HEIGHT = 12, 40, 30
BOXES = [[1, 1, 20, 10], [5, 6, 15, 24]]  # x y w h, 0-based


def make_base(folder: Path) -> None:
    """A folder with images, XML files and a list."""
    for i in range(IMAGES):
        write_image(folder / f'JPEGImages/p{i}.png', WIDTH, HEIGHT, i)
        path = folder / f'Annotations/p{i}.xml'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(xml_of(i))


def xml_of(i: int) -> str:
    """Return the annotation of image i, a line for each element."""
    lines = ['<annotation>', f'<filename>p{i}.png</filename>', '<size>', f'<width>{WIDTH}</width>']
    lines += [f'<height>{HEIGHT}</height>', '<depth>3</depth>', '</size>']
    for name, (x, y, w, h) in zip(('dog', 'cat'), BOXES, strict=True):
        lines += ['<object>', f'<name>{name}</name>', '<difficult>0</difficult>', '<bndbox>']
        corners = {'xmin': x + 1, 'ymin': y + 1, 'xmax': x + w + 1, 'ymax': y + h + 1}
        lines += [f'<{corner}>{value}</{corner}>' for corner, value in corners.items()]
        lines += ['</bndbox>', '</object>']
    return '\n'.join([*lines, '</annotation>', ''])


def break_xml(rng: np.random.Generator, data: bytes) -> tuple[bytes, str]:
    """Return an element's text, an element or bytes replaced, or an entity or another encoding declared."""
    kind = pick(rng, ['text', 'text', 'text', 'line', 'bytes', 'head'])
    if kind == 'bytes':
        return break_bytes(rng, data)
    if kind == 'line':
        return break_text(rng, data)
    if kind == 'head':
        head = pick(
            rng,
            [
                '<?xml version="1.0" encoding="x-unknown"?>',
                '<?xml version="1.0" encoding="utf-16"?>',
                '<?xml version="1.0" encoding="gb2312"?>',
                '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>',
                '<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;&b;&b;">]>',
                '<!-- -->' * 1000,
                '<x>' * 5000,
                'text',
            ],
        )
        entity = pick(rng, [b'dog', b'&b;', b'&c;'])
        return head.encode() + data.replace(b'dog', entity), f'{head[:50]} {entity!r}'
    lines = data.decode().splitlines()
    at = pick(rng, [i for i, line in enumerate(lines) if '</' in line and not line.startswith('</')])
    name = lines[at][1 : lines[at].index('>')]
    value = str(pick(rng, WRITABLE))
    escaped = value.replace('&', '&amp;').replace('<', '&lt;')
    lines[at] = f'<{name}>{escaped}</{name}>'
    return '\n'.join(lines).encode('utf-8', 'surrogatepass'), f'{name} is {value!r:.40}'


def make_case(rng: np.random.Generator, base: Path, folder: Path) -> Case:
    """One broken XML file, image or list."""
    data, output = folder / 'data', folder / 'output'
    shutil.copytree(base, data)
    broken = int(rng.integers(IMAGES))
    kind = pick(rng, ['xml'] * 6 + ['all', 'all', 'image', 'list', 'folder'])
    arguments: list[Any] = []
    if kind == 'xml':
        note = break_file(rng, data / f'Annotations/p{broken}.xml', break_xml)
    elif kind == 'all':
        note = break_alike(rng, data, 'Annotations/*.xml', break_xml)
    elif kind == 'image':
        note = break_file(rng, data / f'JPEGImages/p{broken}.png', break_bytes)
    elif kind == 'list':
        names = ''.join(f'p{i}\n' for i in range(IMAGES) if i != broken)
        (data / 'list.txt').write_text(names)
        note = break_file(rng, data / 'list.txt', break_text)
        arguments = ['--split_file', data / 'list.txt']
    else:
        note = break_files(rng, data)
    arguments += pick(rng, [[], [], ['--link'], ['--classes', 'cat', 'dog'], ['--val_fraction', '0.5']])

    def check(_: Any, shown: str) -> None:
        found = {}
        for path in (output / 'annotations').glob('*.json'):
            found |= boxes_of_file(path)
        for name in found:
            assert (output / 'images' / name).is_file(), f'{name} is listed but not there'
        assert any(found.values()), 'no object is left'
        if kind not in ('all', 'folder', 'list'):
            assert_boxes({f'p{i}.png': BOXES for i in range(IMAGES) if i != broken}, found, 'convert_voc_to_coco')

    program = tool('convert_voc_to_coco', data, output, *arguments)
    return Case(f'convert_voc_to_coco {" ".join(map(str, arguments[:1]))}: {note}', program, check, [data], output)
