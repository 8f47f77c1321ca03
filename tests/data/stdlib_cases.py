"""Values of the standard library that travel between versions of Python.

The same shape as ``numpy_cases``. Python 3.8 reads it.
"""

import argparse
import array
import ast
import asyncio
import collections
import concurrent.futures
import contextlib
import copy
import csv
import dataclasses
import datetime as dt
import decimal
import email.message
import enum
import errno
import fractions
import functools
import http
import http.cookies
import importlib.machinery
import inspect
import io
import ipaddress
import itertools
import json
import logging
import math
import numbers
import operator
import os
import pathlib
import pickle
import platform
import queue
import random
import re
import selectors
import signal
import socket
import sqlite3
import ssl
import statistics
import string
import struct
import subprocess
import tarfile
import textwrap
import time
import tokenize
import types
import typing
import urllib.error
import urllib.parse
import uuid
import xml.etree.ElementTree
import zipfile


@dataclasses.dataclass
class Point:
    x: int
    y: "float" = 0.5
    tags: list = dataclasses.field(default_factory=list)


class Shade(enum.Enum):
    DARK = 1


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Mode(enum.IntFlag):
    A = 1
    B = 2


class Level(enum.IntEnum):
    LOW = 1


class Pair(typing.NamedTuple):
    left: int
    right: str = "r"


class Own(Exception):
    def __init__(self, code, *, detail=""):
        super().__init__(code)
        self.detail = detail


class Slots:
    __slots__ = ("a", "__dict__")

    def __init__(self):
        self.a = 1
        self.b = 2


def _noted(error, *notes):
    error.__notes__ = list(notes)
    return error


def _caused():
    try:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise ValueError("outer") from inner
    except ValueError as error:
        return error


