"""Requirements files of pip."""

from __future__ import annotations

import pytest

from tests.support.cases import cases
from tests.unit.specs.files import Folder
from wetlands_executor.environment.spec import EnvironmentSpec

WHEEL = "http://x.example/snapshots/wxPython_Phoenix-3.0.3.dev1820+49a8884-cp34-none-win_amd64.whl"


def pypi(folder: Folder, text: str) -> tuple[str, ...]:
    return folder.read("requirements.txt", text).pypi


def test_the_example_of_pip_s_documentation(folder: Folder) -> None:
    (folder.path / "downloads").mkdir()
    (folder.path / "downloads/numpy-1.9.2-cp34-none-win32.whl").touch()
    folder.write("other-requirements.txt", "inner==1\n")
    folder.write("constraints.txt", "limited<3\n")
    spec = folder.read(
        "requirements.txt",
        """
        # This is a comment, to show how #-prefixed lines are ignored.
        # It is possible to specify requirements as plain names.
        pytest
        pytest-cov
        beautifulsoup4

        # The syntax supported here is the same as that of requirement specifiers.
        docopt == 0.6.1
        requests [security] >= 2.8.1, == 2.8.* ; python_version < "2.7"
        urllib3 @ https://github.com/urllib3/urllib3/archive/refs/tags/1.26.8.zip

        # It is possible to refer to other requirement files or constraints files.
        -r other-requirements.txt
        -c constraints.txt

        # It is possible to refer to specific local distribution paths.
        ./downloads/numpy-1.9.2-cp34-none-win32.whl

        # It is possible to refer to URLs.
        """
        f"        {WHEEL}\n",
    )
    assert spec.pypi == (
        "pytest", "pytest-cov", "beautifulsoup4", "docopt == 0.6.1",
        'requests [security] >= 2.8.1, == 2.8.* ; python_version < "2.7"',
        "urllib3 @ https://github.com/urllib3/urllib3/archive/refs/tags/1.26.8.zip", "inner==1",
        f"numpy @ {(folder.path / 'downloads/numpy-1.9.2-cp34-none-win32.whl').as_uri()}",
        f"wxPython-Phoenix @ {WHEEL}",
    )  # fmt: skip
    assert spec.options.constraints == ("limited<3",)


def test_options(folder: Folder) -> None:
    spec = folder.read(
        "requirements.txt",
        """
        --index-url https://a.example/simple
        -i https://b.example/simple
        --extra-index-url=https://c.example/simple --extra-index-url https://d.example/simple
        -f ./links
        --find-links https://e.example
        --no-index
        --pre
        --only-binary :all:
        --no-binary=a, b
        --no-binary :none:
        --trusted-host a.example
        --prefer-binary
        --uploaded-prior-to 2026-01-01
        numpy
        """.replace("a, b", "a,b"),
    )
    options = spec.options
    assert options.index_url == "https://b.example/simple"
    assert options.extra_index_urls == ("https://c.example/simple", "https://d.example/simple")
    assert options.find_links == (str(folder.path / "links"), "https://e.example")
    assert options.no_index
    assert options.prereleases
    assert options.only_binary == (":all:",)
    assert options.no_binary == ("a", "b")
    assert spec.exclude_newer == "2026-01-01"
    assert spec.pypi == ("numpy",)


def test_comments_continuations_and_blank_lines(folder: Folder) -> None:
    text = "a #comment\nb\\\n>=1\n\\\n\nc  #\nd@https://x.example/d.whl#sha256=0\n"
    assert pypi(folder, text) == (
        "a", "b>=1", "c", "d@https://x.example/d.whl#sha256=0"
    )  # fmt: skip
    # A comment ends what was continued before it, as pip has it.
    assert pypi(folder, "a \\\n# in between\nb\n") == ("a", "b")


