"""The house in order: rooms that import downwards, short functions, docstrings with shapes, one word for one thing.

Reads the source as text (`ast`); nothing of it is imported but the tables of the last test.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

LIB = Path(__file__).resolve().parent.parent / 'src' / 'lib'
SRC = LIB.parent
PROGRAMS = LIB / 'programs'
FILES = sorted(path for path in SRC.rglob('*.py') if '__pycache__' not in path.parts)
TREES = {path: ast.parse(path.read_text()) for path in FILES}

# The rooms, from the lowest up: a module imports from its own room and from those before it.
ROOMS = (
    'version',
    'utils.errors',
    'external',
    'utils.rows',
    'utils',
    'tasks',
    'models',
    'datasets',
    'detectors',
    'opts',
    'logger',
    'reports',
    'trains',
    'exports',
    'programs',
    '__main__',
    '__init__',
)
# Imports inside functions: they wait until the command line is read, or load what tables name.
LATE = {
    ('opts', 'utils.device'): 'torch',
    ('opts', 'utils.precision'): 'torch',
    ('opts', 'models.checkpoints'): 'torch',
    ('opts', 'datasets.dataset_factory'): 'torch',
    ('opts', 'datasets.source_factory'): 'numpy and the readers of data',
    ('datasets.source_factory', 'datasets.dataset.formats'): 'cv2 and the readers of other formats',
    ('utils.launch', 'utils.ranks'): 'torch, and one process needs none',
    ('datasets.image_headers', 'datasets.loaders'): 'torch, which the converters do without',
    ('__init__', 'detectors.detector_factory'): 'import centernet is quick',
    ('__init__', 'models.checkpoints'): 'import centernet is quick',
    ('__init__', 'opts'): 'import centernet is quick',
}
LONGEST_FUNCTION = 80
ARRAYS = re.compile(r'ndarray|Tensor|ArrayLike|\bOutput\b|\bDetections\b')
SHAPE = re.compile(r'\[[^\]]*\w[^\]]*\]|\[\.\.\.\]|scalar|\b[Aa] number|as `|\bsame shape')


def name_of(path: Path) -> str:
    """A module's name below src/lib: `utils.files`, `models.networks.dla`; of a package its own."""
    name = '.'.join(path.relative_to(LIB).with_suffix('').parts)
    return name.removesuffix('.__init__')


def functions(tree: ast.AST, inside: tuple[str, ...] = ()) -> Iterator[tuple[str, ast.FunctionDef, list[str]]]:
    """Every function of a tree with its full name and the names of the classes and functions round it."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield '.'.join((*inside, node.name)), node, list(inside)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield from functions(node, (*inside, node.name))
        else:
            yield from functions(node, inside)


def imported(path: Path, node: ast.ImportFrom) -> list[str]:
    """The modules of src/lib that an import statement names, by `name_of`."""
    package = path.parent if path.name != '__init__.py' else path.parent
    for _ in range(node.level - 1):
        package = package.parent
    base = package / Path(*(node.module or '').split('.')) if node.module else package
    names = []
    for alias in node.names:
        for candidate in (base / alias.name, base):
            if candidate.with_suffix('.py').is_file() or (candidate / '__init__.py').is_file():
                target = candidate.with_suffix('.py') if candidate.with_suffix('.py').is_file() else candidate
                names.append(name_of(target) if target.suffix else '.'.join(target.relative_to(LIB).parts))
                break
    return names


def imports(path: Path, late: bool) -> Iterator[tuple[int, str]]:
    """Line and module of the imports of a file's own package: those at its top, or those inside functions."""

    def walk(node: ast.AST, in_function: bool) -> Iterator[tuple[int, str]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and 'TYPE_CHECKING' in ast.unparse(child.test):
                continue
            if isinstance(child, ast.ImportFrom) and child.level and in_function == late:
                yield from ((child.lineno, name) for name in imported(path, child))
            yield from walk(child, in_function or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)))

    return walk(TREES[path], False)


def room(module: str) -> int:
    """The place of a module in `ROOMS`: of the longest name that it begins with."""
    fitting = [name for name in ROOMS if module == name or module.startswith(f'{name}.')]
    assert fitting, f'{module} is in none of the rooms'
    return ROOMS.index(max(fitting, key=len))


def lib_files() -> list[Path]:
    return [path for path in FILES if LIB in path.parents]


def test_imports_run_downwards():
    """No arrow from a lower room to a higher one."""
    upward = [
        f'{name_of(path) or "__init__"}:{line} -> {target}'
        for path in lib_files()
        for line, target in imports(path, late=False)
        if target and room(target) > room(name_of(path) or '__init__')
    ]
    assert not upward, '\n'.join(upward)


