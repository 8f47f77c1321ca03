"""The demo, end to end: two environments from the package registry, real workers, a picture.

And what it does when things go wrong.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import psutil
import pytest
from packaging.requirements import Requirement

from wetlands_executor import EnvironmentSpec, cli
from wetlands_executor.demo import recipes
from wetlands_executor.demo.environments import FILES
from wetlands_executor.demo.pipeline import Run, number_workers
from wetlands_executor.demo.progress import Progress

ROOT = Path(__file__).parents[2]
UNREACHABLE = 3


def run_demo(
    *arguments: str | Path, timeout: float = 900, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run the demo as a user does, in a process of its own."""
    command = [sys.executable, "-m", "wetlands_executor", "demo", *map(str, arguments)]
    environment = {**os.environ, **variables}
    return subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=timeout,
        env=environment,
    )


@pytest.fixture(scope="session")
def demo_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of the demo's environments.

    WETLANDS_DEMO_CACHE lets a CI keep it from run to run.
    """
    kept = os.environ.get("WETLANDS_DEMO_CACHE")
    return Path(kept).absolute() if kept else tmp_path_factory.mktemp("demo-cache")


@pytest.fixture(scope="session")
def first_run(
    demo_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Run the demo once, with whatever the cache holds; skip where there is no package registry."""
    out = tmp_path_factory.mktemp("demo-out") / "new" / "folder"
    done = run_demo("--out", out, "--cache", demo_cache, "--workers", "2")
    if done.returncode == UNREACHABLE:
        pytest.skip(f"no package registry can be reached from here: {done.stderr[-400:]}")
    return out, done


def pixels_of_png(content: bytes) -> tuple[int, int, bytes]:
    """Check every chunk of a PNG and unpack its image data."""
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    position, data, kinds, width, height = 8, b"", [], 0, 0
    while position < len(content):
        length, kind = struct.unpack(">I4s", content[position : position + 8])
        chunk = content[position + 8 : position + 8 + length]
        (checksum,) = struct.unpack(">I", content[position + 8 + length : position + 12 + length])
        assert checksum == zlib.crc32(kind + chunk)
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack(">IIBB", chunk[:10])
            assert (depth, colour) == (8, 2)  # eight bits, RGB
        if kind == b"IDAT":
            data += chunk
        kinds.append(kind)
        position += 12 + length
    assert kinds[0] == b"IHDR"
    assert kinds[-1] == b"IEND"
    return width, height, zlib.decompress(data)


