"""Look: python demo.py TASK --demo PATH --load_model FILE [options].

`main` opens what is looked at, `demo` detects and draws frame after frame, `report` prints the last lines:
lib/programs/demo.py has the three, top-down, for `centernet demo` too.
"""

from lib.programs.demo import demo, main, report
from lib.utils.cli import run_cli

__all__ = ['demo', 'main', 'report']

if __name__ == '__main__':
    run_cli(main)