def _deep(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def _element():
    root = xml.etree.ElementTree.Element("a", {"k": "v"})
    xml.etree.ElementTree.SubElement(root, "b").text = "text"
    return root


def _message():
    message = email.message.EmailMessage()
    message["Subject"] = "s"
    message.set_content("body")
    return message


def _zone():
    import zoneinfo

    return (
        zoneinfo.ZoneInfo("Europe/Berlin")
        if zoneinfo.TZPATH and "Europe/Berlin" in zoneinfo.available_timezones()
        else zoneinfo.ZoneInfo("UTC")
    )


def _advanced(iterator, count):
    for _ in range(count):
        next(iterator)
    return iterator


CASES = {
    # dates and numbers
    "datetime.date": lambda: dt.date(2024, 2, 29),
    "datetime.time": lambda: dt.time(23, 59, 59, 999999, fold=1),
    "datetime.datetime": lambda: dt.datetime(2024, 2, 29, 12, 30, 15, 123456),
    "datetime.datetime with utc": lambda: dt.datetime(2024, 2, 29, 12, tzinfo=dt.timezone.utc),
    "datetime.datetime with offset": lambda: dt.datetime(
        2024, 2, 29, 12, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=30), "IST")
    ),
    "datetime.datetime with fold": lambda: dt.datetime(2024, 10, 27, 2, 30, fold=1),
    "datetime.timedelta": lambda: dt.timedelta(days=-1, seconds=5, microseconds=7),
    "datetime.timezone.utc": lambda: dt.timezone.utc,
    "zoneinfo.ZoneInfo": _zone,
    "datetime.datetime with zoneinfo": lambda: dt.datetime(2024, 7, 1, tzinfo=_zone()),
    "time.struct_time": lambda: time.gmtime(0),
    "decimal.Decimal": lambda: [
        decimal.Decimal("1.10"),
        decimal.Decimal("-Infinity"),
        decimal.Decimal("sNaN"),
        decimal.Decimal((1, (1, 2), -300)),
    ],
    "decimal.Context": lambda: decimal.Context(prec=7, rounding=decimal.ROUND_FLOOR),
    "fractions.Fraction": lambda: fractions.Fraction(-7, 3),
    "complex, big and special numbers": lambda: [1 - 2j, 1 << 5000, -0.0, math.inf, True],
    "random.Random": lambda: random.Random(5),
    "statistics.NormalDist": lambda: statistics.NormalDist(1.0, 2.0),
    # text and bytes
    "bytes": lambda: bytes(range(256)),
    "bytearray": lambda: bytearray(b"abc\0"),
    "str with surrogates": lambda: "a\ud800\U0001f40d\0",
    "array.array": lambda: [
        array.array("d", [1.5, -2.0]),
        array.array("b", [1, -1]),
        array.array("u", "aé"),
        array.array("q"),
        array.array("L", [7]),
    ],
    "re.Pattern": lambda: [
        re.compile(r"(?P<n>a+)b", re.IGNORECASE | re.DOTALL),
        re.compile(rb"\d", re.ASCII),
    ],
    "re.RegexFlag": lambda: [re.IGNORECASE, re.IGNORECASE | re.MULTILINE],
    "string.Template": lambda: string.Template("$a"),
    "io.BytesIO": lambda: io.BytesIO(b"abc"),
    "io.StringIO": lambda: io.StringIO("abc"),
    "struct.Struct by its format": lambda: struct.calcsize("<iq"),
    "uuid.UUID": lambda: uuid.UUID(int=5),
    "uuid.SafeUUID": lambda: uuid.SafeUUID.unknown,
    "ipaddress": lambda: [
        ipaddress.ip_address("10.0.0.1"),
        ipaddress.ip_address("::1"),
        ipaddress.ip_network("10.0.0.0/8"),
        ipaddress.ip_interface("10.0.0.1/24"),
        ipaddress.ip_network("2001:db8::/32"),
        ipaddress.ip_interface("::1/64"),
    ],
    "urllib.parse": lambda: [
        urllib.parse.urlparse("http://u@h:1/p;q?r#s"),
        urllib.parse.urlsplit("http://h/p"),
    ],
    # paths
    "pathlib.Path": lambda: [pathlib.Path("a") / "b c", pathlib.Path("/"), pathlib.Path()],
    "pathlib.PurePath": lambda: [
        pathlib.PurePosixPath("/a/b.txt"),
        pathlib.PureWindowsPath(r"c:\a\b"),
    ],
    "os.stat_result": lambda: os.stat_result(range(10)),
    "os.terminal_size": lambda: os.terminal_size((80, 24)),
    "os.uname_result": lambda: (
        os.uname_result(["a", "b", "c", "d", "e"]) if hasattr(os, "uname_result") else None
    ),
    "platform.uname_result": lambda: platform.uname(),
    # collections
    "collections.OrderedDict": lambda: collections.OrderedDict([("b", 1), ("a", 2)]),
    "collections.defaultdict": lambda: collections.defaultdict(list, {"a": [1]}),
    "collections.Counter": lambda: collections.Counter("aab"),
    "collections.deque": lambda: collections.deque([1, 2], maxlen=5),
    "collections.ChainMap": lambda: collections.ChainMap({"a": 1}, {"b": 2}),
    "collections.UserDict": lambda: collections.UserDict(a=1),
    "collections.UserList": lambda: collections.UserList([1]),
    "collections.UserString": lambda: collections.UserString("a"),
    "namedtuple of a module": lambda: Pair(1),
    "types.SimpleNamespace": lambda: types.SimpleNamespace(a=1, b=[2]),
    "argparse.Namespace": lambda: argparse.Namespace(a=1),
    "range, slice, Ellipsis": lambda: [
        range(1, 10, 3),
        slice(1, None, 2),
        ...,
        NotImplemented,
        None,
    ],
    "frozenset": lambda: frozenset({1, "a"}),
    "dict, nested": lambda: {"a": {1: (2, [3, {4}])}},
    "list that holds itself": lambda: _self_list(),
    "iterators": lambda: [
        _advanced(iter([1, 2, 3]), 1),
        _advanced(iter(range(5)), 2),
        iter("ab"),
        _advanced(iter((1, 2)), 1),
    ],
    "itertools": lambda: [_advanced(itertools.count(5, 2), 2), itertools.repeat("a", 3)],
    "map, zip, enumerate": lambda: [
        map(abs, [-1, 2]),
        zip([1], [2]),
        enumerate(["a"]),
        reversed([1, 2]),
        filter(None, [0, 1]),
    ],
    "functools.partial": lambda: functools.partial(int, base=16),
    "operator": lambda: [
        operator.itemgetter(1, "a"),
        operator.attrgetter("a.b"),
        operator.methodcaller("upper"),
    ],
    "queue.Empty": lambda: queue.Empty("e"),
    # classes
    "dataclass of a module": lambda: Point(1, tags=["a"]),
    "dataclasses.MISSING": lambda: dataclasses.field().default is dataclasses.MISSING,
    "object with slots and a dict": lambda: Slots(),
    "enum of a module": lambda: [Shade.DARK, Access.READ, Level.LOW],
    "flags of a module, combined": lambda: [Access.READ | Access.WRITE, Mode.A | Mode.B, Access(0)],
    "enum classes": lambda: [Shade, Access, http.HTTPStatus],
    "http.HTTPStatus": lambda: [http.HTTPStatus.OK, http.HTTPStatus.NOT_FOUND],
    "signal": lambda: [signal.SIGTERM, signal.SIG_IGN, signal.Signals(9)],
    "socket constants": lambda: [socket.AF_INET, socket.SOCK_STREAM],
    "ssl constants": lambda: [ssl.CERT_REQUIRED, ssl.PROTOCOL_TLS_CLIENT],
    "uuid, inspect, locale enums": lambda: [inspect.Parameter.KEYWORD_ONLY, selectors.EVENT_READ],
    "inspect.Signature": lambda: inspect.signature(copy.copy),
    "plistlib, tarfile, zipfile": lambda: [
        zipfile.ZipInfo("a").filename,
        tarfile.TarInfo("a").name,
    ],
    "tarfile.TarInfo": lambda: tarfile.TarInfo("a"),
    "logging.LogRecord": lambda: logging.makeLogRecord(
        {"msg": "m %d", "args": (1,), "levelno": 20}
    ),
    "logging.Formatter": lambda: logging.Formatter("%(message)s"),
    "ast": lambda: ast.parse("x = 1 + f(y, z=2)"),
    "tokenize.TokenInfo": lambda: tokenize.TokenInfo(1, "a", (1, 0), (1, 1), "a"),
    "xml.etree.ElementTree.Element": _element,
    "email.message.EmailMessage": _message,
    "http.cookies.SimpleCookie": lambda: http.cookies.SimpleCookie("a=b"),
    "subprocess.CompletedProcess": lambda: subprocess.CompletedProcess(["a"], 1, "out", "err"),
    "csv.QUOTE_ALL, csv.excel": lambda: [csv.QUOTE_ALL, csv.excel],
    "importlib.machinery.ModuleSpec": lambda: importlib.machinery.ModuleSpec("a", None),
    "contextlib.nullcontext": lambda: contextlib.nullcontext(1),
    "sqlite3.Binary": lambda: bytes(sqlite3.Binary(b"a")),
    "shlex, textwrap": lambda: [textwrap.TextWrapper(40)],
    # types
    "builtin types": lambda: [
        int,
        dict,
        type,
        object,
        type(None),
        type(...),
        type(NotImplemented),
        ValueError,
    ],
    "abstract classes": lambda: [collections.abc.Mapping, numbers.Real, os.PathLike],
    "typing": lambda: [
        typing.List[int],
        typing.Optional[str],
        typing.Dict[str, typing.Any],
        typing.Callable[[int], str],
        typing.Union[int, str],
        typing.Tuple[int, ...],
    ],
    "typing.TypeVar": lambda: typing.AnyStr,
    "list[int]": lambda: eval("list[int]"),
    "int | str": lambda: eval("int | str"),
    "functions": lambda: [
        math.sqrt,
        len,
        os.path.join,
        json.dumps,
        [].append.__name__,
        str.upper,
        "a".upper,
        dict.fromkeys,
    ],
    # exceptions as values
    "exceptions": lambda: [
        ValueError("a", 1),
        KeyError("k"),
        OSError(errno.ENOENT, "no", "file"),
        StopIteration(3),
        SystemExit(2),
    ],
    "UnicodeDecodeError": lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    "ImportError": lambda: ImportError("m", name="n", path="p"),
    "AttributeError": lambda: AttributeError("m"),
    "NameError": lambda: NameError("m"),
    "SyntaxError": lambda: SyntaxError("m", ("f", 1, 2, "text")),
    "exception with a note": lambda: _noted(ValueError("v"), "first note", "second"),
    "exception with a cause": _caused,
    "exception of a module": lambda: _noted(Own(3), "note"),
    "json.JSONDecodeError": lambda: json.JSONDecodeError("m", "doc", 1),
    "subprocess.CalledProcessError": lambda: subprocess.CalledProcessError(3, ["cmd"], b"out"),
    "asyncio errors": lambda: [
        asyncio.CancelledError("c"),
        asyncio.TimeoutError("t"),
        asyncio.InvalidStateError("i"),
    ],
    "concurrent.futures errors": lambda: [
        concurrent.futures.TimeoutError("t"),
        concurrent.futures.CancelledError("c"),
    ],
    "socket.timeout": lambda: socket.timeout("t"),
    "re.error": lambda: re.error("m", "pattern", 1),
    "urllib.error.URLError": lambda: urllib.error.URLError("r"),
    "ExceptionGroup": lambda: ExceptionGroup("g", [ValueError(1), TypeError("t")]),  # noqa: F821
    "BaseExceptionGroup": lambda: BaseExceptionGroup("g", [KeyboardInterrupt()]),  # noqa: F821
    "EncodingWarning": lambda: EncodingWarning("w"),  # noqa: F821
    "PythonFinalizationError": lambda: PythonFinalizationError("p"),  # noqa: F821
    "classes of warnings": lambda: [DeprecationWarning("d"), ResourceWarning("r")],
    # large and deep
    "large bytes": lambda: b"abc" * 1_000_000,
    "large str": lambda: "é" * 500_000,
    "many small things": lambda: [(i, str(i), float(i)) for i in range(20_000)],
    "deep, within the limits": lambda: _deep(150),
}


