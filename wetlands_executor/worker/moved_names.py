"""Names and forms in pickle streams that differ between versions of Python and numpy.

Modules and classes that moved, and a few forms that only one side reads.

Both unpicklers ask here, the worker's (``calls.RichUnpickler``) and the host's
(``unpickler._ResultUnpickler``). What is found under its own name costs nothing; a table is
consulted for ``numpy.`` modules and after a failure. Keeps no state but one cache; any thread may
enter.

numpy 2 renamed ``numpy.core`` to ``numpy._core``. numpy 1.26 has stubs of the new names, numpy 2 of
the old ones, and neither is complete or silent, so the name that is this version's own is always
the one that is looked up.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # importing typing costs 6 ms of a start
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Tuple

    Find = Callable[[str, str], Any]

#: Modules of the standard library and of numpy that have other names elsewhere: here is tried what
#: stands behind the name, in order.
MODULES: Dict[str, Tuple[str, ...]] = {
    "pathlib._local": ("pathlib",),  # 3.13 only
    "pathlib._abc": ("pathlib",),
    "re._compiler": ("sre_compile",),
    "re._constants": ("sre_constants",),
    "re._parser": ("sre_parse",),
    "sre_compile": ("re._compiler",),
    "sre_constants": ("re._constants",),
    "sre_parse": ("re._parser",),
    "_asyncio": ("asyncio",),
    "_ctypes": ("ctypes",),
    "_py_warnings": ("warnings",),  # 3.14
    "annotationlib": ("inspect", "typing"),
    "genericpath": ("posixpath", "ntpath"),
    "math.integer": ("math",),  # 3.15
    "profiling.tracing": ("cProfile",),
    "zipfile._path": ("zipfile",),
    "zoneinfo": ("backports.zoneinfo",),
    "zoneinfo._common": ("backports.zoneinfo._common",),
    "numpy.linalg.linalg": ("numpy.linalg._linalg",),
    "numpy.linalg._linalg": ("numpy.linalg.linalg",),
    "numpy.rec": ("numpy.core.records",),
    "numpy.char": ("numpy.core.defchararray",),
    "numpy.strings": ("numpy.core.defchararray",),
    "numpy.exceptions": ("numpy", "numpy.core._exceptions", "numpy.ma"),
}

#: Single names: (module, name) -> where else they are.
NAMES: Dict[Tuple[str, str], Tuple[Tuple[str, str], ...]] = {
    ("numpy.lib.polynomial", "RankWarning"): (
        ("numpy.exceptions", "RankWarning"),
        ("numpy", "RankWarning"),
    ),
    ("numpy", "RankWarning"): (("numpy.exceptions", "RankWarning"),),
    # Exceptions that older Pythons lack: the older name, the backport, or the class that code for
    # both would catch.
    ("pandas._libs.tslibs.nattype", "_nat_unpickle"): (
        ("pandas._libs.tslibs.nattype", "__nat_unpickle"),
    ),
    ("pandas._libs.tslibs.nattype", "__nat_unpickle"): (
        ("pandas._libs.tslibs.nattype", "_nat_unpickle"),
    ),
    ("re", "prefixmatch"): (("re", "match"),),  # 3.15
    ("posix", "_path_normpath"): (("posixpath", "normpath"),),
    ("enum", "EnumType"): (("enum", "EnumMeta"),),
    ("_thread", "lock"): (("_thread", "LockType"),),
    ("re", "PatternError"): (("re", "error"),),
    ("builtins", "ExceptionGroup"): (("exceptiongroup", "ExceptionGroup"),),
    ("builtins", "BaseExceptionGroup"): (("exceptiongroup", "BaseExceptionGroup"),),
    ("builtins", "EncodingWarning"): (("builtins", "Warning"),),
    ("builtins", "PythonFinalizationError"): (("builtins", "RuntimeError"),),
}

#: Tuples with names that numpy returns since 1.25; older ones return plain tuples, which cannot
#: take their place in a stream.
RESULTS: Dict[str, str] = {
    "EigResult": "eigenvalues eigenvectors",
    "EighResult": "eigenvalues eigenvectors",
    "QRResult": "Q R",
    "SlogdetResult": "sign logabsdet",
    "SVDResult": "U S Vh",
    "UniqueAllResult": "values indices inverse_indices counts",
    "UniqueCountsResult": "values counts",
    "UniqueInverseResult": "values inverse_indices",
}

#: Special forms of ``typing`` that are younger than Python 3.8: code needs them for remarks only.
FORMS = (
    "Annotated", "Concatenate", "LiteralString", "Never", "NotRequired", "ReadOnly", "Required",
    "Self", "TypeAlias", "TypeGuard", "TypeIs", "Unpack",
)  # fmt: skip

#: What cannot be cured, and what to do: a word of the name -> the remedy.
REMEDIES: Dict[str, str] = {
    "stringdtype": "the dtype of strings of variable width exists since numpy 2: send "
    "array.astype(str) or array.astype(object)",
    "templatelib": "template strings exist since Python 3.14: send the text, or its strings and "
    "values",
    "GenericAlias": "types like list[int] exist since Python 3.9",
    "zoneinfo": "zoneinfo exists since Python 3.9: install backports.zoneinfo there, or send "
    "datetime.timezone objects",
    "ExceptionGroup": "groups of exceptions exist since Python 3.11: install the package "
    "exceptiongroup there",
}

#: Names of the package that numpy 2 renamed; importing the wrong one warns.
_CORE = ("numpy.core", "numpy._core")


def find(module: str, name: str, original: Find) -> Any:
    """Return what a stream calls ``module.name``.

    Args:
        module: dotted name, as the sender knows it.
        name: dotted path in it.
        original: looks a name up as ``pickle`` does.

    Raises:
        ImportError, AttributeError: under no name is it here; the error is that of the stream's own
            name.
    """
    if module.startswith("numpy"):
        special = _of_numpy(module, name, original)
        if special is not None:
            return special
    try:
        return original(module, name)
    except (ImportError, AttributeError):
        for other_module, other_name in others(module, name):
            try:
                return original(other_module, other_name)
            except (ImportError, AttributeError):
                continue
        if name in RESULTS and module.startswith("numpy."):
            return _named_tuple(name)
        if module == "typing" and name in FORMS:
            from . import code_forms

            return code_forms.absent_form(name)
        raise


def others(module: str, name: str) -> List[Tuple[str, str]]:
    """Return the other names of ``module.name``, in the order in which they should be tried."""
    found = list(NAMES.get((module, name), ()))
    found += [(other, name) for other in MODULES.get(module, ())]
    package, _, last = module.rpartition(".")
    if package == "numpy.lib":  # numpy 2 calls its private halves so
        found.append((package, name))
        found.append(
            (module[:-5].replace(".lib._", ".lib."), name)
            if last.endswith("_impl")
            else ("numpy.lib._%s_impl" % last, name)
        )
    if module.startswith("numpy"):
        found += [(other, name) for other in ("numpy.exceptions", "numpy") if other != module]
    return found


def module_here(module: str) -> str:
    """Return the name under which this process imports a module.

    Of some modules the old name still exists but should not be used.
    """
    if module.startswith(_CORE) and "numpy" in _loaded("numpy"):
        rest = (
            module[len("numpy._core") :]
            if module.startswith("numpy._core")
            else module[len("numpy.core") :]
        )
        if not rest or rest[0] == ".":
            return ("numpy.core" if _is_numpy_1() else "numpy._core") + rest
    return module


def _loaded(module: str) -> Dict[str, Any]:
    """Return the loaded modules, this one among them if it can be imported."""
    if module not in sys.modules:
        try:
            __import__(module)
        except ImportError:
            pass  # the caller's own look-up will say so
    return sys.modules


def _is_numpy_1() -> bool:
    return str(sys.modules["numpy"].__version__).startswith("1.")


def _of_numpy(module: str, name: str, original: Find) -> Any:
    """Return what has to be looked up otherwise, or made otherwise, in this version of numpy.

    None for all the rest.
    """
    # What exists under this name too, but not without a warning.
    if name == "chararray" and module in ("numpy", "numpy.char"):
        if "numpy" not in _loaded("numpy") or _is_numpy_1():
            return None
        return original("numpy._core.defchararray", name)  # numpy.char warns from 2.5 on
    if module == "numpy":
        if name == "bool" and "numpy" in _loaded(module) and _is_numpy_1():
            return original(module, "bool_")
        return None
    if module.startswith(_CORE):
        here = module_here(module)
        try:
            found = original(here, name)
        except (ImportError, AttributeError):
            return None
        if name == "_frombuffer" and found.__code__.co_argcount < 5:
            return _Frombuffer(found)
        return found
    if module == "numpy.random._pickle":
        maker = original(module, name)
        if name in _MAKERS and _is_numpy_1():
            return _Maker(maker, _MAKERS[name])
        return maker
    if module == "numpy.random.bit_generator" and name == "__pyx_unpickle_SeedSequence":
        original(module, name)
        return _seed_sequence
    return None


class _Frombuffer:
    """``_frombuffer`` of a numpy without the argument for the order of axes.

    Newer ones send transposed arrays with it.
    """

    def __init__(self, original: Any) -> None:
        self.original = original

    def __call__(self, buffer: Any, dtype: Any, shape: Any, order: str, axes: Any = None) -> Any:
        if order == "K" and axes is not None:
            return self.original(buffer, dtype, shape, "C").transpose(axes)
        return self.original(buffer, dtype, shape, order)


def _named_tuple(name: str) -> Any:
    """Return a class that stands for one of numpy's results; it travels on as a plain tuple."""
    from collections import namedtuple

    def reduce(result: Any) -> Any:
        return tuple, (tuple(result),)

    make: Any = namedtuple  # noqa: PYI024 - made of names that are data
    made = make(name, RESULTS[name])
    made.__reduce__ = reduce
    return made


