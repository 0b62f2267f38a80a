"""Export: python export.py TASK --load_model MODEL.pth [--output MODEL.onnx].

`main` reads the options and writes the file, `check_options` refuses what cannot be exported: lib/programs/export.py
has both, top-down, for `centernet export` too.
"""

from lib.programs.export import check_options, main
from lib.utils.cli import run_cli

__all__ = ['check_options', 'main']

if __name__ == '__main__':
    run_cli(main)
