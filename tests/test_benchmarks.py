"""The benchmark program runs, and what it writes is complete.

No test looks at its figures: a busy machine must not fail a test.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import report, runs
from tests.benchmarks.model import UNITS, Bound, Case, faster
from tests.benchmarks.registry import cases
from tests.benchmarks.systems import SYSTEMS

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the measuring reads /proc and uses named pipes"
)

ROOT = Path(__file__).resolve().parent.parent


def run(*arguments: object, output: Path) -> tuple[dict[str, Any], str]:
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks",
        "--quick",
        "--json",
        str(output),
        *map(str, arguments),
    ]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(output.read_text(encoding="utf-8")), done.stdout


def test_it_runs_and_its_json_is_complete(tmp_path: Path) -> None:
    chosen = ["roundtrip-pinned", "queued", "map-1k", "killed", "update"]
    chosen += ["command-map", "command-help"]
    found, printed = run(
        "--systems", "ours", "ppe-fork", "--cases", *chosen, output=tmp_path / "found.json"
    )
    assert list(found["cases"]) == chosen
    assert found["quick"] is True
    assert {"python", "cores", "load", "date"} <= set(found["machine"])
    for name, result in found["cases"].items():
        case = cases()[name]
        ours = result["systems"]["ours"]
        assert ours["error"] is None, (name, ours)
        assert {figure: len(values) for figure, values in ours["figures"].items()} == dict.fromkeys(
            case.figures, 1
        ), name
        assert ours["left_behind"] == []
        assert set(case.others) <= set(result["systems"])
        assert [bound["text"] for bound in result["bounds"]] == [
            bound.text for bound in case.bounds
        ]
        for bound, said in zip(case.bounds, result["bounds"], strict=True):
            measured = not bound.of or any(
                result["systems"].get(name, {}).get("figures") for name in bound.of
            )
            assert (said["value"] is not None) == measured, (name, bound.text)
            assert said["met"] is None, "a quick run is no ground to judge on"
        assert result["title"] in printed


@pytest.mark.timeout(60)
def test_a_system_that_hangs_is_named_and_ended(tmp_path: Path) -> None:
    """The fixture that looks for leaks sees to it that nothing is left of it."""
    found, printed = run(
        "--cases",
        "idle",
        "--systems",
        "ours",
        "ppe-spawn",
        "--limit",
        "0.2",
        output=tmp_path / "found.json",
    )
    for system in ("ours", "ppe-spawn"):
        assert found["cases"]["idle"]["systems"][system]["error"] == "no answer within 0.2 s"
    assert "failed: no answer within 0.2 s" in printed
    assert all(bound["value"] is None for bound in found["cases"]["idle"]["bounds"])


def test_the_steps_of_a_round_trip_are_measured(tmp_path: Path) -> None:
    """What cannot be measured any more is left out with a reason; most of it has to be there."""
    found, printed = run("--cases", "steps", output=tmp_path / "found.json")
    steps = found["steps"]["steps"]
    missing = [(label, reason) for _where, label, value, reason in steps if value is None]
    assert len(missing) < len(steps) / 2, missing
    moved = [reason for _label, reason in missing if "AttributeError" in str(reason)]
    assert not moved  # a step names what is not there any more
    assert {"function runs", "submit() has returned", "result() has returned"} <= {
        label for label, _at in found["steps"]["timeline"]
    }
    assert "| step alone, everything warm | where | us |" in printed


@pytest.mark.parametrize("case", cases().values(), ids=cases())
def test_a_case_is_about_systems_and_figures_that_exist(case: Case) -> None:
    known = runs.chosen(case, None)
    names = set(case.others) | set(SYSTEMS)
    assert known
    assert set(case.systems or ()) <= names
    assert set(case.figures.values()) <= set(UNITS)
    for bound in case.bounds:
        assert {bound.system, *bound.of} <= names, bound.text
        assert {bound.figure, bound.of_figure or bound.figure} <= set(case.figures), bound.text


def test_bounds_are_judged_by_medians() -> None:
    found = {
        "ours": {"time": [2.0, 1.0, 9.0], "size": [7.0]},
        "slow": {"time": [30.0, 20.0, 10.0]},
        "fast": {"time": [16.0]},
    }
    assert Bound("", 8, of=("fast",)).value(found) == 2.0 / 16.0
    assert faster(8, "slow", "fast").value(found) == 2.0 / 16.0, (
        "the best of those that were measured"
    )
    assert faster(10, "slow", "absent").at_most == pytest.approx(2.0 / 20.0)
    assert Bound("", 8, "size").value(found) == 7.0
    assert Bound("", 8, of=("absent",)).value(found) is None
    assert Bound("", 8, "absent").value(found) is None


def test_figures_are_written_for_people() -> None:
    assert [report.number(value, "s") for value in (2.5, 0.0125, 13.4e-6, 0.25e-6)] == [
        "2.5 s",
        "12.5 ms",
        "13.4 us",
        "0.25 us",
    ]
    assert [report.number(value, "bytes") for value in (600.4, 5_400_000)] == ["600 B", "5.4 MB"]


def test_the_pages_have_a_place_for_the_figures() -> None:
    for page, mark in (("benchmarks.md", "figures"), ("where-the-time-goes.md", "steps")):
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        filled = report.fill(text, mark, iter(["| new |"]))
        assert "| new |" in filled
        assert report.fill(filled, mark, iter(["| newer |"])) == filled.replace(
            "| new |", "| newer |"
        )
    with pytest.raises(ValueError, match="no place for figures"):
        report.fill("nothing", "figures", iter(()))


def test_the_picture_is_drawn_from_the_json(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run("--cases", "no-ops", "--systems", "ours", "ppe-fork", output=tmp_path / "found.json")
    picture = tmp_path / "found.svg"
    run(
        "--only-load",
        "--load",
        tmp_path / "found.json",
        "--plot",
        picture,
        output=tmp_path / "again.json",
    )
    assert "ProcessPoolExecutor (fork)" in picture.read_text(encoding="utf-8")
    assert (
        json.loads((tmp_path / "again.json").read_text())["cases"]
        == json.loads((tmp_path / "found.json").read_text())["cases"]
    )
