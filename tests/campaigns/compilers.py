"""Compile the kernels for other platforms than this one, by clang (`pip install ziglang`).

    python tests/campaigns/compilers.py [--targets x86_64-windows-gnu ...]

Objects are made, not linked: Python's headers are this machine's, with the sizes of Windows' types where it is the
target. MSVC, which is not here, knows C11 and __restrict, too. Prints a line each; exits 1 if one fails.
"""

import argparse
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

EXTERNAL = Path(__file__).resolve().parents[2] / 'src' / 'lib' / 'external'
TARGETS = ('x86_64-linux-gnu', 'aarch64-linux-gnu', 'x86_64-macos', 'aarch64-macos', 'x86_64-windows-gnu')
WINDOWS_SIZES = """
#include "{headers}/pyconfig.h"
#undef SIZEOF_LONG
#define SIZEOF_LONG 4
#undef SIZEOF_WCHAR_T
#define SIZEOF_WCHAR_T 2
#undef SIZEOF_PID_T
#define SIZEOF_PID_T 8
#undef HAVE_PTHREAD_H
#undef HAVE_SYS_WAIT_H
"""


def compile_kernel(source: Path, target: str, headers: list[str]) -> str:
    """Compile a C file to an object of the target; returns what is wrong with it, '' where nothing is."""
    command = [sys.executable, '-m', 'ziglang', 'cc', '-target', target, '-std=c11', '-D_GNU_SOURCE', '-c', '-w']
    command += [f'-I{folder}' for folder in [*headers, EXTERNAL]]
    done = subprocess.run([*command, str(source), '-o', f'{source}.o'], capture_output=True, text=True)
    return done.stderr if done.returncode else ''


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    parser.add_argument('--targets', nargs='+', default=list(TARGETS))
    args = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        os.environ['ZIG_GLOBAL_CACHE_DIR'] = os.environ['ZIG_LOCAL_CACHE_DIR'] = f'{folder}/cache'
        python = sysconfig.get_paths()['include']
        windows = Path(folder, 'windows')
        (windows / 'sys').mkdir(parents=True)
        (windows / 'pyconfig.h').write_text(WINDOWS_SIZES.format(headers=python))
        (windows / 'sys/select.h').touch()  # which Python's own header of Windows does not ask for
        for kernel in sorted(EXTERNAL.glob('*.pyx')):
            source = Path(folder, f'{kernel.stem}.c')
            name = f'centernet.external.{kernel.stem}'
            cython = [sys.executable, '-m', 'cython', '-3', '--module-name', name, str(kernel), '-o', str(source)]
            subprocess.run(cython, check=True)
            for target in args.targets:
                headers = [str(windows), python] if 'windows' in target else [python]
                complaints = compile_kernel(source, target, headers)
                failed += bool(complaints)
                print(f'{kernel.stem} for {target}: {complaints or "ok"}', flush=True)
    print(f'{failed} failed')
    sys.exit(failed > 0)


if __name__ == '__main__':
    main()