@pytest.mark.registry
@pytest.mark.slow
@pytest.mark.timeout(1000)
class TestEndToEnd:
    def test_succeeds_and_says_what_it_did(
        self, first_run: tuple[Path, subprocess.CompletedProcess[str]]
    ) -> None:
        _, done = first_run
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr + done.stdout
        assert "numpy==" in done.stderr

    def test_draws_a_picture(
        self, first_run: tuple[Path, subprocess.CompletedProcess[str]]
    ) -> None:
        out, _ = first_run
        content = (out / "picture.png").read_bytes()
        width, height, rows = pixels_of_png(content)
        assert width == recipes.SHEET_WIDTH
        assert 1000 < height < 3000
        assert len(rows) == height * (1 + 3 * width)
        assert len(set(rows)) > 200
        assert len(content) > 500_000  # photographs, not an empty card

    def test_table_shows_two_numpy_versions(
        self, first_run: tuple[Path, subprocess.CompletedProcess[str]]
    ) -> None:
        out, done = first_run
        with (out / "table.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        versions = {
            role: {row["numpy"] for row in rows if row["environment"] == role}
            for role in ("older", "newer")
        }
        assert all(len(found) == 1 for found in versions.values())
        assert versions["older"] != versions["newer"]
        for found in versions.values():
            assert found <= set((out / "table.txt").read_text(encoding="utf-8").split())
            assert found <= set(done.stdout.split())
        pids = {
            role: {row["pid"] for row in rows if row["environment"] == role}
            for role in ("older", "newer")
        }
        assert len(pids["older"]) == 2  # more tasks than workers, and every worker had some
        assert not pids["older"] & pids["newer"]
        settings = sum(len(recipe.sweep) for row in recipes.ROWS for recipe in row)
        assert sum(row["step"] == "segment" for row in rows) == settings

    def test_finds_the_coins(
        self, first_run: tuple[Path, subprocess.CompletedProcess[str]]
    ) -> None:
        out, _ = first_run
        summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
        assert summary["pictures"]["Coins"] == 24
        assert (
            sum(summary["kinds"].values())
            == summary["objects"]
            == sum(summary["pictures"].values())
        )
        assert (
            summary["environments"]["older"]["packages"]["numpy"]
            != summary["environments"]["newer"]["packages"]["numpy"]
        )

    def test_second_run_makes_no_environment(
        self,
        first_run: tuple[Path, subprocess.CompletedProcess[str]],
        demo_cache: Path,
        tmp_path: Path,
    ) -> None:
        out, _ = first_run
        before = sorted(demo_cache.rglob("*.json"))
        # Without a registry and without any other interpreter: all that the second run needs is
        # there.
        offline = {
            "PIP_INDEX_URL": "http://127.0.0.1:9/",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "UV_OFFLINE": "1",
        }
        done = run_demo("--out", tmp_path, "--cache", demo_cache, "--workers", "1", **offline)
        assert done.returncode == 0, done.stderr
        assert "making" not in done.stderr
        assert sorted(demo_cache.rglob("*.json")) == before
        summaries = [
            json.loads((folder / "summary.json").read_text(encoding="utf-8"))
            for folder in (out, tmp_path)
        ]
        assert all(
            environment["made_in_seconds"] is None
            for environment in summaries[1]["environments"].values()
        )
        assert summaries[0]["pictures"] == summaries[1]["pictures"]