def _self_list():
    value = [1]
    value.append(value)
    return value


def _fail_group():
    raise ExceptionGroup("group", [ValueError(1), KeyError("k")])  # noqa: F821


def _fail_noted():
    raise _noted(ValueError("v"), "a note")


#: What raises there: name -> (function, name of the exception's class)
RAISES = {
    "raises an exception with a note": (_fail_noted, "ValueError"),
    "raises Own": (lambda: _raise(Own(4, detail="d")), "Own"),
    "raises OSError": (lambda: os.stat("/no/such/file"), "FileNotFoundError"),
    "raises UnicodeDecodeError": (lambda: b"\xff".decode(), "UnicodeDecodeError"),
    "raises JSONDecodeError": (lambda: json.loads("{"), "JSONDecodeError"),
    "raises CalledProcessError": (
        lambda: _raise(subprocess.CalledProcessError(3, "c")),
        "CalledProcessError",
    ),
}


def _raise(error):
    raise error


def make(name):
    """Return the value of a case."""
    try:
        return CASES[name]()
    except (NameError, TypeError) as error:
        raise AttributeError("this Python has no %s: %s" % (name, error))


def expected(value):
    """Return the description of what arrives if the sender reads it again.

    Of itself if the standard library cannot pickle it.
    """
    try:
        return describe(pickle.loads(pickle.dumps(value, 5)))
    except (TypeError, AttributeError, pickle.PicklingError):
        return describe(value)


