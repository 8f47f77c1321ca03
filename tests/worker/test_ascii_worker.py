"""A project whose path is not ASCII, and a worker whose Python knows ASCII only.

The same bytes have another name there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import interpreters
from wetlands_executor import CondaEnvExecutor

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    if sys.getfilesystemencoding() != "utf-8":
        pytest.skip("the names of this test are UTF-8")
    folder = tmp_path / "projé ü"
    (folder / "accented").mkdir(parents=True)
    (folder / "accented" / "__init__.py").write_text("")
    (folder / "accented" / "module.py").write_text(
        "def f(x):\n    return x + 1\n\ndef fail():\n    raise ValueError('é')\n"
    )
    (folder / "filé.py").write_text(
        "def g(x):\n    return x + 2, open(__file__).read(5)\n", encoding="utf-8"
    )
    (folder / "script.py").write_text(
        "import os, sys\nassert os.fsencode(sys.argv[1]) == "
        "b'\\xc3\\xa9', ascii(sys.argv)\nos.stat(__file__)\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "accented"]:
        del sys.modules[name]


@pytest.mark.parametrize(
    "python", [interpreters.find()[0], interpreters.find()[-1]], ids=lambda python: python.minor
)
@pytest.mark.parametrize(
    "way",
    [
        "single",
        pytest.param(
            "shared", marks=pytest.mark.skipif(sys.platform != "linux", reason="no forks")
        ),
    ],
)
def test_accented_paths(project: Path, python: interpreters.Interpreter, way: str) -> None:
    from accented.module import f, fail  # type: ignore[import-not-found]

    options = {"share_preload": True, "preload": ["json"]} if way == "shared" else {}
    variables = {**ASCII, "ACCENT": "é"}
    with CondaEnvExecutor(
        python.path, max_workers=1, cwd=project, worker_env=variables, **options
    ) as executor:
        assert executor.submit("sys:getfilesystemencoding").result() in ("ascii", "us-ascii")
        assert executor.submit(f, 1).result() == 2
        assert executor.submit("accented.module:f", 2).result() == 3
        assert executor.submit(f"{project}/filé.py:g", 1).result() == (3, "def g")
        assert executor.import_module(f"{project}/filé.py").g(2) == (4, "def g")
        assert executor.submit(lambda x: x + 1, 1).result() == 2
        assert str(executor.submit(fail).exception()) == "é"
        assert executor.submit_script(project / "script.py", ["é"]).result() is None
        assert os.fsencode(executor.submit(os.getcwd).result()) == os.fsencode(project)
        assert os.fsencode(executor.submit(os.getenv, "ACCENT").result()) == "é".encode()
        assert executor.options(name="é").submit(f, 1).result() == 2
