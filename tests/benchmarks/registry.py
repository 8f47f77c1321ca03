"""All cases. A module with a list ``CASES`` is added by one line here."""

from __future__ import annotations

import importlib
from functools import cache

from .model import Case

MODULES = (
    "cases_latency",
    "cases_throughput",
    "cases_map",
    "cases_functions",
    "cases_scheduling",
    "cases_asyncio",
    "cases_lifetime",
    "cases_tasks",
    "cases_observe",
    "cases_commands",
    "cases_arrays",
    "cases_payloads",
    "cases_cluster",
)


@cache
def cases() -> dict[str, Case]:
    """Return all cases by name, in the order of the report."""
    found: dict[str, Case] = {}
    for module in MODULES:
        for case in importlib.import_module(f"{__package__}.{module}").CASES:
            if case.name in found:
                raise ValueError(f"two cases are called {case.name}")
            found[case.name] = case
    return found
