"""A host with torch.

``python -m tests.data.torch_host CHECK WORKER_PYTHON`` ends well, or says what is wrong.

Both sides have torch. ``torch_cases`` shows what values become; here is whose their memory is, and
that nothing else has changed.
"""

from __future__ import annotations

import gc
import pickle
import sys
import warnings
from typing import Any

import torch

from tests.data.torch_cases import LARGE
from tests.support.observe import until
from wetlands_executor import CondaEnvExecutor
from wetlands_executor.sharedmem import arena

#: Seconds that one call may take.
DEADLINE = 60


# --- run in the worker


def add_one(tensor: Any) -> Any:
    tensor += 1
    return tensor


def double(tensor: Any) -> Any:
    return tensor * 2


def parts_of_one(tensor: Any) -> Any:
    return tensor[:10], tensor[10:]


def gradient(leaf: Any) -> Any:
    (leaf * 3).sum().backward()
    return leaf.grad


def trained(module: Any, data: Any) -> Any:
    module(data).sum().backward()
    return [parameter.grad for parameter in module.parameters()]


def saved(path: str) -> None:
    torch.save({"weights": torch.arange(LARGE), "small": torch.ones(3, dtype=torch.uint16)}, path)


def pickled() -> bytes:
    return pickle.dumps(torch.arange(LARGE))


def unlike_any(tensor: Any) -> Any:
    """Return what plain pickle cannot do: a function beside the tensor."""

    def scale(other: Any) -> Any:
        return other * tensor

    return scale, tensor


# --- checks


def private(executor: CondaEnvExecutor, _: str) -> None:
    """Both sides may write to what they have, and none sees what the other does."""
    value = torch.zeros(LARGE)
    task = executor.submit(add_one, value)
    value[:] = -1
    result = task.result(DEADLINE)
    assert bool((result == 1).all())
    result += 1
    assert bool((value == -1).all())
    again = executor.submit(double, value).result(DEADLINE)
    assert bool((again == -2).all())
    assert bool((result == 2).all())


def without_a_copy(executor: CondaEnvExecutor, _: str) -> None:
    """Its memory travels in a block, which is handed back with it.

    The block is free when the last tensor over it has gone.
    """
    found = arena.current()
    assert found is not None
    task = executor.submit(add_one, torch.zeros(LARGE))
    result = task.result(DEADLINE)
    assert list(found.in_use().values()) == [1]
    view = result[5:9]
    del task, result
    gc.collect()
    assert len(found.in_use()) == 1
    assert view.tolist() == [1] * 4
    del view
    assert until(lambda: not found.in_use())


def gradients(executor: CondaEnvExecutor, _: str) -> None:
    """What arrives can be trained."""
    assert bool(
        (
            executor.submit(gradient, torch.ones(LARGE, requires_grad=True)).result(DEADLINE) == 3
        ).all()
    )
    torch.manual_seed(0)
    module, data = torch.nn.Linear(400, 400), torch.ones(500, 400)
    there = executor.submit(trained, module, data).result(DEADLINE)
    here = trained(module, data)
    assert all(torch.allclose(one, other) for one, other in zip(there, here, strict=True))


def parts(executor: CondaEnvExecutor, _: str) -> None:
    """Two parts of one tensor are independent, as after ``pickle``."""
    first, second = executor.submit(parts_of_one, torch.zeros(LARGE)).result(DEADLINE)
    first += 1
    assert not second.any()
    assert first.untyped_storage().data_ptr() != second.untyped_storage().data_ptr()


def files(executor: CondaEnvExecutor, folder: str) -> None:
    """What a task saves or pickles itself is torch's own form, before and after it has returned
    tensors.
    """
    executor.submit(double, torch.ones(LARGE)).result(DEADLINE)
    executor.submit(saved, f"{folder}/saved.pt").result(DEADLINE)
    read = torch.load(f"{folder}/saved.pt", weights_only=True)
    assert torch.equal(read["weights"], torch.arange(LARGE))
    data = executor.submit(pickled).result(DEADLINE)
    assert b"wetlands" not in data
    assert torch.equal(pickle.loads(data), torch.arange(LARGE))
    assert b"wetlands" not in pickle.dumps(torch.arange(LARGE))


def functions(executor: CondaEnvExecutor, _: str) -> None:
    """Beside functions that travel by value, in both directions; and in closures."""
    factor = torch.full((LARGE,), 3)
    assert bool(
        (
            executor.submit(lambda tensor: tensor * factor, torch.full((LARGE,), 2)).result(
                DEADLINE
            )
            == 6
        ).all()
    )
    scale, tensor = executor.submit(unlike_any, torch.full((LARGE,), 5)).result(DEADLINE)
    assert bool((scale(factor) == 15).all())
    assert bool((tensor == 5).all())


def tried_again(executor: CondaEnvExecutor, _: str) -> None:
    """With retries a task has its own copy."""
    result = executor.options(retries=1).submit(add_one, torch.zeros(LARGE)).result(DEADLINE)
    assert bool((result == 1).all())


def grown(executor: CondaEnvExecutor, _: str) -> None:
    """The one difference: its memory cannot grow in place; torch says so. A small one can.

    What has failed to grow must not be read: torch has given it the new shape all the same.
    """
    value = executor.submit(double, torch.ones(LARGE)).result(DEADLINE)
    said = ""
    try:
        value[:].resize_(2 * LARGE)
    except RuntimeError as error:
        said = str(error)
    assert "not resizable" in said
    assert value.clone().resize_(2 * LARGE)[:LARGE].eq(2).all()
    executor.submit(double, torch.ones(3)).result(DEADLINE).resize_(100)
    value.share_memory_()


def many(executor: CondaEnvExecutor, _: str) -> None:
    """With ``map`` too."""
    values = [torch.full((LARGE,), number) for number in range(10)]
    for number, result in enumerate(executor.map(double, values, timeout=DEADLINE)):
        assert bool((result == 2 * number).all())


def older_torch(_executor: CondaEnvExecutor, _: str) -> None:
    """A torch before 2.0, which lacks these names, gets a copy in a storage of its own kind.

    None was tried: this one says that it is old.
    """
    from wetlands_executor.worker import tensors

    version, torch.__version__ = torch.__version__, "1.13.1"
    try:
        made = tensors.rebuild_storage(bytearray(b"\5\0\6\0"), torch.int16)
        assert tensors.reducers(torch) == {}
    finally:
        torch.__version__ = version
    assert made.tolist() == [5, 6]


CHECKS = {
    check.__name__: check
    for check in (
        private,
        without_a_copy,
        gradients,
        parts,
        files,
        functions,
        tried_again,
        grown,
        many,
        older_torch,
    )
}


def main(name: str, python: str, folder: str) -> None:
    """Run one check."""
    with CondaEnvExecutor(python, max_workers=1) as executor, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        CHECKS[name](executor, folder)
    print("well")


if __name__ == "__main__":
    main(*sys.argv[1:])
