"""Evaluate a checkpoint: python test.py TASK --load_model FILE [options].

`main` reads the options, has the results scored and reported, and `detect_all` shares the images out and detects in
them: lib/programs/test.py has both, top-down, for `centernet test` too.
"""

from lib.programs.test import detect_all, main
from lib.utils.launch import run_ranked

__all__ = ['detect_all', 'main']

if __name__ == '__main__':
    run_ranked(main)