# --- what is pickled in a form of our own, because the forms of two versions differ Structured
# dtypes: numpy 2 pickles flags that numpy 1 cannot read, and the other way round the alignment is
# lost.


def reduce_dtype(dtype: Any) -> Any:
    """Reduce an aligned structured dtype to what every version reads: its fields.

    The rest as ``pickle`` does.
    """
    if not dtype.isalignedstruct or dtype.names is None or dtype.metadata is not None:
        return dtype.__reduce__()
    fields = [dtype.fields[name] for name in dtype.names]
    spec = {
        "names": list(dtype.names),
        "formats": [field[0] for field in fields],
        "offsets": [field[1] for field in fields],
        "itemsize": dtype.itemsize,
    }
    if any(len(field) > 2 for field in fields):
        spec["titles"] = [field[2] if len(field) > 2 else None for field in fields]
    return _dtype_class(), (spec, True)


def reduce_normal_dist(value: Any) -> Any:
    """Reduce a ``statistics.NormalDist`` to its arguments.

    Its state has two forms, and reading one as the other gives wrong numbers.
    """
    return type(value), (value.mean, value.stdev)


def reduce_coordinates(matrix: Any) -> Any:
    """Reduce a sparse matrix in coordinates to its parts.

    Older versions of scipy keep them under other names, and miss them later.
    """
    if matrix.ndim != 2:
        return matrix.__reduce_ex__(4)
    return type(matrix), ((matrix.data, (matrix.row, matrix.col)), matrix.shape)