def test_variables(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_OF_TEST", "secret")
    monkeypatch.delenv("NOT_SET_IN_TEST", raising=False)
    spec = folder.read(
        "requirements.txt",
        "-i https://${TOKEN_OF_TEST}@a.example/${NOT_SET_IN_TEST}/$TOKEN_OF_TEST\na\n",
    )
    assert spec.options.index_url == "https://secret@a.example/${NOT_SET_IN_TEST}/$TOKEN_OF_TEST"
    assert "secret" not in repr(spec)


def test_editable_projects(folder: Folder) -> None:
    for name in ("a tool", "b", "c"):
        (folder.path / name).mkdir()
    spec = folder.read(
        "requirements.txt",
        f"""
        -e ./a tool[d, dev]
        --editable=b # comment
        -e {(folder.path / "c").as_uri()}
        -e ./none ; sys_platform == "nowhere"
        -e git+https://github.com/x/y.git@main#egg=y
        """,
    )
    here = folder.path
    assert spec.editable == (f"{here / 'a tool'}[d,dev]", str(here / "b"), str(here / "c"))
    assert spec.pypi == ("y @ git+https://github.com/x/y.git@main",)


def test_paths_and_urls_without_a_name(folder: Folder) -> None:
    folder.write("tool/pyproject.toml", '[project]\nname = "the-tool"\n')
    (folder.path / "x-1.0.tar.gz").touch()
    assert pypi(
        folder,
        "./tool[gui] ; sys_platform == 'linux'\n./x-1.0.tar.gz\n"
        "git+https://h.example/z.git#egg=z&subdirectory=s\n",
    ) == (
        f"the-tool[gui] @ {(folder.path / 'tool').as_uri()} ; sys_platform == 'linux'",
        f"x @ {(folder.path / 'x-1.0.tar.gz').as_uri()}",
        "z @ git+https://h.example/z.git#subdirectory=s",
    )


def test_files_within_files_have_their_own_folders(folder: Folder) -> None:
    folder.write("sub/more.txt", "-r deeper/last.txt\nb\n")
    folder.write("sub/deeper/last.txt", "c\n-f here\n")
    spec = folder.read("requirements.txt", "a\n-r sub/more.txt\n")
    assert spec.pypi == ("a", "c", "b")
    assert spec.options.find_links == (str(folder.path / "sub/deeper/here"),)


LOCK = """
--index-url https://a.example/simple
anyio==4.12.1 ; python_full_version < '3.10' \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via httpx
certifi==2026.1 \\
    --hash=sha256:cc
"""


def test_requirements_with_hashes_are_a_lock(folder: Folder) -> None:
    spec = folder.read("requirements.txt", LOCK)
    assert spec.lock_format == "requirements"
    assert spec.lock == (
        "anyio==4.12.1 ; python_full_version < '3.10' --hash=sha256:aa --hash=sha256:bb\n"
        "certifi==2026.1 --hash=sha256:cc\n"
    )
    assert spec.pypi == ()
    assert spec.options.index_url == "https://a.example/simple"
    again = folder.read("again.txt", spec.lock)
    assert again.lock == spec.lock


def test_a_lock_in_which_one_has_no_hash(folder: Folder) -> None:
    error = folder.fault("requirements.txt", LOCK + "loose==1\n")
    assert error.line == 8
    assert "'loose==1' has no hash" in error.reason


WRONG: list[tuple[str, int, str, str]] = [
    ("a\nb<<1\n", 2, "'b<<1', which is no requirement", "Write it like"),
    ("a\n--nonsense x\n", 2, "'--nonsense' is not known", "Take it out"),
    ("a\n-x\n", 2, "'-x' is not known", "Take it out"),
    ("-r\n", 1, "'-r' lacks its value", "Add it"),
    ("-e\n", 1, "lacks its value", "Add it"),
    ("--index-url\n", 1, "lacks its value", "Add it"),
    ("-r none.txt\n", 1, "cannot be read", "relative to"),
    ("-r https://x.example/r.txt\n", 1, "have to be fetched", "Save it"),
    ("-r requirements.txt\n", 1, "includes this one", "circle"),
    ("a --config-settings x=y\n", 1, "--config-settings of a single requirement", "wheel"),
    ("-e ./none\n", 1, "is no folder", "relative to"),
    ("-e . ; python_version > '3'\n", 1, "not chosen yet", "sys_platform"),
    ("a\n./none.whl\n", 2, "does not exist", "relative to"),
    ("https://x.example/something\n", 1, "what it is the package of", "'name @ https"),
    ("-e git+https://x.example/y.git\n", 1, "what it is the package of", "name @"),
    ("-f 'a\n", 1, "cannot be read", "Close the quotes"),
    ("a ; nonsense\n", 1, "no requirement", "Write it like"),
]


@cases(("text", "line", "reason", "remedy"), WRONG)
def test_what_is_malformed(folder: Folder, text: str, line: int, reason: str, remedy: str) -> None:
    error = folder.fault("requirements.txt", text)
    assert reason in error.reason
    assert remedy in error.remedy
    assert error.line == line


def test_an_error_in_a_file_within_names_that_file(folder: Folder) -> None:
    inner = folder.write("sub/more.txt", "a\n\nb<<1\n")
    file = folder.write("requirements.txt", "-r sub/more.txt\n")
    with pytest.raises(ValueError, match="b<<1") as caught:
        EnvironmentSpec.from_file(file)
    assert str(caught.value).startswith(f"{inner}:3: ")


def test_choices_that_it_does_not_have(folder: Folder) -> None:
    assert "no groups" in folder.fault("requirements.txt", "a\n", extras=["x"]).reason
