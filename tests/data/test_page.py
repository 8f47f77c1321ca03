"""The table of ``docs/data.md`` says what the cases show.

Each of its rows stands for cases, each case stands in a row.
"""

from __future__ import annotations

import fnmatch
import re

import pytest

from tests.conftest import ROOT
from tests.data import stdlib_cases, test_special, test_stdlib, torch_cases

numpy_cases = pytest.importorskip(
    "tests.data.numpy_cases", reason="numpy is not installed here", exc_type=ImportError
)

from tests.data import heavy_cases, test_numpy  # noqa: E402 - they need numpy

#: First column of the table -> patterns of the cases' names ("test_..." is a test of
#: ``test_special``).
ROWS: dict[str, tuple[str, ...]] = {
    "arrays of every dtype and memory order": (
        "array *", "0-d *", "Fortran order *", "order *", "empty*", "large", "large Fortran order",
        "read-only", "32 axes", "in containers",
        "object *", "str of no*", "void of no*",
    ),
    "scalars and dtypes, structured and aligned ones too": (
        "scalar *", "dtype *", "array aligned *",
    ),
    "masked arrays, matrix, recarray, chararray, subclasses": (
        "masked*", "nomask", "matrix", "recarray", "record", "chararray", "subclass *",
    ),
    "memmap": ("memmap",),
    "ufuncs, functions and classes of numpy": (
        "ufunc*", "function", "function of *", "class *", "newaxis*",
    ),
    "`Generator`, bit generators, `RandomState`, `SeedSequence`": (
        "Generator*", "RandomState*", "SeedSequence*", "bit generator *",
    ),
    "polynomials, `vectorize`, `iinfo`, index expressions, "
    "named results of `linalg` and `unique`": (
        "poly1d", "Polynomial", "Chebyshev", "vectorize", "iinfo", "index expression",
        "result of *",
    ),
    "numpy's exceptions": (
        "LinAlgError", "AxisError", "*Warning", "TooHardError", "raises LinAlg*", "raises Axis*",
        "raises _*", "raises UFunc*", "raises Too*",
        "raises Floating*",
    ),
    "`StringDType` and its arrays": ("StringDType", "array StringDType"),
    "classes of `numpy.dtypes`": ("class of a dtype",),
    "numbers, text, bytes, bytearray, `array.array`, containers, also large ones": (
        "complex, big*", "bytes", "bytearray", "str with*", "array.array", "dict, nested",
        "frozenset", "list that *", "large bytes", "large str",
        "many small things", "deep, within*", "struct.*", "io.*",
    ),
    "dates, times, decimals, fractions": (
        "datetime.*", "time.*", "decimal.*", "fractions.*", "random.Random", "statistics.*",
    ),
    "`zoneinfo.ZoneInfo`": ("zoneinfo.*", "datetime.datetime with zoneinfo"),
    "paths, UUIDs, IP addresses, compiled patterns, parsed URLs": (
        "pathlib.*", "uuid.*", "ipaddress", "re.Pattern", "re.RegexFlag", "urllib.parse",
    ),
    "`collections`, namedtuples, `SimpleNamespace`, ranges, slices": (
        "collections.*", "namedtuple *", "types.SimpleNamespace", "argparse.*", "range, *",
    ),
    "iterators over containers, `itertools`, `partial`, `operator`": (
        "iterators", "itertools", "map, *", "functools.*", "operator",
    ),
    "instances of your classes, dataclasses, enums, flags": (
        "dataclass*", "object with slots*", "enum of a module", "flags of *", "enum classes",
    ),
    "enums and constants of the standard library": (
        "http.HTTPStatus", "signal", "socket constants", "ssl constants", "uuid, inspect*", "csv.*",
    ),
    "other objects of the standard library": (
        "os.*", "inspect.*", "plistlib*", "tarfile.*", "logging.*", "ast", "tokenize.*", "xml.*",
        "email.*", "http.cookies*", "subprocess.Completed*",
        "importlib.*", "contextlib.*", "sqlite3.*", "shlex*", "string.*",
    ),
    "types, abstract classes, `typing`": ("builtin types", "abstract classes", "typing*"),
    "`list[int]`, `int \\| str`": ("list[[]int]", "int | str"),
    "functions and methods by name": ("functions",),
    "exceptions with attributes, notes and causes": (
        "exceptions", "exception *", "*Error", "queue.Empty", "asyncio errors",
        "concurrent.futures errors", "socket.timeout", "re.error",
        "classes of warnings",
        "raises an *", "raises Own", "raises OSError", "raises Unicode*", "raises JSON*",
        "raises Called*",
    ),
    "exceptions that the older Python lacks": ("EncodingWarning", "PythonFinalizationError"),
    "`ExceptionGroup`": ("*ExceptionGroup", "test_a_group_of_errors"),
    "`platform.uname_result`": ("platform.uname_result",),
    "memoryview": ("test_a_memoryview_arrives_as_bytes", "test_a_view_as_a_result"),
    "generators, locks, sockets, threads, frames": (
        "test_an_argument_that_cannot_travel", "test_a_result_that_cannot_travel",
    ),
    "nested more deeply than the recursion limit allows": (
        "test_a_deep_argument", "test_a_deep_result",
    ),
    "more than 2 GB": ("test_more_than_two_gigabytes",),
    "classes that this process lacks": (
        "test_a_result_of_a_class_that_is_not_here", "test_an_error_of_a_class_that_is_not_here",
    ),
    "classes that the worker lacks": (
        "test_an_argument_of_a_class_that_is_not_there", "test_a_version_that_lacks_a_name",
    ),
    "`scipy.sparse`": ("scipy.sparse.*",),
    "piecewise polynomials of scipy": ("scipy piecewise *",),
    "other objects of scipy": ("scipy Rotation", "scipy cKDTree"),
    "PIL images": ("PIL *",),
    "xarray": ("xarray*",),
    "pandas": ("pandas *",),
    "torch tensors of every dtype and layout": (
        "torch tensor*", *(f"torch {dtype}, *" for dtype in torch_cases.DTYPES),
    ),
    "torch parameters, modules, storages, dtypes": (
        "torch parameter*", "torch module", "torch state *", "torch storage", "torch dtype, size*",
    ),
}  # fmt: skip

