"""Names of folders and files that mean a split."""

from pathlib import Path

SPLIT_WORDS = {
    **dict.fromkeys(('train', 'training', 'trainval'), 'train'),
    **dict.fromkeys(('val', 'valid', 'validation'), 'val'),
    **dict.fromkeys(('test', 'testing'), 'test'),
}
WHOLE = ''  # the part of data that nothing divides


def split_of(path: Path, folder: Path) -> str:
    """Return the split that a folder above a file, within `folder`, means by its name; `WHOLE` where none does."""
    names = path.relative_to(folder).parts[:-1]
    return next((SPLIT_WORDS[name.lower()] for name in names if name.lower() in SPLIT_WORDS), WHOLE)
