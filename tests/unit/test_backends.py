"""What is asked of package managers, and what their output means: pure functions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wetlands_executor.environment import contents
from wetlands_executor.environment.backends import (
    conda_locks,
    lock_texts,
    mamba,
    pip,
    pixi,
    requirements,
    uv,
)
from wetlands_executor.environment.backends.choose import choose, known_backends
from wetlands_executor.environment.backends.protocol import InstallRequest
from wetlands_executor.environment.backends.rattler import step_of as rattler_step
from wetlands_executor.environment.backends.rattler import wanted_of
from wetlands_executor.environment.backends.rattler_program import newest
from wetlands_executor.environment.cancellation import Cancellation
from wetlands_executor.environment.conda_notation import conda_parts
from wetlands_executor.environment.creation_run import CreationPhase, CreationRun
from wetlands_executor.environment.spec import EnvironmentSpec, PyPIOptions
from wetlands_executor.errors import EnvironmentCreationError

PHASE = CreationPhase


@pytest.fixture
def request_of(tmp_path: Path):  # type: ignore[no-untyped-def]
    def make(spec: EnvironmentSpec, *, offline: bool = False) -> InstallRequest:
        creation = CreationRun(tmp_path / "log", None, Cancellation(), offline=offline)
        return InstallRequest(spec, tmp_path / "prefix", tmp_path, creation)

    return make


OPTIONS = EnvironmentSpec(
    pypi=("numpy",),
    options=PyPIOptions(
        index_url="https://a/simple",
        extra_index_urls=("https://b/simple",),
        find_links=("/wheels",),
        prereleases=True,
        only_binary=(":all:",),
        no_binary=("lxml",),
    ),
)


class TestPip:
    def command(self, spec: EnvironmentSpec, **options: object) -> list[str]:
        given = {"pip": (24, 2), **options}
        return pip.install_command(["py", "-m", "pip"], spec, Path("r.txt"), **given)  # type: ignore[arg-type]

    def test_options_are_passed_on(self) -> None:
        text = " ".join(self.command(OPTIONS))
        assert text.startswith("py -m pip install --no-input --disable-pip-version-check")
        for part in (
            "--index-url https://a/simple",
            "--extra-index-url https://b/simple",
            "--find-links /wheels",
            "--pre",
            "--only-binary :all:",
            "--no-binary lxml",
            "--progress-bar raw",
        ):
            assert part in text
        assert text.endswith("--requirement r.txt")

    def test_offline_asks_no_index(self) -> None:
        text = " ".join(self.command(OPTIONS, offline=True))
        assert "--no-index" in text
        assert "index-url" not in text

    def test_what_older_pips_cannot(self, tmp_path: Path) -> None:
        text = " ".join(self.command(OPTIONS, pip=(21, 0), report=tmp_path / "x"))
        assert "--progress-bar off" in text
        assert "--report" not in text

    def test_a_lock_is_installed_alone(self) -> None:
        spec = EnvironmentSpec(lock="numpy==1.0\n")
        assert "--no-deps" in self.command(spec)

    def test_output(self) -> None:
        output = pip.PipOutput()
        told = [
            output.feed(line)
            for line in (
                "Looking in indexes: https://index.example.org/simple",
                "Collecting numpy<2",
                "  Downloading numpy-1.26.4-cp311-cp311-manylinux_2_17_x86_64.whl (18.3 MB)",
                "Progress 1048576 of 18000000",
                "Collecting six",
                "  Using cached six-1.16.0-py2.py3-none-any.whl (11 kB)",
                "Installing collected packages: six, numpy",
                "Successfully installed numpy-1.26.4 six-1.16.0",
            )
        ]
        assert told == [
            None,
            (PHASE.SOLVING, "numpy<2", None, None),
            (PHASE.FETCHING, "numpy-1.26.4", None, None),
            (PHASE.FETCHING, "numpy-1.26.4", 1048576.0, 18000000.0),
            (PHASE.SOLVING, "six", None, None),
            (PHASE.FETCHING, "six-1.16.0", None, None),
            (PHASE.INSTALLING, "2 packages", 0.0, 2.0),
            (PHASE.INSTALLING, "2 packages", 2.0, 2.0),
        ]
        assert output.is_progress("Progress 1 of 2")
        assert not output.is_progress("Progress is good")

    @pytest.mark.parametrize(
        ("spec", "why"),
        [
            (EnvironmentSpec(conda=("gdal",)), "conda"),
            (EnvironmentSpec(pypi=("x",), exclude_newer="2024-01-01"), "exclude-newer"),
            (EnvironmentSpec(options=PyPIOptions(sources={"torch": "https://t"})), "one index"),
            (EnvironmentSpec(options=PyPIOptions(overrides=("numpy<2",))), "overrides"),
            (EnvironmentSpec(strategy="lowest"), "highest"),
        ],
    )
    def test_what_it_cannot_do(self, spec: EnvironmentSpec, why: str) -> None:
        assert why in (pip.PipBackend().lacks(spec) or "")


class TestUv:
    def test_options_are_passed_on(self, request_of) -> None:  # type: ignore[no-untyped-def]
        request = request_of(OPTIONS)
        text = " ".join(uv.compile_command("uv", "py", OPTIONS, request, Path("lock")))
        for part in (
            "uv pip compile --python py --format pylock.toml --output-file lock",
            "--default-index https://a/simple",
            "--index https://b/simple",
            "--find-links /wheels",
            "--prerelease allow",
            "--only-binary :all:",
            "--no-binary lxml",
        ):
            assert part in text
        assert (request.scratch / "requirements.in").read_text() == "numpy\n"

    def test_limits(self, request_of) -> None:  # type: ignore[no-untyped-def]
        spec = EnvironmentSpec(
            pypi=("numpy",),
            strategy="lowest-direct",
            exclude_newer="2024-01-01",
            options=PyPIOptions(constraints=("six<2",), overrides=("x==1",)),
        )
        request = request_of(spec, offline=True)
        text = " ".join(uv.compile_command("uv", "py", spec, request, Path("lock")))
        assert "--offline" in text
        assert "--exclude-newer 2024-01-01" in text
        assert "--resolution lowest-direct" in text
        assert f"--constraints {request.scratch / 'constraints.txt'}" in text
        assert f"--overrides {request.scratch / 'overrides.txt'}" in text

    def test_a_package_of_one_index(self, request_of) -> None:  # type: ignore[no-untyped-def]
        spec = EnvironmentSpec(
            pypi=("torch",), options=PyPIOptions(sources={"torch": "https://t/whl"})
        )
        request = request_of(spec)
        command = uv.compile_command("uv", "py", spec, request, Path("lock"))
        assert command[-1].endswith("pyproject.toml")
        content = requirements.loads((request.scratch / "pyproject.toml").read_text())
        assert content["project"]["dependencies"] == ["torch"]
        assert content["tool"]["uv"]["sources"] == {"torch": {"index": "index-0"}}
        assert content["tool"]["uv"]["index"][0]["explicit"] is True

    def test_output(self) -> None:
        output = uv.UvOutput()
        lines = (
            "Resolved 2 packages in 1.20s",
            "Downloading numpy (16.1MiB)",
            " Downloaded numpy",
            "Prepared 2 packages in 1.60s",
            "Installed 1 package in 184ms",
            " + numpy==2.4.6",
        )
        assert [output.feed(line) for line in lines] == [
            (PHASE.SOLVING, "2 packages found", None, None),
            (PHASE.FETCHING, "numpy (16.1MiB)", None, None),
            (PHASE.FETCHING, "numpy", None, None),
            (PHASE.INSTALLING, "2 packages", 0.0, 2.0),
            (PHASE.INSTALLING, "1 packages", 1.0, 1.0),
            None,
        ]


class TestPylock:
    LOCKED = (
        lock_texts.Locked(
            "Six_x", "1.0", "https://f/six_x-1.0-py3-none-any.whl", {"sha256": "ab" * 32}
        ),
        lock_texts.Locked("b", "2", "https://f/b-2.tar.gz", {"sha256": "cd" * 32}),
        lock_texts.Locked("mine", "0", "file:///home/me/a%20b", editable=True),
    )

    def test_written_as_the_specification_has_it(self) -> None:
        text = lock_texts.pylock("3.11.7", self.LOCKED)
        content = requirements.loads(text)
        assert content["lock-version"] == "1.0"
        assert content["requires-python"] == "==3.11.*"
        names = [package["name"] for package in content["packages"]]
        assert names == ["b", "mine", "six-x"]
        try:
            from packaging import pylock
        except ImportError:
            return
        pylock.Pylock.from_dict(content)

    def test_the_spec_reads_it(self, tmp_path: Path) -> None:
        file = tmp_path / "pylock.toml"
        file.write_text(lock_texts.pylock("3.11.7", self.LOCKED[:2]))
        spec = EnvironmentSpec.from_file(file)
        assert spec.lock_format == "pylock"
        assert spec.python == "==3.11.*"


CONDA = EnvironmentSpec(
    python=">=3.11,<3.13", conda=("gdal >=3.6", "bioconda::samtools=1.19"), channels=("c1", "c2")
)


class TestConda:
    @pytest.mark.parametrize("name", ["micromamba", "mamba", "conda"])
    def test_create(self, request_of, name: str) -> None:  # type: ignore[no-untyped-def]
        request = request_of(CONDA)
        assert mamba.create_command("prog", name, request) == [
            "prog", "create", "--yes", "--prefix", str(request.prefix), "--override-channels",
            "--channel", "c1", "--channel", "c2", "gdal >=3.6", "bioconda::samtools=1.19",
            "python >=3.11,<3.13",
        ]  # fmt: skip

    def test_offline(self, request_of) -> None:  # type: ignore[no-untyped-def]
        assert "--offline" in mamba.create_command("p", "conda", request_of(CONDA, offline=True))

    @pytest.mark.parametrize(
        ("name", "priority", "expected"),
        [
            ("micromamba", "flexible", ["--channel-priority", "flexible"]),
            ("conda", "strict", ["--strict-channel-priority"]),
            ("conda", "disabled", ["--no-channel-priority"]),
            ("conda", "flexible", []),
        ],
    )
    def test_channel_priority(self, name: str, priority: str, expected: list[str]) -> None:
        assert mamba._priority(name, priority) == expected

    def test_an_explicit_list(self, request_of) -> None:  # type: ignore[no-untyped-def]
        lock = "@EXPLICIT\nhttps://c/linux-64/gdal-3.6-0.conda#" + "ab" * 32 + "\n"
        request = request_of(EnvironmentSpec(lock=lock))
        command = mamba.create_command("p", "conda", request)
        assert command[-2] == "--file"
        assert "gdal-3.6-0.conda#sha256:" + "ab" * 32 in Path(command[-1]).read_text()
        assert "--channel" not in command

    def test_python_is_added(self) -> None:
        assert conda_locks.conda_specs(EnvironmentSpec(conda=("gdal",))) == ["gdal", "python >=3.8"]
        given = EnvironmentSpec(conda=("python 3.11.*",))
        assert conda_locks.conda_specs(given) == ["python 3.11.*"]

    def test_output(self) -> None:
        output = mamba.CondaOutput()
        lines = (
            "Collecting package metadata (repodata.json): done",
            "Solving environment: done",
            "  Install: 2 packages",
            "  Total download: 25 MB",
            "Transaction starting",
            "Linking python-3.11.7-0",
            "Linking gdal-3.6-0",
            "nothing of interest",
        )
        steps = [output.feed(line) for line in lines]
        assert [step and (step.phase, step.current, step.maximum) for step in steps] == [
            (PHASE.SOLVING, None, None),
            (PHASE.SOLVING, None, None),
            (PHASE.SOLVING, None, None),
            (PHASE.FETCHING, 0.0, 25e6),
            (PHASE.INSTALLING, None, None),
            (PHASE.INSTALLING, 1.0, 2.0),
            (PHASE.INSTALLING, 2.0, 2.0),
            None,
        ]

    @pytest.mark.parametrize(
        ("text", "size"), [("25 MB", 25e6), ("1kB", 1e3), ("2.5 GB", 2.5e9), ("7B", 7), ("x", None)]
    )
    def test_sizes(self, text: str, size: float | None) -> None:
        assert mamba.size_of(text) == size


class TestPixi:
    def test_manifest(self) -> None:
        content = requirements.loads(pixi.manifest(CONDA))
        assert content["workspace"]["channels"] == ["c1", "c2"]
        assert content["dependencies"] == {
            "gdal": ">=3.6",
            "samtools": {"version": "=1.19", "channel": "bioconda"},
            "python": ">=3.11,<3.13",
        }

    def test_the_spec_reads_its_own_manifest(self, tmp_path: Path) -> None:
        file = tmp_path / "pixi.toml"
        file.write_text(pixi.manifest(EnvironmentSpec(python="3.11", conda=("gdal >=3.6",))))
        spec = EnvironmentSpec.from_file(file)
        assert spec.python == "==3.11.*"
        assert [text.split()[0] for text in spec.conda] == ["gdal"]

    def test_command(self) -> None:
        command = pixi.install_command("pixi", Path("w"), CONDA)
        assert command == [
            "pixi", "install", "--manifest-path", str(Path("w", "pixi.toml")), "--no-progress",
            "--color", "never",
        ]  # fmt: skip


class TestRattler:
    def test_wanted(self, request_of) -> None:  # type: ignore[no-untyped-def]
        wanted = wanted_of(request_of(CONDA, offline=True))
        assert wanted["specs"] == ["gdal >=3.6", "bioconda::samtools=1.19", "python >=3.11,<3.13"]
        assert wanted["channels"] == ["c1", "c2"]
        assert wanted["offline"] is True
        json.dumps(wanted)

    def test_output(self) -> None:
        line = json.dumps({"step": ["fetching", "gdal", 5.0, 10.0]})
        assert rattler_step(line) == (PHASE.FETCHING, "gdal", 5.0, 10.0)
        for other in ("", "{}", '{"urls": []}', "[1]", "text", '{"step": ["odd", "x", 1, 2]}'):
            assert rattler_step(other) is None

    @pytest.mark.parametrize(("text", "days"), [("7 days", 7), ("P7D", 7), ("2 weeks", 14)])
    def test_durations(self, text: str, days: int) -> None:
        found = newest(text)
        assert getattr(found, "days", None) == days

    def test_dates(self) -> None:
        assert str(newest("2024-05-01")) == "2024-05-01 00:00:00+00:00"
        assert str(newest("2024-05-01T10:00:00Z")) == "2024-05-01 10:00:00+00:00"
        assert newest(None) is None


SPECS = [
    ("gdal", ("gdal", None, None, None)),
    ("GDAL >= 3.6, <4", ("gdal", ">=3.6,<4", None, None)),
    ("samtools=1.19", ("samtools", "=1.19", None, None)),
    ("samtools=1.19=h1_0", ("samtools", "1.19", "h1_0", None)),
    ("samtools ==1.19 h1_*", ("samtools", "1.19", "h1_*", None)),
    ("samtools 1.19 h1_0", ("samtools", "1.19", "h1_0", None)),
    ("bioconda::samtools=1.19", ("samtools", "=1.19", None, "bioconda")),
    ("file:///a/channel::x <2", ("x", "<2", None, "file:///a/channel")),
    ("x[version='>=1,<2',build=\"0\"]", ("x", ">=1,<2", "0", None)),
    ("x 1.*|>=3", ("x", "1.*|>=3", None, None)),
]  # fmt: skip


class TestCondaSpecifications:
    @pytest.mark.parametrize(("text", "parts"), SPECS, ids=[each[0] for each in SPECS])
    def test_parts(self, text: str, parts: tuple[object, ...]) -> None:
        found = conda_parts(text)
        assert found is not None
        assert found[:4] == parts
        assert not found.others

    def test_what_has_no_parts(self) -> None:
        assert conda_parts("https://c/linux-64/gdal-3.6-0.conda") is None
        found = conda_parts("x[md5=abc, version=1]")
        assert found is not None
        assert (found.version, dict(found.others)) == ("1", {"md5": "abc"})

    @pytest.mark.parametrize(
        ("asked", "fits"),
        [
            ("x", True), ("x=1.19", True), ("x=1.19=h1_0", True), ("x=1.19=h1_*", True),
            ("x>=1.2,<2", True), ("bioconda::x", True), ("x 1.*|5", True),
            ("x=1.18", False), ("x=1.19=h2_0", False), ("x<1", False), ("other::x", False),
            ("https://conda.anaconda.org/bioconda::x", True), ("https://m/bioconda::x", False),
        ],
    )  # fmt: skip
    def test_whether_a_package_is_what_was_asked_for(self, asked: str, fits: bool) -> None:
        spec = EnvironmentSpec(conda=(asked,))
        held = contents.CondaPackage("1.19", "h1_0", "https://conda.anaconda.org/bioconda")
        found = contents.missing(spec, contents.Contents("3.11.7", {}, {"x": held}), {})
        assert (found == []) is fits

    def test_a_manifest_of_pixi_with_a_build(self) -> None:
        spec = EnvironmentSpec(conda=("bioconda::samtools=1.19=h1_0", "gdal 3.6", "proj=9"))
        lines = pixi.manifest(spec).splitlines()
        assert '"samtools" = { version = "==1.19", build = "h1_0", channel = "bioconda" }' in lines
        assert '"gdal" = "==3.6"' in lines
        assert '"proj" = "=9"' in lines


class TestChoice:
    def test_every_backend_has_a_name_of_its_own(self) -> None:
        names = [backend.name for backend in known_backends()]
        assert names == ["uv", "pip", "rattler", "pixi", "micromamba", "mamba", "conda"]

    def test_paths_of_an_explicit_list_are_made_absolute(self, request_of, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
        (tmp_path / "a-1-0.conda").write_bytes(b"a")
        md5 = "0cc175b9c0f1b6a831c399e269772661"
        spec = EnvironmentSpec(lock=f"@EXPLICIT\n./a-1-0.conda#{md5}\n", lock_folder=str(tmp_path))
        lines = conda_locks.explicit_lines(request_of(spec))
        assert lines == [f"{tmp_path.as_uri()}/a-1-0.conda#{md5}"]

    def test_a_local_package_that_was_changed_since_it_was_locked(
        self,
        request_of,
        tmp_path: Path,  # type: ignore[no-untyped-def]
    ) -> None:
        (tmp_path / "a-1-0.conda").write_bytes(b"b")
        lock = "@EXPLICIT\n./a-1-0.conda#" + "ab" * 32 + "\n"
        spec = EnvironmentSpec(lock=lock, lock_folder=str(tmp_path))
        with pytest.raises(EnvironmentCreationError, match="another hash"):
            conda_locks.explicit_lines(request_of(spec))

    def test_pip_is_chosen_where_there_is_no_uv(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(uv, "program", lambda: None)
        assert choose(EnvironmentSpec(pypi=("numpy",))).name == "pip"
