"""Builds the Cython kernels and installs `src/lib` under the name `centernet`."""

import os
import re
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup

ROOT = Path(__file__).parent
# The lines of requirements.txt that the library runs without, by the extras that have them.
EXTRAS = {
    'fast-images': {'simplejpeg'},
    'onnx': {'onnx', 'onnxscript', 'onnxruntime'},
    'openvino': {'openvino'},
    'int8': {'openvino', 'nncf'},
    'tensorboard': {'tensorboard'},
}
EXTRAS['dev'] = {
    *('Cython', 'ipykernel', 'mypy', 'nbclient', 'pytest', 'pytest-timeout', 'pytest-xdist', 'ruff', 'setuptools')
}.union(*EXTRAS.values())
HEADLESS = 'opencv-python-headless>=4.8'  # without windows, for machines that have no libGL: in place of opencv-python
# Where a kernel does not compile, the package is installed without, as each has a slow stand-in; unless this is set.
REQUIRE_KERNELS = os.environ.get('CENTERNET_REQUIRE_KERNELS', '') not in ('', '0')
SANITIZERS = os.environ.get('CENTERNET_SANITIZE', '')  # such as `address,undefined`: see `make asan`
SANITIZE = [f'-fsanitize={SANITIZERS}', '-fno-omit-frame-pointer', '-O1', '-g'] if SANITIZERS else []
THREADED = {'dcn', 'focal', 'upsample', 'winograd'}  # kernels whose rows OpenMP's threads share
ARITHMETIC = {  # kernel -> what gcc and clang may do with its floating-point numbers
    'focal': ['-fno-trapping-math'],  # vectorised choices
    'nms': ['-fno-trapping-math', '-ffp-contract=off'],  # the same on all processors
    'dcn': ['-fassociative-math', '-fno-signed-zeros', '-fno-trapping-math'],  # vectorised inner products
    'upsample': ['-fno-trapping-math', '-fno-signed-zeros'],  # vectorised choices
}


def compiler_options(name: str) -> dict[str, list[str]]:
    """The arguments of this platform's compiler and linker for a kernel; Apple's compiler has no OpenMP."""
    if sys.platform == 'win32':
        return {'extra_compile_args': ['/O2', *(['/openmp'] if name in THREADED else [])]}
    openmp = ['-fopenmp'] if name in THREADED and sys.platform != 'darwin' else []
    return {
        'extra_compile_args': ['-O3', *ARITHMETIC.get(name, []), *openmp, *SANITIZE],
        'extra_link_args': [*openmp, *SANITIZE[:1]],
    }


def requirements(extra: str = '') -> list[str]:
    """The lines of requirements.txt of an extra, or those that are in none."""
    lines = (line.partition('#')[0].strip() for line in (ROOT / 'requirements.txt').read_text().splitlines())
    names = {line: re.match(r'[\w.-]+', line).group() for line in lines if line}
    optional = set().union(*EXTRAS.values())
    return [line for line, name in names.items() if (name in EXTRAS[extra] if extra else name not in optional)]


def kernels() -> list[Extension]:
    """One extension a `src/lib/external/*.pyx`."""
    sources = [
        Extension(
            f'centernet.external.{path.stem}',
            [path.relative_to(ROOT).as_posix()],
            depends=sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / 'src/lib/external').glob('*.h')),
            include_dirs=['src/lib/external'],
            **compiler_options(path.stem),
        )
        for path in sorted((ROOT / 'src/lib/external').glob('*.pyx'))
    ]
    extensions = cythonize(sources, build_dir='build/cython', language_level=3)
    for extension in extensions:
        extension.optional = not REQUIRE_KERNELS  # Cython would not keep it
    return extensions


setup(
    install_requires=requirements(),
    extras_require={extra: requirements(extra) for extra in EXTRAS} | {'headless': [HEADLESS]},
    packages=['centernet', *(f'centernet.{name}' for name in find_packages(ROOT / 'src/lib')), 'centernet.tools'],
    ext_modules=kernels(),
)
