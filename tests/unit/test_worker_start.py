"""How workers are started: launch specs, variables, the initializer, the bundle of sources."""

from __future__ import annotations

import marshal
import os
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from wetlands_executor import worker
from wetlands_executor.pool import bundle
from wetlands_executor.pool.launch import (
    THREAD_VARIABLES,
    Launcher,
    pickled_initializer,
    variables_of,
)
from wetlands_executor.serialize.interpreter import RemoteInterpreter


class Environment:
    """An environment that returns what it is asked for."""

    def launch_spec(self, **asked: Any) -> Any:
        return SimpleNamespace(argv=["python"], env=asked["worker_env"], cwd=asked["cwd"])


def launcher(*variables: dict[str, str]) -> Launcher:
    source: Any = SimpleNamespace(get=Environment)
    return Launcher(source, True, "/here", list(variables))


# ------------------------------------------------------------------------------------------- launch


def test_each_slot_has_its_variables() -> None:
    part = launcher({"GPU": "0"}, {"GPU": "1"})
    assert part.first() == (["python"], {"GPU": "0"}, "/here")
    assert [part.worker(index)[1]["GPU"] for index in range(4)] == ["0", "1", "0", "1"]


def test_a_fork_server_has_what_all_workers_have() -> None:
    part = launcher({"GPU": "0", "MODE": "x", "OMP_NUM_THREADS": "4"}, {"GPU": "1", "MODE": "x"})
    assert part.fork_server()[1] == {**dict.fromkeys(THREAD_VARIABLES, "1"), "MODE": "x"}
    alike = launcher({"OMP_NUM_THREADS": "4"}, {"OMP_NUM_THREADS": "4"})
    assert alike.fork_server()[1]["OMP_NUM_THREADS"] == "4"


def test_variables_may_depend_on_the_slot() -> None:
    assert variables_of(lambda index: {"GPU": str(index)}, 3) == {"GPU": "3"}
    assert variables_of({"A": "b"}, 3) == {"A": "b"}
    assert variables_of(None, 0) == {}


@pytest.mark.parametrize("wrong", [{"A": 1}, {"A=": "b"}, "A"])
def test_what_no_process_can_have_is_named(wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="worker_env"):
        variables_of(wrong, 0)
    with pytest.raises((TypeError, ValueError), match=r"worker_env\(2\)"):
        variables_of(lambda _index: wrong, 2)


def test_an_initializer_is_pickled_with_its_arguments() -> None:
    data, _pickler = pickled_initializer((os.getenv, ("HOME",)), [], RemoteInterpreter())
    assert pickle.loads(data) == (os.getenv, ("HOME",))


def test_an_initializer_that_cannot_be_pickled_says_so() -> None:
    with pytest.raises(TypeError, match="pickle"):
        pickled_initializer((print, (sys._getframe(),)), [], RemoteInterpreter())


# ------------------------------------------------------------------------------------------- bundle


def sections(data: bytes) -> tuple[bytes, bytes]:
    size = int.from_bytes(data[:8], "little")
    rest = data[8 + size :]
    assert len(rest) == 8 + int.from_bytes(rest[:8], "little")
    return data[8 : 8 + size], rest[8:]


def test_the_bundle_has_every_module_of_the_worker() -> None:
    sources, code = sections(bundle.source())
    assert code == b"", "bytecode goes only to an interpreter that is known to be like this one"
    parts = sources.decode().split("\0")
    found = dict(zip(parts[::2], parts[1::2], strict=True))
    folder = Path(str(worker.__file__)).parent
    there = {file.stem: file.read_text("utf-8") for file in folder.glob("*.py")}
    there.pop("__init__")
    there.pop("stage0")  # which reads the bundle
    assert {name: text for name, text in found.items() if name in there} == there
    assert set(found) - set(there) == {"cloudpickle"}


def test_what_is_compiled_is_code_of_those_modules() -> None:
    sources, code = sections(bundle.source(compiled=True))
    assert sources == sections(bundle.source())[0]
    magic, index, data = code.split(b"\0", 2)
    assert magic.startswith(sys.implementation.name.encode())
    at = 0
    names = []
    for entry in index.decode().split(" "):
        name, length = entry.split(":")
        found = marshal.loads(data[at : at + int(length)])
        assert found.co_filename.endswith(f"{name}.py")
        at += int(length)
        names.append(name)
    assert at == len(data)
    assert set(bundle._FIRST) <= set(names)
