"""Values of scipy, pandas, PIL and xarray that travel between versions.

The same shape as ``numpy_cases``. Python 3.9 reads it.
"""

import io
import pickle
import warnings

import numpy as np

try:
    import pandas as pd
except ImportError:
    pd = None


def _frame():
    return pd.DataFrame(
        {"i": [1, 2, 3], "f": [0.5, np.nan, -1.0], "s": ["a", "b", None], "b": [True, False, True]},
        index=["x", "y", "z"],
    )


def _sparse(kind):
    def make():
        import scipy.sparse

        data = np.zeros((4, 6))
        data[[0, 1, 3], [1, 5, 2]] = [1.5, -2, 3]
        return getattr(scipy.sparse, kind)(data)

    return make


def _image(mode, size=(5, 3)):
    def make():
        from PIL import Image

        image = Image.new(mode, size)
        image.putdata([_pixel(mode, number) for number in range(size[0] * size[1])])
        image.info["dpi"] = (72, 72)
        return image

    return make


def _pixel(mode, number):
    bands = {"RGB": 3, "RGBA": 4, "CMYK": 4, "LA": 2}.get(mode, 1)
    value = number * 7 % 255
    if mode == "1":
        return number % 2 * 255
    return tuple([value] * (bands - 1) + [255 - value]) if bands > 1 else value


def _saved(format):
    def make():
        from PIL import Image

        stream = io.BytesIO()
        _image("RGB")().save(stream, format)
        stream.seek(0)
        return Image.open(stream)

    return make


def _array():
    import xarray

    coords = {"x": [10, 20], "y": list("abc")}
    return xarray.DataArray(
        np.arange(6.0).reshape(2, 3), dims=("x", "y"), coords=coords, name="n", attrs={"unit": "m"}
    )


def _rotation():
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec([[0.1, 0.2, 0.3], [1, 0, 0]])


def _piecewise(kind):
    def make():
        import scipy.interpolate

        kinds = {
            "PPoly": ([[1.0, 2], [3, 4]], [0, 1, 2]),
            "BPoly": ([[1.0, 2], [3, 4]], [0, 1, 2]),
            "CubicHermiteSpline": ([0, 1, 2], [0, 1, 4], [0, 2, 4]),
        }
        return getattr(scipy.interpolate, kind)(
            *kinds.get(kind, ([0, 1, 2], [0, 1, 4])),
            **({} if "Akima" in kind else {"extrapolate": False}),
        )

    return make


def _tree():
    from scipy.spatial import cKDTree

    return cKDTree(np.arange(12.0).reshape(6, 2))


