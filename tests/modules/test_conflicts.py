"""A module of the project that is not the worker's, and modules that are nowhere.

Errors that name what, where and the remedy.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.modules import layouts
from tests.modules.conftest import LIMIT
from tests.support.interpreters import Interpreter
from wetlands_executor import CondaEnvExecutor

DEADLINE = 60

#: Imports ``helpers``, of which the worker's environment has one too; and a module that needs a
#: package that is nowhere.
PROGRAM = """
import json, sys
import helpers, needy
from wetlands_executor import CondaEnvExecutor

def tried(*call):
    try:
        return executor.submit(*call).result(60)
    except Exception as error:
        return f"{type(error).__name__}: {error}"

if __name__ == "__main__":
    with CondaEnvExecutor(sys.argv[1], max_workers=1) as executor:
        print(json.dumps([
            tried(helpers.f), tried(isinstance, helpers.Thing(), int), tried("helpers:f"),
            tried(needy.f), tried("needy.missing:f"), tried(needy.g),
        ]))
"""


@pytest.fixture(params=[0, -1], ids=["oldest", "newest"])
def environment(
    request: pytest.FixtureRequest, workers: tuple[Interpreter, ...], tmp_path: Path
) -> Iterator[Path]:
    """A virtual environment for workers with a module called ``helpers``."""
    folder = tmp_path / "environment"
    subprocess.run(
        [workers[request.param].path, "-I", "-m", "venv", "--without-pip", folder],
        check=True,
        timeout=LIMIT,
    )
    (next(folder.glob("lib/python3*/site-packages")) / "helpers.py").write_text(
        "def f():\n    return 'of the environment'\n"
    )
    return folder


def test_a_namesake_in_the_environment(host: Path, environment: Path, tmp_path: Path) -> None:
    """Never another function under the same name: the error names both files.

    Asked for by its name, the environment's own runs.
    """
    project = tmp_path / "project"
    helpers = "class Thing:\n    pass\ndef f():\n    return 'of the project'\n"
    needy = (
        "try:\n    import only_on_the_host\nexcept ImportError:\n    raise\ndef f():\n    return "
        "1\ndef g():\n    import nowhere_at_all\n"
    )
    layouts.write(project, {"main.py": PROGRAM, "helpers.py": helpers, "needy.py": needy})
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [host, "main.py", environment],
        cwd=project,
        env=variables,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    function, instance, by_name, needing, missing, _ = json.loads(done.stdout.splitlines()[-1])
    for outcome in (function, instance):
        assert outcome.startswith("ImportError: module 'helpers' is ")
        assert str(project / "helpers.py") in outcome
        assert str(next(environment.glob("lib/python3*/site-packages/helpers.py"))) in outcome
        assert str(environment) in outcome
    assert by_name == "of the environment"
    # A module of the project is found, what it imports is not.
    assert needing.startswith(
        f"ModuleNotFoundError: No module named 'only_on_the_host' in the "
        f"environment {environment} (Python 3."
    )
    assert str(project) in needing.partition("looked in: ")[2], (
        "it does not say that the project's folder was looked at"
    )
    assert "only_on_the_host" in missing or "needy" in missing


def test_an_import_inside_a_function(environment: Path) -> None:
    """The same words, wherever the import stands."""
    with CondaEnvExecutor(environment, max_workers=1) as executor:
        with pytest.raises(
            ModuleNotFoundError, match="No module named 'nowhere_at_all' in the environment "
        ) as caught:
            executor.submit("importlib:import_module", "nowhere_at_all").result(DEADLINE)
        assert caught.value.name == "nowhere_at_all"
        assert str(environment) in str(caught.value)
        assert "looked in: " in str(caught.value)
        with pytest.raises(ModuleNotFoundError, match="os.nowhere"):
            executor.submit("importlib:import_module", "os.nowhere").result(DEADLINE)


def test_an_import_error_of_the_users_own_words(environment: Path, tmp_path: Path) -> None:
    """Is left as it is."""
    (tmp_path / "own_words.py").write_text(
        "def f():\n    raise ModuleNotFoundError('buy the full version', name='full')\n"
    )
    with CondaEnvExecutor(environment, max_workers=1) as executor, pytest.raises(
        ModuleNotFoundError, match="^buy the full version$"
    ):
        executor.submit(f"{tmp_path / 'own_words.py'}:f").result(DEADLINE)


def test_a_file_that_is_edited(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its path a file runs as it is now, as often as it changes.

    An imported module as it was when the worker imported it.
    """
    file = tmp_path / "edited_now_and_then.py"
    with CondaEnvExecutor(environment, max_workers=1) as executor:
        for number in range(4):
            file.write_text(f"VALUE = {number}\ndef f():\n    return VALUE\n")
            assert executor.submit(f"{file}:f").result(DEADLINE) == number
    file.write_text("def f():\n    return 'first'\n")
    monkeypatch.syspath_prepend(tmp_path)
    with CondaEnvExecutor(environment, max_workers=1) as executor:
        assert executor.submit("edited_now_and_then:f").result(DEADLINE) == "first"
        file.write_text("def f():\n    return 'second'\n")
        assert executor.submit("edited_now_and_then:f").result(DEADLINE) == "first"
    with CondaEnvExecutor(environment, max_workers=1) as executor:
        assert executor.submit("edited_now_and_then:f").result(DEADLINE) == "second"
