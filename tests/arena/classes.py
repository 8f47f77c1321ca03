"""Arrays of numpy that are more, or other, than a plain block of numbers.

For the host and for workers that have numpy.
"""

from __future__ import annotations

import warnings

import numpy as np


class Unit(np.ndarray):
    """A user's array with an attribute of its own."""

    unit = None

    def __reduce__(self):
        function, args, state = super().__reduce__()
        return function, args, (state, self.unit)

    def __setstate__(self, state):
        super().__setstate__(state[0])
        self.unit = state[1]


def chararray(texts):
    """Return an array of the class of which numpy warns from 2.5 on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return np.char.array(texts)


def large(name, path):
    """Return a large array of a class, or of a layout, that is not the common one."""
    count = 60_000
    numbers = np.arange(float(count))
    if name == "masked":
        return np.ma.array(numbers, mask=numbers % 3 == 0, fill_value=-1)
    if name == "masked hard":
        return np.ma.array(
            numbers.reshape(300, 200), mask=numbers.reshape(300, 200) % 2 == 0, hard_mask=True
        )
    if name == "matrix":
        return numbers.reshape(300, 200).view(np.matrix)
    if name == "recarray":
        # Python 3.8
        return np.rec.array(list(zip(range(count), "ab" * count)), dtype=[("n", "i4"), ("s", "U3")])  # noqa: B905
    if name == "chararray":
        return chararray(["some text", "another"] * count)
    if name == "memmap":
        found = np.memmap(path, "f8", "w+", shape=(300, 200))
        found[:] = numbers.reshape(300, 200)
        return found
    if name == "unit":
        found = numbers.view(Unit)
        found.unit = "mm"
        return found
    if name == "objects":
        return np.array([{"a": number} for number in range(count)], dtype=object)
    if name == "structured":
        found = np.zeros(count, [("o", "O"), ("p", [("x", ">f4"), ("y", "M8[s]")])])
        found["o"] = range(count)
        found["p"]["x"] = numbers
        return found
    if name == "dates":
        return numbers.astype("i8").astype("M8[s]").reshape(300, 200, order="F")
    if name == "big-endian":
        return np.asfortranarray(numbers.astype(">f8").reshape(300, 200))
    return np.arange(4.0 * count).reshape(-1, 200)[::-2, ::3]


def described(value):
    """Return the class, the layout and the content of an array in builtin types."""
    found = [type(value).__name__, str(value.dtype), value.shape, value.tolist()]
    if isinstance(value, np.ma.MaskedArray):
        found += [np.ma.getmaskarray(value).tolist(), value.fill_value]
    return [*found, getattr(value, "unit", None)]


def clear(value):
    """Overwrite an array with zeros."""
    value.view(f"V{value.dtype.itemsize}")[...] = bytes(value.dtype.itemsize)
