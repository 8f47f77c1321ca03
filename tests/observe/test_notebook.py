"""Bars in a notebook: a real kernel runs cells, and their outputs are looked at."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.terminal import ROOT
from wetlands_executor.observe.bars import BarState, Counts
from wetlands_executor.observe.notebook import Picture, in_notebook

CELLS = (
    f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from wetlands_executor import CondaEnvExecutor
from wetlands_executor.observe import progress
executor = CondaEnvExecutor(max_workers=1)
with progress(executor, description="<cells>"):
    print(executor.submit(abs, -3).result())
""",
    "print([n for n in progress(executor.map(abs, range(-4, 0)), description='loop')])",
    "executor.shutdown()",
)


#: Runs the cells that it reads, and prints their outputs. In a process of its own, because what
#: runs notebooks leaves an event loop behind.
RUN = """
import json, sys
import nbclient, nbformat
cells = [nbformat.v4.new_code_cell(one) for one in json.load(sys.stdin)]
notebook = nbformat.v4.new_notebook(cells=cells)
nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
print(json.dumps([cell["outputs"] for cell in notebook["cells"]]))
"""


def test_one_output_that_is_updated_in_place() -> None:
    for module in ("nbclient", "ipykernel"):
        pytest.importorskip(module, reason="runs notebooks (extra test)")
    done = subprocess.run(
        [sys.executable, "-c", RUN], input=json.dumps(CELLS), stdout=subprocess.PIPE, text=True,
        timeout=90, check=True,
    )  # fmt: skip
    first, second, _ = json.loads(done.stdout)
    for outputs, label, count in ((first, "<cells>", "1/1"), (second, "loop", "4/4")):
        assert [one["output_type"] for one in outputs] == ["display_data", "stream"]
        data = outputs[0]["data"]
        assert set(data) == {"text/plain", "text/html"}
        assert data["text/plain"].startswith(f"{label}: {count} (100%), ")
        assert "<progress" in data["text/html"]
        assert "<cells>" not in data["text/html"]
    assert first[1]["text"] == "3\n"
    assert second[1]["text"] == "[4, 3, 2, 1]\n"


def test_the_picture_is_escaped_and_tells_failures() -> None:
    assert not in_notebook()
    state = BarState("<b>", Counts(3, None, 1, 0, 2), 61.0, 1.5, None, (), False)
    picture = Picture([state])
    assert repr(picture) == "<b>: 3, 1.5/s, 1:01 elapsed, 1 failed, 2 retried"
    html = picture._repr_html_()
    assert "&lt;b&gt;: 3, 1.5/s, 1:01 elapsed, <b>1 failed, 2 retried</b>" in html
    assert "<progress" not in html