IN_PYTHON = {*stdlib_cases.CASES, *stdlib_cases.RAISES}
IN_NUMPY = {*numpy_cases.CASES, *numpy_cases.RAISES}
SPECIAL = {name for name in vars(test_special) if name.startswith("test_")}
HEAVY = {*heavy_cases.CASES, *torch_cases.CASES}
EVERYTHING = IN_PYTHON | IN_NUMPY | HEAVY | SPECIAL
#: Cases that do not arrive everywhere, or not as they are.
EXCEPTIONS = {*test_numpy.IMPOSSIBLE, *test_stdlib.IMPOSSIBLE, *test_stdlib.APART}


def table() -> dict[str, str]:
    """Return the rows of the page."""
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ((?:[^|\\]|\\.)+?) \| ((?:[^|\\]|\\.)*?) ?\|$", page, re.MULTILINE)
    return {first: second for first, second in rows if not first.startswith(("**", "data", "---"))}


def cases_of(row: str) -> set[str]:
    return {
        name for pattern in ROWS[row] for name in EVERYTHING if fnmatch.fnmatchcase(name, pattern)
    }


def test_every_row_stands_for_cases() -> None:
    """Every pattern of it, too."""
    assert list(table()) == list(ROWS)
    idle = [
        (row, pattern)
        for row, patterns in ROWS.items()
        for pattern in patterns
        if not fnmatch.filter(EVERYTHING, pattern)
    ]
    assert not idle


def test_every_case_stands_in_a_row() -> None:
    """What is tested is told."""
    missing = (IN_PYTHON | IN_NUMPY | HEAVY) - set().union(*map(cases_of, ROWS))
    assert not missing


@pytest.mark.parametrize("row", ROWS)
def test_a_row_says_what_its_cases_show(row: str) -> None:
    """ "Arrives" without a condition only where no case is known to fail.

    "error" only where one is.
    """
    says = table()[row]
    own = {
        name for pattern in ROWS[row] for name in EVERYTHING if fnmatch.fnmatchcase(name, pattern)
    }
    # A case that a more particular row names belongs there.
    particular = {
        name
        for other, patterns in ROWS.items()
        if other != row
        for name in patterns
        if name in EXCEPTIONS or name == "list[[]int]"
    }
    impossible = {
        name
        for name in own & EXCEPTIONS
        if name not in particular and not (name == "list[int]" and "list[[]int]" in particular)
    }
    if impossible:
        assert says.startswith("error"), f"{sorted(impossible)} do not arrive everywhere"
    elif says.startswith("error"):
        assert all(name.startswith("test_") for name in own), "all of these arrive"
    for name, (_, replacement) in test_stdlib.REPLACED.items():
        if name in ROWS[row]:
            assert f"`{name}` as `{replacement}`" in says
    versions = {
        name: number
        for table_ in (test_stdlib.IMPOSSIBLE, test_stdlib.APART)
        for name, (number, _) in table_.items()
    }
    for name in impossible & set(versions):
        assert f"3.{versions[name]}" in says or f"Python 3.{versions[name] - 1}" in says, (
            f"{name}: the version is missing"
        )
