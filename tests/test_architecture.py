"""The rules of docs/architecture.md, read from the source itself."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "kerasopt"
FILES = sorted(PACKAGE.rglob("*.py"))
FILES_AROUND = sorted(
    path for folder in ("tests", "benchmarks", "examples") for path in (ROOT / folder).rglob("*.py")
)
TEST_MODULE = re.compile(r"\btests\.(?:\w+\.)*(?:test_\w+|conftest)")
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 50

ONLY_IN = {
    "keras_cv": ("augmentation/",),
    "tensorflow_model_optimization": ("pruning/_schedules.py",),
    "ai_edge_litert.interpreter": ("export/",),
}
FORBIDDEN = ("keras.src", "tensorflow.python", "keras_cv.src")


def place(path):
    return path.relative_to(PACKAGE).as_posix()


def from_root(path):
    return path.relative_to(ROOT).as_posix()


def room_of(path):
    """Returns the first part of a file's place: a room, or a module without `.py`."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_of(tree):
    """Lists every module that is named in an import, with what is imported from it."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            found += [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
    return found


def dotted_names(tree):
    """Lists `a.b.c` as it stands in expressions."""
    return [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]


def is_inside(module, parent):
    return module == parent or module.startswith(parent + ".")


def rooms_imported(path):
    """Returns the rooms that a file imports, and the private files among them."""
    rooms, private = set(), []
    for module in imports_of(tree_of(path)):
        parts = module.split(".")
        if parts[0] != "kerasopt" or len(parts) < 2 or not (PACKAGE / parts[1]).is_dir():
            continue
        if parts[1] == room_of(path):
            continue
        rooms.add(parts[1])
        if any(part.startswith("_") for part in parts[2:]):
            private.append(module)
    return rooms, private


def allowed_imports():
    """Reads the table of docs/architecture.md: room -> rooms it may import."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = re.search(r"<!-- rooms -->(.*?)<!-- /rooms -->", text, re.DOTALL).group(1)
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| `")]
    return {
        re.findall(r"`(\w+)(?:/|\.py)`", name)[0]: set(re.findall(r"`(\w+)`", rooms))
        for _, name, _purpose, rooms, _ in rows
    }


def test_every_room_has_a_row_in_the_table_of_rooms():
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    modules = {path.stem for path in PACKAGE.glob("[a-z]*.py")}
    assert set(allowed_imports()) >= rooms | modules


@pytest.mark.parametrize("path", FILES, ids=place)
def test_a_file_imports_only_the_rooms_it_may(path):
    rooms, private = rooms_imported(path)
    assert not private, f"{place(path)} imports private files of other rooms: {private}"
    allowed = allowed_imports().get(room_of(path), set())
    assert rooms <= allowed, f"{place(path)} may import {allowed}, and imports {rooms}"


def test_the_package_as_a_whole_is_imported_in_two_files_alone():
    """Through `import kerasopt` a room could reach any other, past the table."""
    found = [place(path) for path in FILES if "kerasopt" in imports_of(tree_of(path))]
    assert [name for name in found if "/" in name] == [
        "profiling/_sides.py",
        "quantization/_gap.py",
    ]


def test_rooms_do_not_import_each_other_in_circles():
    allowed = allowed_imports()
    done = set()
    while len(done) < len(allowed):
        free = {room for room, needs in allowed.items() if room not in done and needs <= done}
        assert free, f"a circle among {sorted(set(allowed) - done)}"
        done |= free


@pytest.mark.parametrize("path", FILES, ids=place)
def test_hosts_are_imported_where_they_belong(path):
    tree = tree_of(path)
    for module in imports_of(tree):
        for host, places in ONLY_IN.items():
            if is_inside(module, host):
                assert place(path).startswith(places), f"{module} belongs into {places}"
        assert not any(is_inside(module, private) for private in FORBIDDEN), module
    for name in dotted_names(tree):
        assert not any(is_inside(name, private) for private in FORBIDDEN), name


@pytest.mark.parametrize("path", FILES, ids=place)
def test_user_input_is_not_checked_with_assert_and_errors_are_not_swallowed(path):
    for node in ast.walk(tree_of(path)):
        assert not isinstance(node, ast.Assert), f"assert in line {node.lineno}"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"bare except in line {node.lineno}"


@pytest.mark.parametrize("path", FILES, ids=place)
def test_files_and_functions_stay_short(path):
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= MAX_FILE_LINES
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert code_lines(node) <= MAX_FUNCTION_LINES, f"{node.name} is too long"


@pytest.mark.parametrize("path", FILES_AROUND, ids=from_root)
def test_files_around_the_package_stay_short_too(path):
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= MAX_FILE_LINES, "split it along its topics"


@pytest.mark.parametrize("path", FILES_AROUND, ids=from_root)
def test_no_file_imports_a_test_module(path):
    imported = [module for module in imports_of(tree_of(path)) if TEST_MODULE.match(module)]
    assert not imported, "what several tests use belongs into a module beside tests/models.py"


def code_lines(function):
    """Counts a function's lines from `def` to its end, without its docstring."""
    first = function.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(
        getattr(first.value, "value", None), str
    )
    docstring = first.end_lineno - first.lineno + 1 if documented else 0
    return function.end_lineno - function.lineno + 1 - docstring


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*/__init__.py")), ids=place)
def test_a_room_only_re_exports(path):
    *imports, names = tree_of(path).body[1:]
    assert ast.get_docstring(tree_of(path))
    assert all(isinstance(node, ast.ImportFrom) for node in imports)
    assert isinstance(names, ast.Assign)
    assert names.targets[0].id == "__all__"
    listed = ast.literal_eval(names.value)
    assert listed == sorted(listed)
    assert set(listed) == {alias.name for node in imports for alias in node.names}