def reduce_keys(matrix: Any) -> Any:
    """Reduce a sparse matrix of keys, which inherits from ``dict`` in some versions only."""
    if matrix.ndim != 2:
        return matrix.__reduce_ex__(4)
    return type(matrix), (matrix.tocoo(),)


def reduce_piecewise(value: Any) -> Any:
    """Reduce a piecewise polynomial to its arguments.

    Scipy 1.17 keeps them under other names, and an older one misses them when it is called.
    """
    return type(value).construct_fast, (value.c, value.x, value.extrapolate, value.axis)


def _numpy_reducers(numpy: Any) -> Dict[Any, Any]:
    return {type(numpy.dtype("V1")): reduce_dtype}


def _statistics_reducers(statistics: Any) -> Dict[Any, Any]:
    return {statistics.NormalDist: reduce_normal_dist}


def _interpolate_reducers(interpolate: Any) -> Dict[Any, Any]:
    names = (
        "PPoly",
        "BPoly",
        "CubicSpline",
        "CubicHermiteSpline",
        "PchipInterpolator",
        "Akima1DInterpolator",
    )
    return {
        getattr(interpolate, name): reduce_piecewise for name in names if hasattr(interpolate, name)
    }


def _torch_reducers(torch: Any) -> Dict[Any, Any]:
    from . import tensors

    return tensors.reducers(torch)