def test_imports_run_in_no_circle():
    """Within a room, too, whoever imports is not imported back."""
    graph = {name_of(path): {target for _, target in imports(path, late=False) if target} for path in lib_files()}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, ' -> '.join((*trail, module))
        if module in done or module not in graph:
            return
        for target in graph[module] - {module}:
            visit(target, (*trail, module))
        done.add(module)

    for module in graph:
        visit(module, ())


def test_late_imports_have_a_reason():
    """An import inside a function hides an arrow: each is listed with its reason.

    Programs need none: they import what they run once the command line is found right, and nothing imports them.
    """
    found = {
        (name_of(path) or '__init__', target)
        for path in lib_files()
        if PROGRAMS not in path.parents
        for _, target in imports(path, late=True)
    }
    assert found == set(LATE), f'not listed: {found - set(LATE)}; gone: {set(LATE) - found}'


def test_functions_are_short():
    """A function that does not fit on a screen has steps that want names."""
    long = [
        f'{path.relative_to(SRC)}: {name} has {node.end_lineno - node.lineno + 1} lines'
        for path, tree in TREES.items()
        for name, node, _ in functions(tree)
        if node.end_lineno - node.lineno + 1 >= LONGEST_FUNCTION
    ]
    assert not long, '\n'.join(long)


def test_arrays_have_shapes():
    """A public function that takes or gives arrays says in its docstring which shape they have.

    A method without a docstring inherits the one of the method that it stands for.
    """
    silent = []
    for path, tree in TREES.items():
        for name, node, inside in functions(tree):
            if any(part.startswith('_') for part in name.split('.')) or any(part[0].islower() for part in inside):
                continue  # not public, or inside a function
            arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            annotations = [each.annotation for each in arguments] + [node.returns]
            arrays = any(ARRAYS.search(ast.unparse(each)) for each in annotations if each is not None)
            doc = ast.get_docstring(node)
            if arrays and not (SHAPE.search(doc) if doc else inside):
                silent.append(f'{path.relative_to(SRC)}:{node.lineno} {name}')
    assert not silent, '\n'.join(silent)


def test_public_functions_have_docstrings():
    """Module level functions and classes say what they do."""
    silent = [
        f'{path.relative_to(SRC)}:{node.lineno} {node.name}'
        for path, tree in TREES.items()
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
        and not node.name.startswith('_')
        and node.name != 'main'
        and not ast.get_docstring(node)
    ]
    assert not silent, '\n'.join(silent)


HABITS = {
    r'^What ': 'a docstring says what a function does, it does not ask',
    r'\b(tells|told)\b': 'says, gives, records, named',
    r'\bof those that\b': 'of the ... that',
    r'\btrunks?\b': 'backbone',
    r'(?<!stick )(?<!matplotlib )\bfigures?\b(?! \d)': 'metric',
}


def test_docstrings_use_the_words_of_the_field():
    """One word for one thing."""
    found = []
    for path, tree in TREES.items():
        if path.match('toy/people.py'):
            continue  # whose figures are people
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and (doc := ast.get_docstring(node)):
                for habit, instead in HABITS.items():
                    if match := re.search(habit, doc):
                        line = 1 if isinstance(node, ast.Module) else node.lineno
                        found.append(f"{path.relative_to(SRC)}:{line} '{match[0].strip()}': {instead}")
    assert not found, '\n'.join(found)


def test_expressions_are_no_statements():
    """`a if b else c` as a statement is an `if` in disguise."""
    found = [
        f'{path.relative_to(SRC)}:{node.lineno}'
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, (ast.IfExp, ast.BoolOp))
    ]
    assert not found, '\n'.join(found)


def test_the_library_logs():
    """Only programs print; the screen's handler and the progress of a program are of theirs."""
    allowed = {LIB / 'utils/log.py', LIB / 'utils/cli.py'}
    found = [
        f'{path.relative_to(SRC)}:{node.lineno}'
        for path in lib_files()
        if path not in allowed and PROGRAMS not in path.parents
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'print'
    ]
    assert not found, '\n'.join(found)


def test_tables_have_the_same_tasks():
    """Factories and the table of tasks name the same tasks, and the files of a task have its name."""
    from lib.datasets.dataset_factory import sample_factory
    from lib.detectors.detector_factory import detector_factory
    from lib.tasks import TASKS
    from lib.trains.train_factory import train_factory

    assert list(TASKS) == list(sample_factory) == list(train_factory) == list(detector_factory)
    for name, task in TASKS.items():
        for folder, factory in (
            ('datasets/sample', sample_factory),
            ('trains', train_factory),
            ('detectors', detector_factory),
        ):
            assert (LIB / folder / f'{name}.py').is_file() and factory[name].__module__.endswith(f'.{name}')
        assert train_factory[name].__name__ == task.trainer and detector_factory[name].__name__ == task.detector
