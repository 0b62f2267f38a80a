"""Pascal VOC's files: XML annotations, the images that they describe, and lists of the images of a split."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import TypeVar

from lxml import etree

from ..utils.errors import UserError
from ..utils.files import read_bytes
from ..utils.media import is_image
from .coco_file import read_flag
from .conversion import AnnotatedImage, Tally, add_object, entry_paths, headers_of, measure_image, read_names
from .findings import Findings

T = TypeVar('T')
Watch = Callable[[Iterable[Path], str], Iterable[Path]]

BOX_KEYS = ('xmin', 'ymin', 'xmax', 'ymax')
EXPECTED_OBJECT = '<object> with <name> and <bndbox> of xmin, ymin, xmax, ymax'
EXPECTED_FILE = 'VOC XML (<annotation>), each with an image of the same name'
# Lists whose images train and validate where there are no lists of that very name.
TRAIN_LISTS, VAL_LISTS = ('train', 'training', 'trainval'), ('val', 'valid', 'validation', 'test')


def unwatched(items: Iterable[Path], label: str) -> Iterable[Path]:
    """Return the items; in place of `track`, which shows progress."""
    return items


def list_files(folder: Path, output: Path | None = None) -> tuple[list[Path], dict[str, list[Path]]]:
    """List a folder's XML files, and its images by their names without suffix, sorted.

    Args:
        folder: the folder, searched with those below it.
        output: a place below it that is not searched.
    """
    left_out = None if output is None else Path(os.path.realpath(output))
    nested = left_out is not None and Path(os.path.realpath(folder)) in left_out.parents
    files = (path for path in folder.rglob('*') if path.is_file())
    paths = sorted(
        (path for path in files if not (nested and left_out in Path(os.path.realpath(path)).parents)), key=os.fspath
    )
    by_stem = defaultdict(list)
    for path in paths:
        if is_image(path) and not path.parent.name.startswith('Segmentation'):  # VOC's masks have the same names
            by_stem[path.stem].append(path)
    return [path for path in paths if path.suffix.lower() == '.xml'], by_stem


def read_folder(
    folder: Path, files: Tally, objects: Tally, output: Path | None = None, watch: Watch = unwatched
) -> dict[Path, AnnotatedImage]:
    """Read the usable images of a VOC folder.

    Args:
        folder: the folder.
        files, objects: count XML files and their objects.
        output: where the results go; what lies there, below the folder, is not read.
        watch: shows the progress, such as `track`.

    Returns:
        The images by the path of their XML file.

    Raises:
        UserError: the folder has no XML file.
    """
    xml_files, by_stem = list_files(folder, output)
    if not xml_files:
        raise UserError(f"no XML file below '{folder}'")
    roots = {path: root for path in watch(xml_files, str(folder)) if (root := parse_xml(path, files)) is not None}
    pairs = pair_files(roots, by_stem, files)
    headers = headers_of(folder, list(dict.fromkeys(pairs.values())))
    images = {}
    for xml_file, path in pairs.items():
        root = roots[xml_file]
        image = measure_image(path, files.findings, stated_size(root), header=headers[path])
        if image is None:
            files.lose('XML files left out, of an image that cannot be used', xml_file.name)
            continue
        files.use()
        for item in root.findall('object'):
            read_object(item, image, objects)
        images[xml_file] = image
    return images


def class_names(images: Iterable[AnnotatedImage]) -> list[str]:
    """Return the names of all classes that images have, sorted."""
    return sorted({found.key for image in images for found in image.objects})


def parse_xml(path: Path, files: Tally) -> etree._Element | None:
    """Parse an annotation file, in any encoding; None, and a finding, if it is broken or none.

    A document with entities of its own is refused: annotations need none, and some expand without end.
    """
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(read_bytes(path), parser)  # not by its name, which need not be UTF-8
    except (UserError, etree.XMLSyntaxError, OSError, ValueError, LookupError) as error:
        files.lose('XML files left out, broken', f'{path.name} ({error})')
        return None
    declared = root.getroottree().docinfo.internalDTD
    if declared is not None and list(declared.iterentities()):
        files.lose('XML files left out, which declare entities', path.name)
        return None
    if root.tag != 'annotation':
        files.lose('XML files left out, not VOC annotations', path.name, f'<{root.tag}>')
        return None
    return root


def pair_files(
    roots: Mapping[Path, etree._Element], by_stem: Mapping[str, Sequence[Path]], files: Tally
) -> dict[Path, Path]:
    """Find the image of each XML file, and no image for two of them.

    An image has the name of the XML file, or else the one that the XML names. Of several it is the nearest: that with
    the most folders in common, seen from the root and then from the file (`annotations/val/1.xml` goes with
    `images/val/1.jpg`), and last that whose full name the XML has. Files between which that does not decide are left
    out.

    Args:
        roots: the content of each XML file.
        by_stem: image files by their names without suffix.
        files: counts XML files without an image.

    Returns:
        `{XML file: image file}`.
    """
    claims = defaultdict(list)  # image -> (nearness, XML file)
    for xml_file, root in roots.items():
        stated = PureWindowsPath((root.findtext('filename') or '').strip()).name  # understands both kinds of slash
        candidates = by_stem.get(xml_file.stem) or [
            path for path in by_stem.get(Path(stated).stem, []) if path.name == stated
        ]
        ranks = {path: (*nearness(xml_file, path), path.name == stated) for path in candidates}
        best = of_highest_rank(ranks)
        if not candidates:
            files.lose('XML files left out, without an image', xml_file.name, f'<filename>{stated}</filename>')
        elif len(best) > 1:
            files.lose('XML files left out, for which several images are as near', xml_file, str(best[0]))
        else:
            claims[best[0]].append((ranks[best[0]], xml_file))
    pairs = {}
    for path, claimants in claims.items():
        best = of_highest_rank({xml_file: rank for rank, xml_file in claimants})
        for _, xml_file in claimants:
            if [xml_file] == best:
                pairs[xml_file] = path
            else:
                files.lose('XML files left out, of an image that another describes', xml_file, str(path))
    return {xml_file: pairs[xml_file] for xml_file in roots if xml_file in pairs}


def of_highest_rank(ranks: Mapping[T, tuple]) -> list[T]:
    """Return the keys whose value is the highest one."""
    return [key for key, rank in ranks.items() if rank == max(ranks.values())]


def nearness(a: Path, b: Path) -> tuple[int, int]:
    """Count the folders that two files have in common, from the root and from the files."""
    return common_length(a.parent.parts, b.parent.parts), common_length(a.parent.parts[::-1], b.parent.parts[::-1])


def common_length(a: Iterable[str], b: Iterable[str]) -> int:
    """Return the number of items that are alike before the first difference."""
    pairs = [x == y for x, y in zip(a, b, strict=False)]
    return pairs.index(False) if False in pairs else len(pairs)


def names_of_classes(xml_files: Iterable[Path]) -> list[str]:
    """Return the names of all objects in XML files, sorted, whether or not their boxes can be used."""
    tally = Tally('XML files', Findings(''))
    roots = (parse_xml(path, tally) for path in xml_files)
    names = {object_name(item) for root in roots if root is not None for item in root.findall('object')}
    return sorted(names - {''})


def object_name(item: etree._Element) -> str:
    """Return the name of an `<object>`; '' without one."""
    return ' '.join((item.findtext('name') or '').split())


def stated_size(root: etree._Element) -> tuple[int, int] | None:
    """Return the width and height in the XML; None where there are none, or zeros."""
    try:
        size = int(root.findtext('size/width')), int(root.findtext('size/height'))
    except (TypeError, ValueError):
        return None
    return size if min(size) > 0 else None


def read_object(item: etree._Element, image: AnnotatedImage, objects: Tally) -> None:
    """Give an image the object of an `<object>`, its box moved from VOC's 1-based pixels to 0-based ones."""
    text = ' '.join(''.join(item.itertext()).split())
    name = object_name(item)
    try:
        xmin, ymin, xmax, ymax = (float(item.findtext(f'bndbox/{key}')) for key in BOX_KEYS)
    except (TypeError, ValueError):
        name = ''
    if not name:
        objects.lose('objects left out, without a name or four numbers', image.path.name, text)
        return
    stated = item.findtext('difficult')
    difficult = read_flag(stated or '0')
    if difficult is None:
        objects.findings.add(f"objects whose <difficult> is '{stated}', taken as not difficult", image.path.name)
    # the published VOC annotations keep the devkit's lengths: xmax - xmin, not + 1
    box = (xmin - 1, ymin - 1, xmax - 1, ymax - 1)
    add_object(image, name, box, objects, image.path.name, text, bool(difficult))