def _sparse_reducers(sparse: Any) -> Dict[Any, Any]:
    reductions = (
        ("coo_matrix", reduce_coordinates),
        ("coo_array", reduce_coordinates),
        ("dok_matrix", reduce_keys),
        ("dok_array", reduce_keys),
    )
    return {
        getattr(sparse, name): reduction for name, reduction in reductions if hasattr(sparse, name)
    }


#: Module -> (a name that it has when its import is complete, its reductions by class).
_REDUCERS: Dict[str, Tuple[str, Any]] = {
    "numpy": ("random", _numpy_reducers),
    "statistics": ("NormalDist", _statistics_reducers),
    "scipy.sparse": ("linalg", _sparse_reducers),
    "scipy.interpolate": ("pade", _interpolate_reducers),
    "torch": ("func", _torch_reducers),
}
#: Modules whose reductions make pickles that only this package reads.
_PRIVATE = ("torch",)
#: Those whose reductions have not been asked for yet, in this process.
pending: List[str] = list(_REDUCERS)


def learn_reducers(known: Dict[Any, Any], private: Dict[Any, Any]) -> None:
    """Add reductions of classes whose modules are loaded by now.

    Args:
        known: gets those that make pickles which every version reads, plain ones too.
        private: gets those for pickles between a host and its worker only.
    """
    for name in list(pending):
        last, make = _REDUCERS[name]
        module = sys.modules.get(name)
        if module is not None and hasattr(module, last):
            (private if name in _PRIVATE else known).update(make(module))
            if name in pending:  # Race: another thread has done the same
                pending.remove(name)


def _dtype_class() -> Any:
    return sys.modules["numpy"].dtype


# --- random numbers: numpy 2 pickles objects where numpy 1 expects names


class _Maker:
    """A constructor of numpy 1 that also takes what numpy 2 gives it."""

    def __init__(self, original: Any, otherwise: Any) -> None:
        self.original = original
        self.otherwise = otherwise

    def __call__(self, what: Any = "MT19937", *rest: Any) -> Any:
        return self.original(what, *rest) if isinstance(what, str) else self.otherwise(what)


def _bit_generator(base: Any) -> Any:
    """Return a bit generator that accepts the state of numpy 2: (state, seed sequence)."""
    made = _bit_generators.get(base)
    if made is None:

        def setstate(self: Any, state: Any) -> None:
            if isinstance(state, tuple):
                state, seed = state
                if seed is not None:
                    base.__init__(self, seed)
            self.state = state

        # The name is compared with the one in the state.
        made = type(
            base.__name__,
            (base,),
            {
                "__slots__": (),
                "__setstate__": setstate,
                "__module__": base.__module__,
                "__doc__": base.__doc__,
            },
        )
        _bit_generators[base] = made
    return made()


_bit_generators: Dict[Any, Any] = {}


def _generator(bit_generator: Any) -> Any:
    return sys.modules["numpy.random"].Generator(bit_generator)


def _random_state(bit_generator: Any) -> Any:
    return sys.modules["numpy.random"].RandomState(bit_generator)


_MAKERS: Dict[str, Any] = {
    "__bit_generator_ctor": _bit_generator,
    "__generator_ctor": _generator,
    "__randomstate_ctor": _random_state,
}


def _seed_sequence(kind: Any, checksum: Any, state: Any) -> Any:
    """Make a seed sequence.

    Its pickles are checked by a sum that differs between compilers, so the sum is not held against
    it.
    """
    unpickle = sys.modules["numpy.random.bit_generator"].__dict__["__pyx_unpickle_SeedSequence"]
    try:
        return unpickle(kind, checksum, state)
    except Exception as error:  # the PickleError that Cython has imported
        if "checksum" not in str(error):
            raise
    made = kind.__new__(kind)
    if state is not None:
        made.__setstate_cython__(state)
    return made
