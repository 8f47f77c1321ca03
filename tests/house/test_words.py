"""The words of sources, pages and tests: those that the glossary has replaced, and persons.

Read from the texts. A word is found wherever it stands, in names like ``a_bell`` and ``BellTower``
too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.imports import installed

#: Words that had one meaning here, with the term that has replaced them (``docs/glossary.md``).
RETIRED = {
    "bell": "wakeup", "bury": "finalize the exit", "certify": "report a death",
    "convict": "fail with a kill reason", "departures": "abandoned waits",
    "herald": "log buffer", "hungry": "wants_wakeup", "ledger": "stats",
    "lingering": "pending free", "nursery": "fork server", "parcel": "out-of-band buffers",
    "patience": "a name for this time limit", "rehearsal": "warm-up",
    "surroundings": "host settings", "tally": "counter", "untold": "unannounced",
    "verdict": "kill reason",
}  # fmt: skip
#: The same for words of the tests alone.
RETIRED_IN_TESTS = {
    "attend": "arrive", "patience": "a name for this time limit", "stamp": "executor kind",
    "strike": "fault, interrupt", "struck": "interrupted", "survivor": "what is left",
}  # fmt: skip
PHRASES = {
    "express lane": "direct send", "return lane": "direct receive", "one of both": "one of the two",
}  # fmt: skip
#: The actor of a sentence is a thread, a process or an object, and has a name.
PERSONS = {"anybody", "everybody", "nobody", "somebody", "someone", "whoever", "whomever"}

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def found(text: str, words: set[str]) -> Iterator[tuple[int, str]]:
    """Yield (line, word) for each of the words that a text has; a plural counts too."""
    for number, line in enumerate(text.splitlines(), 1):
        for match in _WORD.findall(line):
            word = match.lower()
            if word in words or word.removesuffix("s") in words:
                yield number, word


def phrases(text: str) -> list[str]:
    """Return the phrases that a text has, also across the end of a line."""
    one = " ".join(text.replace("_", " ").split()).lower()
    return [phrase for phrase in PHRASES if phrase in one]


def texts() -> dict[str, str]:
    """Return sources and pages by name."""
    pages = [*ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"]
    read = {each.name: each.read_text("utf-8") for each in pages if each.exists()}
    return {**installed().files, **read}


def own_tests() -> dict[str, str]:
    """Return the tests by path, this file left out."""
    files = (each for each in ROOT.glob("tests/**/*.py") if each != Path(__file__))
    return {each.relative_to(ROOT).as_posix(): each.read_text("utf-8") for each in files}


def test_no_retired_word_comes_back() -> None:
    assert [
        f"{name}:{line} {word!r}: {RETIRED.get(word) or RETIRED[word.removesuffix('s')]}"
        for name, text in texts().items()
        for line, word in found(text, set(RETIRED))
    ] == []


def test_no_retired_word_of_tests_comes_back() -> None:
    assert [
        (name, *each)
        for name, text in own_tests().items()
        for each in found(text, set(RETIRED_IN_TESTS))
    ] == []


def test_no_retired_phrase_comes_back() -> None:
    assert [(name, phrase) for name, text in texts().items() for phrase in phrases(text)] == []


@pytest.mark.parametrize("read", [texts, own_tests])
def test_actors_have_names(read: Callable[[], dict[str, str]]) -> None:
    assert [(name, *each) for name, text in read().items() for each in found(text, PERSONS)] == []


def test_where_words_are_found() -> None:
    text = "a_bell = BellTower\nforbell\nNobody's parcels"
    assert list(found(text, set(RETIRED))) == [(1, "bell"), (1, "bell"), (3, "parcels")]
    assert list(found(text, PERSONS)) == [(3, "nobody")]
    assert phrases("the return\nlane; RETURN_LANE") == ["return lane"]
