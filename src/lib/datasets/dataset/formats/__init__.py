"""Formats of folders of own data, one module each: how a folder is known, and how it is read without conversion."""

from .base import FolderFormat
from .detect import FORMATS, open_folder

__all__ = ['FORMATS', 'FolderFormat', 'open_folder']
