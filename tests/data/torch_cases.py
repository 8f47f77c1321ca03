"""Values of torch that travel; the same shape as ``numpy_cases``.

Neither torch nor numpy is imported before a value is made.
"""

import hashlib
import pickle
import warnings

#: Elements of a tensor whose memory is large enough to travel beside the pickle, whatever its
#: dtype.
LARGE = 140_000

DTYPES = (
    "float64",
    "float32",
    "float16",
    "bfloat16",
    "complex64",
    "complex128",
    "bool",
    "uint8",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint16",
    "float8_e4m3fn",
)


def _of(dtype, count):
    def make(torch):
        values = torch.arange(count) % 100
        return (values % 2 if dtype == "bool" else values).to(getattr(torch, dtype))

    return make


def _module(torch):
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(300, 300), torch.nn.BatchNorm1d(300))


def _graded(torch):
    leaf = torch.ones(LARGE, requires_grad=True)
    (leaf * 2).sum().backward()
    return leaf


def _attributed(torch):
    made = torch.ones(LARGE)
    made.unit = "m"
    return made


def _twice(torch):
    one = torch.arange(LARGE)
    return [one, {"again": one}]


def _sparse(torch):
    places = torch.arange(LARGE)
    return torch.sparse_coo_tensor(
        torch.stack([places, places]), places * 0.5, (LARGE, LARGE)
    ).coalesce()


def _quantized(torch):
    return torch.quantize_per_tensor(torch.arange(float(LARGE)) / LARGE, 0.01, 3, torch.quint8)


def _with_numpy(torch):
    import numpy as np

    return torch.from_numpy(np.arange(LARGE * 1.0)), np.arange(LARGE)


def _nested(torch):
    return torch.nested.nested_tensor([torch.ones(3), torch.ones(LARGE)])


_MADE = {
    f"torch {dtype}, {size}": _of(dtype, count)
    for dtype in DTYPES
    for size, count in (("small", 6), ("large", LARGE))
}
_MADE.update(
    {
        "torch tensor without axes": lambda torch: torch.tensor(2.5),
        "torch tensor, empty": lambda torch: torch.zeros((0, 3)),
        "torch tensor, small": lambda torch: torch.arange(6.0).reshape(2, 3),
        "torch tensor, transposed": lambda torch: torch.arange(6).reshape(2, 3).t(),
        "torch tensor, large and transposed": lambda torch: torch.arange(LARGE).reshape(7, -1).t(),
        "torch tensor, every second row": lambda torch: torch.arange(LARGE).reshape(-1, 4)[::2],
        "torch tensor, part of a large one": lambda torch: torch.arange(LARGE)[100:110],
        "torch tensor, channels last": lambda torch: (
            torch.arange(float(LARGE)).reshape(2, 7, 10, 1000).to(memory_format=torch.channels_last)
        ),
        "torch tensor, expanded": lambda torch: torch.arange(3).expand(5, 3),
        "torch tensor, conjugated": lambda torch: torch.full((LARGE,), 1 + 2j).conj(),
        "torch tensor, negated": lambda torch: torch.full((LARGE,), 1 + 2j).conj().imag,
        "torch tensor with requires_grad": lambda torch: torch.ones(LARGE, requires_grad=True),
        "torch tensor with a gradient": _graded,
        "torch tensor with an attribute": _attributed,
        "torch tensor, result of a computation": lambda torch: (
            torch.ones(LARGE, requires_grad=True) * 2
        ),
        "torch tensor, sparse": _sparse,
        "torch tensor, quantized": _quantized,
        "torch tensor, nested": _nested,
        "torch tensor twice": _twice,
        "torch tensors beside numpy arrays": _with_numpy,
        "torch parameter": lambda torch: torch.nn.Parameter(torch.ones(3)),
        "torch parameter, large": lambda torch: torch.nn.Parameter(
            torch.ones(LARGE), requires_grad=False
        ),
        "torch module": _module,
        "torch state of a module": lambda torch: _module(torch).state_dict(),
        "torch dtype, size and device": lambda torch: [
            torch.bfloat16,
            torch.Size([2, 3]),
            torch.device("cpu"),
        ],
        "torch storage": lambda torch: torch.arange(LARGE).untyped_storage(),
    }
)


def _case(name):
    def wrapped():
        import torch

        return _MADE[name](torch)

    return wrapped


CASES = {name: _case(name) for name in _MADE}
RAISES = {}


def make(name):
    """Return the value of a case."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return CASES[name]()


def expected(value):
    """Return the description of what arrives if torch's own pickle is read again.

    Or should, where torch cannot read it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read = pickle.loads(pickle.dumps(value, 5))
        except AttributeError as error:
            assert "'torch.storage.UntypedStorage' has no attribute 'dtype'" in str(error)
            read = value
        return describe(read)


def describe(value):
    """Return what a value is, in builtin types."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _describe(value)


def _describe(value):
    import torch

    kind = type(value).__name__
    if isinstance(value, torch.Tensor):
        found = [
            kind,
            str(value.dtype),
            str(value.shape) if not value.is_nested else "",
            str(value.layout),
            value.requires_grad,
            value.is_leaf,
        ]
        found += [value.is_conj(), value.is_neg(), vars(value).get("unit")]
        if value.layout == torch.strided and not value.is_nested:
            found += [
                list(value.stride()),
                value.storage_offset(),
                value.untyped_storage().nbytes(),
            ]
        if value.is_nested:
            return [*found, [_describe(each) for each in value.unbind()]]
        dense = (
            value.detach().to_dense()
            if value.is_sparse and value.numel() < 10**6
            else value.detach()
        )
        if dense.is_sparse:
            return [*found, _describe(dense.indices()), _describe(dense.values())]
        if dense.is_quantized:
            return [*found, dense.q_scale(), dense.q_zero_point(), _content(dense.int_repr())]
        return [*found, _content(dense.float() if "float8" in str(dense.dtype) else dense)]
    if isinstance(value, torch.UntypedStorage):
        return [kind, value.nbytes(), hashlib.sha256(bytes(value)).hexdigest()]
    if isinstance(value, torch.nn.Module):
        return [kind, str(value), _describe(dict(value.state_dict()))]
    if isinstance(value, dict):
        return [[str(key), _describe(each)] for key, each in value.items()]
    if type(value) in (list, tuple):
        same = [next(index for index, other in enumerate(value) if other is each) for each in value]
        return [kind, same, [_describe(each) for each in value]]
    if kind == "ndarray":
        return [kind, str(value.dtype), value.tolist()[:10], str(value.sum())]
    return [kind, str(value)]


def _content(tensor):
    text = repr(tensor.tolist())
    return text if len(text) < 300 else hashlib.sha256(text.encode()).hexdigest()


def take(value):
    """Run in the worker: say what arrived and what will, and send it back."""
    return describe(value), expected(value), value


def give(name):
    """Run in the worker: make a value there; say what it is."""
    value = make(name)
    return expected(value), value


def version():
    """Run in the worker: say which torch that is; empty if there is none."""
    try:
        import torch
    except ImportError:
        return ""
    return str(torch.__version__)
