"""The floors of the house, read from the imports themselves."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from fnmatch import fnmatch
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import normcli

ROOT = Path(normcli.__file__).parent

# Which rooms of normcli each room may use; a room may always use itself.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "process_limits": set(),
    "publishing": {"errors", "process_limits"},
    "redaction": set(),
    "isolation": {"errors", "process_limits"},
    "retrying": {"errors"},
    "zarr_loop": set(),
    "domain": {"errors"},
    "kernels": {"errors", "domain"},
    "planning": {"errors", "domain"},
    "arrays": {
        "errors",
        "domain",
        "publishing",
        "process_limits",
        "isolation",
        "redaction",
        "retrying",
        "zarr_loop",
    },
    "bundles": {"errors", "domain", "publishing", "isolation", "retrying", "zarr_loop"},
    "engine": {
        "errors",
        "domain",
        "kernels",
        "planning",
        "arrays",
        "bundles",
        "publishing",
        "process_limits",
    },
    "api": {
        "errors",
        "domain",
        "kernels",
        "planning",
        "arrays",
        "bundles",
        "engine",
        "publishing",
        "redaction",
        "retrying",
        "",
    },
    "cli": {"errors", "redaction", "domain", "planning", "arrays", "bundles", "engine", "api", ""},
    "__main__": {"cli"},
    # The package itself only hands out what the api defines.
    "": {"api"},
}

# Where each foreign library lives; everything else is the standard library or numpy.
PLACES: dict[str, tuple[str, ...]] = {
    "numpy": ("*",),
    "click": ("cli/*",),
    "rich": ("cli/*",),
    "dask": ("engine/schedulers.py", "engine/cluster*.py"),
    "distributed": ("engine/cluster*.py",),
    "psutil": ("engine/resources.py",),
    "bitshuffle": ("arrays/hdf5_registered.py",),
    "imagecodecs": ("arrays/hdf5_registered.py",),
    "hdf5plugin": ("arrays/hdf5*.py",),
    "h5py": (
        "arrays/hdf5*.py",
        "bundles/hdf5_file.py",
        "bundles/keras_*.py",
        "bundles/matlab_file.py",
    ),
    "zarr": ("arrays/zarr*.py", "bundles/zarr_file.py", "zarr_loop.py"),
    "numcodecs": ("arrays/zarr*.py", "arrays/hdf5_registered.py", "bundles/zarr_file.py"),
    "zarrs": ("arrays/zarr_rust.py",),
    "google_crc32c": ("arrays/checksums.py",),
    "filelock": ("publishing/workplace.py",),
    "numba": ("kernels/numba_*.py", "kernels/select.py"),
    "llvmlite": ("kernels/numba_*.py",),
    "torch": ("bundles/torch_file.py",),
    "onnx": ("bundles/onnx_*.py",),
    "safetensors": ("bundles/safetensors_file.py",),
    "datasketches": ("domain/quantile_sketches.py",),
    "ml_dtypes": ("domain/dtypes.py", "bundles/element_types.py"),
}

# Modules that may import these at the top, because they are themselves imported when needed.
HEAVY = {"dask", "distributed", "psutil", "rich", "safetensors", "ml_dtypes", "zarrs"}
HEAVY |= {"torch", "onnx", "datasketches"}


def _sources() -> dict[str, ast.Module]:
    return {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(), str(path))
        for path in sorted(ROOT.rglob("*.py"))
    }


SOURCES = _sources()


def _module(file: str) -> str:
    parts = ["normcli", *file.removesuffix(".py").split("/")]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_module(file): file for file in SOURCES}


def _room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def _type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in (
        "TYPE_CHECKING",
        "typing.TYPE_CHECKING",
    )


def _imports(file: str, *, top_only: bool = False, typing_too: bool = True) -> set[str]:
    """Return the full names that a file imports: modules, not what is taken from them."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} line {node.lineno}: a relative import"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES else node.module)
        elif top_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            return
        if not typing_too and _type_checking(node):
            return
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(SOURCES[file])
    return found


def _foreign(file: str, **how: bool) -> set[str]:
    tops = {name.split(".")[0] for name in _imports(file, **how)}
    return tops - {"normcli"} - set(sys.stdlib_module_names)


def test_the_reader_of_imports_reads():
    assert "dask" in _foreign("engine/schedulers.py")
    assert "dask" not in _foreign("engine/schedulers.py", top_only=True)
    assert "normcli.domain.moments" in _imports("engine/collectors.py")
    assert len(SOURCES) > 50