def name_splits(stems: Sequence[str]) -> dict[str, str]:
    """Return the split that each list (by its name without suffix) makes."""
    split_of = {stem: stem for stem in stems}
    for split, kinds in (('train', TRAIN_LISTS), ('val', VAL_LISTS)):
        serving = [stem for kind in kinds for stem in split_of if stem == kind]
        if serving:
            split_of[serving[0]] = split
    return split_of


def read_list(
    path: str | os.PathLike, images: Mapping[Path, AnnotatedImage], by_stem: Mapping[str, Sequence[Path]]
) -> tuple[dict[Path, AnnotatedImage], Tally]:
    """Find the images that a list of names means.

    Args:
        path: the list.
        images: all images, by the path of their XML file.
        by_stem: XML files as `stems_of` returns them.

    Returns:
        The images in the order of the list, and the count of its names.
    """
    names = Tally('names', Findings(os.fspath(path)))
    members = {}
    for entry in read_names(path):
        found = find_entry(entry, Path(os.path.realpath(path)), images, by_stem, names)
        if found is not None:
            names.use()
            members[found] = images[found]
    return members, names


def stems_of(images: Mapping[Path, AnnotatedImage]) -> dict[str, list[Path]]:
    """Return the XML files by their names without suffix, and by those of their images."""
    by_stem = defaultdict(list)
    for xml_file, image in images.items():
        for stem in {xml_file.stem, image.path.stem}:
            by_stem[stem].append(xml_file)
    return by_stem


def find_entry(
    entry: str,
    list_file: Path,
    images: Mapping[Path, AnnotatedImage],
    by_stem: Mapping[str, Sequence[Path]],
    names: Tally,
) -> Path | None:
    """Find the XML file of the image that a line of a list names, with or without folders and suffix.

    Of several images of that name it is the one in the folders that the line names, and then the nearest to the list.
    """
    for path in entry_paths(entry):
        # a name may hold a dot that is no suffix
        candidates = by_stem.get(path.name) or by_stem.get(path.stem) or []
        ranks = {}
        for xml_file in candidates:
            folders = max(
                common_length(path.parts[-2::-1], place.parent.parts[::-1])
                for place in (xml_file, images[xml_file].path)
            )
            ranks[xml_file] = (folders, common_length(list_file.parts, Path(os.path.realpath(xml_file)).parts))
        best = of_highest_rank(ranks)
        if len(best) == 1:
            return best[0]
        if best:
            names.lose('names left out, that several images have', entry, entry)
            return None
    names.lose('names left out, without a usable image', entry, entry)
    return None
