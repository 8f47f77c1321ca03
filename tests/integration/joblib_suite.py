"""A plugin of pytest: joblib's own tests of ``Parallel``, run over our backend.

joblib's tests name their backends. So our backend takes the place of loky there, and is the default
one. What is about loky itself, or differs on purpose, is left out, with its reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from joblib import parallel

from wetlands_executor.integrations.joblib import WetlandsBackend, register

if TYPE_CHECKING:
    import pytest

#: Begin of a test's name -> why it is left out.
EXCLUDED = {
    "test_parallel_pickling": "expects PicklingError of what __reduce__ raises; ours raises that",
    "test_error_capture": "looks at loky's executor",
    "test_backend_context_manager": "compares the class of the backend with loky's",
    "test_nested_parallelism_limit": "compares the class of the backend with loky's",
    "test_thread_bomb_mitigation": "expects an error of loky's",
    "test_nested_parallel_warnings": "expects loky's warnings",
    "test_auto_memmap_on_arrays_from_generator": "expects numpy.memmap; ours is shared memory",
    "test_memmapping_leaks": "looks into a folder of mapped files; ours have none",
    "test_memmapping_on_large_enough_dask_chunks": "expects numpy.memmap; ours is shared memory",
    "test_multiple_generator_call_separated_gc": "expects an error; ours goes on",
    "test_loky_reuse_workers": "looks at loky's executor",
    "test_initializer_reused": "looks at loky's executor",
    "test_backend_hinting_and_constraints": "compares the class of the backend with loky's",
    "test_parallel_config_backend": "compares the class of the backend with loky's",
    "test_default_mp_context": "is about multiprocessing's start methods",
}
#: What says in a test's parameters that it is about another backend.
_OTHERS = ("multiprocessing", "threading", "sequential", "spawn", "back_compat", "backend")


def pytest_configure() -> None:
    """Put our backend in the place of loky."""
    register(make_default=True)
    parallel.BACKENDS["loky"] = WetlandsBackend
    parallel.DEFAULT_PROCESS_BACKEND = "wetlands"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not about our backend."""
    left_out = [item for item in items if _is_left_out(item.name)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if not _is_left_out(item.name)]


def _is_left_out(name: str) -> bool:
    function, _, parameters = name.partition("[")
    return function in EXCLUDED or any(each in parameters for each in _OTHERS)