def describe(value):
    """Return what a value is, in builtin types that two versions of Python agree on."""
    return _describe(value, ())


def _describe(value, outer):
    if any(value is each for each in outer):
        return "itself"
    outer = (*outer, value)
    kind = type(value).__name__
    if value is typing.Any:
        return ["typing", "Any"]
    if isinstance(value, BaseException):
        notes = getattr(value, "__notes__", [])
        inner = [_describe(each, outer) for each in getattr(value, "exceptions", ())]
        extra = [
            str(getattr(value, name, None))
            for name in (
                "detail",
                "name",
                "path",
                "errno",
                "filename",
                "returncode",
                "lineno",
                "pos",
            )
        ]
        args = [] if inner else [str(each) for each in value.args]
        return [_name_of_error(kind), str(value).split("\n")[0], args, notes, inner, extra]
    if isinstance(value, random.Random):
        return [kind, pickle.loads(pickle.dumps(value)).random()]
    if isinstance(value, (io.BytesIO, io.StringIO)):
        return [kind, repr(value.getvalue()), value.tell()]
    if isinstance(value, ast.AST):
        return [kind, [type(each).__name__ for each in ast.walk(value)]]
    if isinstance(value, xml.etree.ElementTree.Element):
        return [kind, xml.etree.ElementTree.tostring(value, encoding="unicode")]
    if isinstance(value, email.message.Message):
        return [kind, value.as_string()]
    if isinstance(
        value,
        (
            logging.LogRecord,
            tarfile.TarInfo,
            logging.Formatter,
            textwrap.TextWrapper,
            string.Template,
            contextlib.nullcontext,
        ),
    ):
        shown = (
            value.getMessage()
            if isinstance(value, logging.LogRecord)
            else getattr(value, "name", getattr(value, "template", ""))
        )
        return [kind, shown]
    if isinstance(value, types.ModuleType):
        return ["module", value.__name__]
    if isinstance(value, type) and not hasattr(value, "__origin__"):
        return ["class", value.__module__.partition(".")[0], value.__qualname__]
    if isinstance(value, enum.Enum):
        return [kind, int(value.value) if isinstance(value.value, int) else str(value.value)]
    if (
        type(value).__module__ in ("typing", "types")
        and hasattr(value, "__origin__")
        or kind == "UnionType"
    ):
        origin = str(getattr(value, "__origin__", "")).replace("typing.", "")
        if kind == "UnionType":
            origin = "Union"  # what it is before Python 3.10; both are equal from then on
        return [
            "typing",
            origin,
            [_describe(each, outer) for each in getattr(value, "__args__", ())],
        ]
    if type(value).__module__ == "typing":
        return ["typing", str(value)]
    if isinstance(value, re.Pattern):
        return [kind, repr(value.pattern), value.flags]
    if isinstance(value, (str, bytes)) and len(value) > 1000:
        return [
            kind,
            len(value),
            hash_of(value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")),
        ]
    if isinstance(value, (collections.UserDict, argparse.Namespace, types.SimpleNamespace, Slots)):
        if isinstance(value, Slots):
            return [kind, value.a, value.b]
        return [
            kind,
            repr(
                vars(value)
                if isinstance(value, (argparse.Namespace, types.SimpleNamespace))
                else dict(value)
            ),
        ]
    if isinstance(value, (list, tuple, collections.deque)) and kind in ("list", "tuple", "deque"):
        return (
            [kind, hash_of(repr(value).encode())]
            if len(value) > 1000
            else [kind, [_describe(each, outer) for each in value]]
        )
    if isinstance(value, dict):
        return [
            kind,
            [[_describe(key, outer), _describe(each, outer)] for key, each in value.items()],
        ]
    if isinstance(value, (frozenset, set)):
        return [kind, sorted(map(repr, value))]
    if hasattr(value, "__next__"):
        value = pickle.loads(pickle.dumps(value))  # it can be read only once
        return ["iterator", [repr(each) for each in itertools.islice(value, 5)]]
    if isinstance(value, functools.partial):
        return [kind, value(*(["ff"] if value.keywords else []))]
    if kind in ("itemgetter", "attrgetter", "methodcaller"):
        return [kind, repr(value)]
    if callable(value) and hasattr(value, "__qualname__"):
        return ["callable", value.__qualname__]
    return [kind, repr(value)]


def _name_of_error(name):
    """Names that are one class in newer versions."""
    return "TimeoutError" if name == "timeout" else "error" if name == "PatternError" else name


def hash_of(data):
    """Return a digest."""
    import hashlib

    return hashlib.sha256(data).hexdigest()


def take(value):
    """Run in the worker: say what arrived and what will, and send it back."""
    return describe(value), expected(value), value


def give(name):
    """Run in the worker: make a value there; say what it is."""
    value = make(name)
    return expected(value), value


def fail(name):
    """Run in the worker: raise."""
    RAISES[name][0]()


def version():
    """Run in the worker: say which Python that is."""
    return platform.python_version()