class TestCommandLine:
    @pytest.mark.parametrize("wrong", ["0", "-1", "many", "1.5", "65"])
    def test_wrong_workers(self, wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as stopped:
            cli.main(["demo", f"--workers={wrong}"])
        assert stopped.value.code == 2
        assert "--workers" in capsys.readouterr().err

    def test_output_folder_that_cannot_be(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "file").write_text("in the way")
        assert (
            cli.main(
                [
                    "demo",
                    "--out",
                    str(tmp_path / "file" / "out"),
                    "--cache",
                    str(tmp_path / "cache"),
                ]
            )
            == 1
        )
        assert "--out" in capsys.readouterr().err
        assert not (tmp_path / "cache").exists()

    def test_cache_folder_that_cannot_be(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "file").write_text("in the way")
        assert (
            cli.main(
                [
                    "demo",
                    "--out",
                    str(tmp_path / "out"),
                    "--cache",
                    str(tmp_path / "file" / "cache"),
                ]
            )
            == 1
        )
        assert "--cache" in capsys.readouterr().err
        assert "WETLANDS_EXECUTOR_ENVIRONMENTS" not in os.environ, "it is this run's alone"

    def test_no_command_shows_the_help(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main([]) == 2
        assert "demo" in capsys.readouterr().err

    def test_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as stopped:
            cli.main(["--version"])
        assert stopped.value.code == 0
        assert capsys.readouterr().out.split()[0] == "wetlands-executor"

    def test_help_does_not_import_the_demo(self) -> None:
        code = (
            "import sys; from wetlands_executor import cli\ntry: cli.main(['--help'])\nfinally: "
            "assert 'wetlands_executor.demo' not in sys.modules"
        )
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, timeout=60
        )


class TestFailures:
    @pytest.mark.slow
    @pytest.mark.timeout(300)
    def test_no_registry(self, tmp_path: Path) -> None:
        nowhere = {
            "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_FIND_LINKS": "",
            "PIP_RETRIES": "0",
            "UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple",
            "UV_HTTP_RETRIES": "0",
        }
        done = run_demo(
            "--out", tmp_path / "out", "--cache", tmp_path / "cache", timeout=240, **nowhere
        )
        assert done.returncode == UNREACHABLE, done.stderr
        assert "Check the network" in done.stderr
        assert "Traceback (most" not in done.stderr
        assert not list((tmp_path / "cache" / "made").iterdir())

    @pytest.mark.skipif(
        sys.platform == "win32",
        reason="a console's Ctrl-C cannot be sent to one process on Windows",
    )
    @pytest.mark.timeout(120)
    @pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
    def test_interrupt_leaves_no_process_and_no_half_environment(
        self, which: signal.Signals, tmp_path: Path
    ) -> None:
        # accepts connections and never answers, so that pip waits
        with socket.create_server(("127.0.0.1", 0)) as silent:
            index = f"http://127.0.0.1:{silent.getsockname()[1]}/simple"
            variables = {
                **os.environ,
                "PIP_INDEX_URL": index,
                "UV_DEFAULT_INDEX": index,
                "PIP_CONFIG_FILE": os.devnull,
                "PIP_FIND_LINKS": "",
            }
            command = [
                sys.executable,
                "-m",
                "wetlands_executor",
                "demo",
                "--out",
                str(tmp_path / "out"),
                "--cache",
                str(tmp_path / "cache"),
            ]
            demo = subprocess.Popen(
                command,
                cwd=ROOT,
                env=variables,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            silent.settimeout(100)
            silent.accept()[0].close()  # pip is at work now
            family = psutil.Process(demo.pid).children(recursive=True)
            assert family
            demo.send_signal(which)
            _, errors = demo.communicate(timeout=30)
        assert demo.returncode == 130, errors
        assert "Traceback" not in errors
        assert not psutil.wait_procs(family, timeout=10)[1]
        assert not list((tmp_path / "cache" / "made").iterdir())


class TestPlan:
    @pytest.mark.parametrize("minor", [10, 11, 12, 13, 14])
    def test_the_two_numpys_exclude_each_other(self, minor: int) -> None:
        """Whatever the newer environment can hold on a Python is too new for the older one there.
        """
        specifiers = []
        for file in FILES.values():
            wanted = [Requirement(text) for text in EnvironmentSpec.from_file(file).pypi]
            values = {"python_version": f"3.{minor}", "extra": ""}
            numpys = [
                each
                for each in wanted
                if each.name == "numpy" and each.marker and each.marker.evaluate(values)
            ]
            assert len(numpys) == 1
            specifiers.append(numpys[0].specifier)
        older, newer = specifiers
        for version in ("1.26.0", "1.26.4", "2.1.0", "2.1.3", "2.3.0", "2.3.5", "2.4.0", "2.6.1"):
            assert not (older.contains(version) and newer.contains(version))

    def test_rows_fill_the_sheet(self) -> None:
        for row in recipes.ROWS:
            sizes = recipes.panel_sizes(row)
            assert (
                sum(width for width, _ in sizes) + recipes.GAP * (len(row) - 1)
                == recipes.SHEET_WIDTH - 2 * recipes.MARGIN
            )
            assert len({height for _, height in sizes}) == 1

    def test_workers_are_numbered_per_environment(self) -> None:
        starts = [("older", 7, 2.0), ("newer", 8, 1.0), ("older", 9, 0.0), ("older", 7, 3.0)]
        runs = number_workers(
            Run("segment", "", role, "", {"pid": pid, "started": start}, start)
            for role, pid, start in starts
        )
        assert [(run.role, run.where["pid"], run.worker) for run in runs] == [
            ("older", 9, 1),
            ("newer", 8, 1),
            ("older", 7, 2),
            ("older", 7, 2),
        ]


class TestProgress:
    def test_whole_lines_without_a_terminal(self, capsys: pytest.CaptureFixture[str]) -> None:
        Progress().say("something lasting")
        assert capsys.readouterr().err == "something lasting\n"
