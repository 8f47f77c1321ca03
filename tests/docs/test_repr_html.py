"""What a notebook shows of a task and of an executor.

Well-formed, escaped, self-contained HTML that tells the state.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from wetlands_executor import CondaEnvExecutor, Task, TaskStatus, current_task

_WITHOUT_END = {"br", "hr", "img"}


class Page(HTMLParser):
    """The text and the tags of a piece of HTML; complains of tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(key, value or "") for key, value in attrs]
        if tag not in _WITHOUT_END:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + " "


def show(thing: object) -> Page:
    """Return what a notebook would show, checked for what holds of all of it."""
    html = thing._repr_html_()  # type: ignore[attr-defined]
    page = Page(html)
    assert page.tags <= {"div", "span", "b", "table", "tr", "th", "td", "details", "summary", "pre"}
    assert {key for key, _ in page.attributes} <= {"style", "title"}
    assert "http" not in html
    assert "url(" not in html
    return page


def widths(page: Page) -> list[float]:
    """Return the widths of all bars, in percent."""
    return [
        float(found)
        for key, value in page.attributes
        if key == "style"
        for found in re.findall(r"\bwidth:([\d.]+)%", value)
    ]


@pytest.fixture
def executor() -> Iterator[CondaEnvExecutor]:
    with CondaEnvExecutor(max_workers=2) as found:
        yield found


def wait_for_file(path: str) -> str:
    """Report that half is done, then wait until the test says go on. Runs in a worker."""
    current_task().update("<half> & more", current=1, maximum=2)
    while not Path(path).exists():
        time.sleep(0.01)
    return "done"


def divide(a: float, b: float) -> float:
    """Fail if asked to. Runs in a worker."""
    return a / b


def fail_with_markup() -> None:
    """Fail with a message that is markup. Runs in a worker."""
    raise ValueError("<script>alert('x')</script>")


def test_pending_running_and_completed(executor: CondaEnvExecutor, tmp_path: Path) -> None:
    """One task through its life; the executor in the middle of it."""
    task = executor.options(name="watch & <see>", start=False).submit(
        wait_for_file, str(tmp_path / "go")
    )
    page = show(task)
    assert "pending" in page.text
    assert "watch & <see>" in page.text
    assert not widths(page)

    reported = threading.Event()
    task.listen(lambda event: reported.set() if event.current is not None else None)
    task.start()
    assert reported.wait(30)
    page = show(task)
    assert "running" in page.text
    assert "<half> & more" in page.text
    assert "1 of 2" in page.text
    assert widths(page) == [50.0]

    whole = show(executor)
    assert "1 running" in whole.text
    assert "watch & <see>" in whole.text
    assert 50.0 in widths(whole)

    (tmp_path / "go").touch()
    task.wait_for(30)
    page = show(task)
    assert "completed" in page.text
    assert widths(page) == [100.0]
    assert re.search(r"waited .* ran ", page.text)
    assert "process" in page.text


def test_failed_and_cancelled(executor: CondaEnvExecutor) -> None:
    """The error is told, the traceback is there, markup in both is shown as text."""
    page = show(executor.submit(divide, 1, 0).wait_for(30))
    assert "failed" in page.text
    assert "ZeroDivisionError: division by zero" in page.text
    assert "return a / b" in page.text

    page = show(executor.submit(fail_with_markup).wait_for(30))
    assert "script" not in page.tags
    assert "<script>alert('x')</script>" in page.text

    task = executor.options(start=False).submit(divide, 1, 1)
    assert task.cancel()
    assert task.status is TaskStatus.CANCELED
    assert "canceled" in show(task).text


def test_long_texts_are_cut(executor: CondaEnvExecutor) -> None:
    """A name or message of any length leaves the page usable."""
    task = executor.options(name="n" * 10_000).submit(divide, 1, 1).wait_for(30)
    assert len(task._repr_html_()) < 5_000


def test_executor_before_during_and_after() -> None:
    """Workers and counts; an executor that was never used, and one that was shut down."""
    executor = CondaEnvExecutor(max_workers=2)
    with executor:
        page = show(executor)
        assert "0 of 2 workers" in page.text
        assert "table" not in page.tags
        executor.launch()
        executor.submit(divide, 1, 2).result(30)
        assert executor.submit(divide, 1, 0).exception(30) is not None
        page = show(executor)
        assert "2 of 2 workers" in page.text
        assert "2 tasks" in page.text
        assert "1 completed" in page.text
        assert "1 failed" in page.text
        assert "idle" in page.text
        assert "MB" in page.text
        assert widths(page)[:2] == [50.0, 50.0]
    assert "0 of 2 workers" in show(executor).text


def test_bare_task() -> None:
    """A Task that no executor made is a plain Future, and has a picture too."""
    task: Task[int] = Task()
    assert "pending" in show(task).text
    task.set_result(1)
    assert "completed" in show(task).text