CASES = {"scipy.sparse." + kind: _sparse(kind) for kind in (
    "csr_matrix", "csc_matrix", "coo_matrix", "bsr_matrix", "dia_matrix", "lil_matrix",
    "dok_matrix", "csr_array", "csc_array", "coo_array",
)}  # fmt: skip
CASES.update({"scipy Rotation": _rotation, "scipy cKDTree": _tree})
PIECEWISE = (
    "PPoly",
    "BPoly",
    "CubicSpline",
    "CubicHermiteSpline",
    "PchipInterpolator",
    "Akima1DInterpolator",
)
CASES.update({"scipy piecewise " + kind: _piecewise(kind) for kind in PIECEWISE})
CASES.update(
    {
        "PIL image " + mode: _image(mode)
        for mode in ("1", "L", "LA", "RGB", "RGBA", "CMYK", "I", "F", "I;16")
    }
)
CASES.update({"PIL image from " + format: _saved(format) for format in ("PNG", "TIFF", "JPEG")})
CASES.update(
    {
        "xarray.DataArray": _array,
        "xarray.Dataset": lambda: _array().to_dataset(),
        "xarray with dates": lambda: _array().assign_coords(
            x=np.array(["2024-01-01", "2024-01-02"], "M8[ns]")
        ),
        "pandas frame": _frame,
        "pandas frame, empty": lambda: pd.DataFrame(),
        "pandas frame of one dtype": lambda: pd.DataFrame(
            np.arange(6.0).reshape(2, 3), columns=list("abc")
        ),
        "pandas series": lambda: pd.Series([1, 2, 3], name="n"),
        "pandas series of str": lambda: pd.Series(["a", "b"]),
        "pandas series of objects": lambda: pd.Series([1, "a", None], dtype=object),
        "pandas Int64": lambda: pd.Series([1, None, 3], dtype="Int64"),
        "pandas Float64": lambda: pd.Series([1.5, None], dtype="Float64"),
        "pandas boolean": lambda: pd.Series([True, None], dtype="boolean"),
        "pandas string": lambda: pd.Series(["a", None], dtype="string"),
        "pandas category": lambda: pd.Series(["a", "b", "a"], dtype="category"),
        "pandas category, ordered": lambda: pd.Series(
            pd.Categorical(["lo", "hi"], categories=["lo", "hi"], ordered=True)
        ),
        "pandas datetime": lambda: pd.Series(pd.to_datetime(["2024-01-01", None])),
        "pandas datetime with time zone": lambda: pd.Series(
            pd.date_range("2024-01-01", periods=3, tz="UTC")
        ),
        "pandas datetime in Berlin": lambda: pd.Series(
            pd.date_range("2024-03-30", periods=3, tz="Europe/Berlin")
        ),
        "pandas timedelta": lambda: pd.Series(pd.to_timedelta([1, 2], unit="s")),
        "pandas period": lambda: pd.Series(pd.period_range("2024-01", periods=2, freq="M")),
        "pandas interval": lambda: pd.Series(pd.interval_range(0, 3)),
        "pandas sparse": lambda: pd.Series(pd.arrays.SparseArray([0, 0, 1])),
        "pandas MultiIndex": lambda: pd.DataFrame(
            {"v": range(4)},
            index=pd.MultiIndex.from_product([["a", "b"], [1, 2]], names=["l", "n"]),
        ),
        "pandas columns of a MultiIndex": lambda: pd.DataFrame(
            [[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "x"), ("a", "y")])
        ),
        "pandas RangeIndex": lambda: pd.RangeIndex(0, 10, 2, name="r"),
        "pandas DatetimeIndex": lambda: pd.date_range("2024-01-01", periods=3, freq="D"),
        "pandas Timestamp": lambda: [
            pd.Timestamp("2024-01-01 12:00:00.123456789"),
            pd.Timestamp("2024-01-01", tz="UTC"),
        ],
        "pandas Timedelta": lambda: pd.Timedelta("1 days 2 hours"),
        "pandas NA and NaT": lambda: [pd.NA, pd.NaT],
        "pandas grouped": lambda: _frame().groupby("b")["i"].sum(),
        "pandas as arrays": lambda: _frame()[["i", "f"]].to_records(),
        "pandas as a dictionary": lambda: _frame().to_dict("list"),
    }
)

RAISES = {}


def make(name):
    """Return the value of a case."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return CASES[name]()


def expected(value):
    """Return the description of what arrives if the sender's own versions read it again."""
    return describe(pickle.loads(pickle.dumps(value, 5)))


def describe(value):
    """Return what a value is, in builtin types that two versions agree on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _describe(value)


def _describe(value):
    kind, module = type(value).__name__, type(value).__module__.partition(".")[0]
    if module == "scipy" and hasattr(value, "toarray"):
        return [
            kind,
            value.format,
            str(value.dtype),
            value.toarray().tolist(),
            type(value).__name__.endswith("array"),
        ]
    if kind == "Rotation":
        return [kind, np.round(value.as_matrix(), 12).tolist()]
    if kind in PIECEWISE:
        return [
            kind,
            np.round(value([0.5, 1.5]), 12).tolist(),
            str(value.derivative()(0.5)),
            str(value(3.0)),
            value.axis,
            str(value.extrapolate),
        ]
    if kind == "cKDTree":
        return [kind, value.data.tolist(), [int(each) for each in value.query([[2.1, 3.1]])[1]]]
    if module == "PIL":
        return ["Image", value.mode, list(value.size), value.tobytes().hex()]
    if module == "xarray":
        return [kind, str(value.to_dict())]
    if pd is not None and isinstance(value, pd.DataFrame):
        return [
            kind,
            [str(each) for each in value.dtypes],
            str(value.to_dict("split")),
            str(value.index.names),
            str(value.columns.names),
        ]
    if pd is not None and isinstance(value, pd.Series):
        return [
            kind,
            str(value.dtype),
            str(value.to_dict()),
            str(value.name),
            str(getattr(value.dtype, "categories", None)),
            str(value.index.dtype),
        ]
    if pd is not None and isinstance(value, pd.Index):
        return [
            kind,
            str(value.dtype),
            [str(each) for each in value],
            str(value.name),
            str(getattr(value, "freq", None)),
        ]
    if isinstance(value, np.ndarray):
        return [kind, str(value.dtype), value.tolist()]
    if isinstance(value, (list, tuple)):
        return [kind, [_describe(each) for each in value]]
    return [kind, str(value)]


def take(value):
    """Run in the worker: say what arrived and what will, and send it back."""
    return describe(value), expected(value), value


def give(name):
    """Run in the worker: make a value there; say what it is."""
    value = make(name)
    return expected(value), value


def version():
    """Run in the worker: say which pandas that is."""
    return pd.__version__
