"""No program writes over what it reads, whatever the names by which input and output are called."""

import os

import pytest

from lib.utils.errors import UserError
from lib.utils.files import ReadPaths, refuse_overwriting, refuse_replacing


@pytest.fixture
def image(tmp_path):
    path = tmp_path / 'originals' / 'a.jpg'
    path.parent.mkdir()
    path.write_bytes(b'mine')
    return path


def test_same_file_by_any_name_is_refused(tmp_path, image):
    linked_folder = tmp_path / 'linked'
    linked_folder.symlink_to(image.parent)
    symlink, hardlink = tmp_path / 'symlink.jpg', tmp_path / 'hardlink.jpg'
    symlink.symlink_to(image)
    os.link(image, hardlink)
    roundabout = image.parent / '..' / 'originals' / 'a.jpg'
    names = [image, symlink, hardlink, linked_folder / 'a.jpg', roundabout, os.path.relpath(image)]
    for output in names:
        for read in names:
            with pytest.raises(UserError, match='--save: .* would overwrite'):
                refuse_overwriting(output, [tmp_path / 'other', read], '--save')
    with pytest.raises(UserError, match='would overwrite'):
        refuse_overwriting(linked_folder, [image.parent])


def test_dangling_link_to_the_output_is_refused(tmp_path):
    link = tmp_path / 'link.json'
    link.symlink_to(tmp_path / 'missing.json')
    with pytest.raises(UserError, match='would overwrite'):
        refuse_overwriting(tmp_path / 'missing.json', [link])


def test_other_files_are_free(tmp_path, image):
    copy = tmp_path / 'a.jpg'
    copy.write_bytes(image.read_bytes())
    refuse_overwriting(copy, [image, image.parent])
    refuse_overwriting(image.parent / 'b.jpg', [image, image.parent])
    ReadPaths([]).refuse(image)


def test_files_of_others_are_not_replaced(tmp_path, image):
    refuse_replacing(tmp_path / 'new.json', lambda path: False)
    refuse_replacing(image, lambda path: path.read_bytes() == b'mine')
    with pytest.raises(UserError, match='OUTPUT: .* is no earlier output'):
        refuse_replacing(image, lambda path: path.read_bytes() == b'yours', 'OUTPUT')