def test_each_room_uses_only_the_floors_below():
    rooms = {_room(_module(file)) for file in SOURCES}
    assert rooms <= set(ALLOWED), "a new room: say above what it may use"
    reaching = {
        f"{file} uses {name}"
        for file in SOURCES
        for name in _imports(file)
        if name.split(".")[0] == "normcli"
        and _room(name) not in {_room(_module(file)), *ALLOWED[_room(_module(file))]}
    }
    assert not reaching


def test_foreign_libraries_live_in_named_places():
    misplaced = {
        f"{file} imports {library}"
        for file in SOURCES
        for library in _foreign(file)
        if not any(fnmatch(file, place) for place in PLACES.get(library, ()))
    }
    assert not misplaced


def test_heavy_libraries_are_imported_when_needed():
    early = {file: _foreign(file, top_only=True, typing_too=False) & HEAVY for file in SOURCES}
    assert not {file: found for file, found in early.items() if found}


def test_storage_and_kernels_are_imported_when_needed():
    for file in ("arrays/opening.py", "bundles/formats.py", "kernels/select.py"):
        assert _foreign(file, top_only=True) <= {"numpy"}


def test_no_import_cycles():
    graph = {
        name: _imports(file, top_only=True, typing_too=False) & set(MODULES) - {name}
        for name, file in MODULES.items()
    }
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")
    assert set(order) == set(MODULES)


def test_names_and_sizes_of_files():
    vague = {"utils", "util", "helpers", "helper", "manager", "common", "misc"}
    for file in SOURCES:
        words = {word for part in Path(file).with_suffix("").parts for word in part.split("_")}
        assert not vague & words, file
        lines = (ROOT / file).read_text().count("\n")
        most = 450 if file.startswith("kernels/") else 380
        assert lines <= most, f"{file} has {lines} lines; about 300 are meant"


def test_all_errors_have_their_documented_exit_code():
    tree = SOURCES["errors.py"]
    drawn = ast.get_docstring(tree) or ""
    from normcli import errors

    kinds = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    assert len(kinds) >= 8
    for kind in kinds:
        code = getattr(errors, kind).exit_code
        line = next(line for line in drawn.splitlines() if kind in line.split())
        assert str(code) in line.split(), f"{kind} exits with {code}: {line}"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        *([c, "-h"] for c in ("fit", "apply", "init", "extract", "convert", "learn", "check")),
    ],
)
def test_help_and_version_import_nothing_heavy(arguments):
    code = (
        "import json, sys\n"
        "from normcli.cli.main import main\n"
        "try:\n"
        f"    main({arguments!r}, prog_name='normcli')\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "print('MODULES', json.dumps(sorted({name.split('.')[0] for name in sys.modules})))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    screen, _, listed = done.stdout.rpartition("MODULES ")
    loaded = set(json.loads(listed))
    assert "normcli" in screen
    assert not loaded & {"numpy", "zarr", "dask", "rich", "h5py", "numba", "distributed", "psutil"}
    assert "click" in loaded


def _compiled(tree: ast.Module) -> dict[str, bool]:
    """Return the functions of a module that `jit` compiles, and whether each is an entry."""
    return {
        function.name: any(word.arg == "entry" for word in how.keywords)
        for function in tree.body
        if isinstance(function, ast.FunctionDef)
        for how in function.decorator_list
        if isinstance(how, ast.Call) and ast.unparse(how.func) == "jit"
    }


def test_python_calls_only_the_entries_of_compiled_code():
    # Others have no way in: calling one would end the process.
    trees = [ast.parse(path.read_text()) for path in sorted(ROOT.glob("kernels/*.py"))]
    compiled = [_compiled(tree) for tree in trees]
    inner = {name for names in compiled for name, entry in names.items() if not entry}
    found = set()
    for tree in trees:
        here = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
        here |= {
            alias.name
            for line in tree.body
            if isinstance(line, ast.ImportFrom)
            for alias in line.names
        }
        for function in tree.body:
            decorated = {
                ast.unparse(d.func if isinstance(d, ast.Call) else d)
                for d in getattr(function, "decorator_list", [])
            }
            if isinstance(function, ast.ImportFrom) or decorated & {"jit", "overload", "intrinsic"}:
                continue
            for node in ast.walk(function):
                if isinstance(node, ast.Name) and node.id in inner & here:
                    found.add(node.id)
                if isinstance(node, ast.Attribute) and node.attr in inner:
                    found |= {node.attr} if ast.unparse(node.value).startswith("numba_") else set()
    assert inner
    assert any(entry for names in compiled for entry in names.values())
    assert found == set()
