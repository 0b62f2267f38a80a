"""The version: the only place of it, which the build reads too."""

__version__ = '1.1.0'
