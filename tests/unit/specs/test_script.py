"""Python files that carry their environment (PEP 723)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cases import cases
from tests.unit.specs.files import Folder
from wetlands_executor.environment.formats import imported, script
from wetlands_executor.environment.formats.source import Source
from wetlands_executor.environment.spec import EnvironmentSpec
from wetlands_executor.environment.subdir import subdir
from wetlands_executor.errors import SpecError

BLOCK = """\
# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "requests<3",
#   "rich",
# ]
# ///
"""


def source(text: str) -> Source:
    return Source("segment.py", "/nowhere", text)


def content(text: str) -> str | None:
    found = script.block(source(text))
    return None if found is None else found.text


# ------------------------------------------------------------------------------------- the block


def test_the_example_of_the_specification(folder: Folder) -> None:
    spec = folder.read("x.py", BLOCK + '\nimport requests\nprint("hello")\n')
    assert spec == EnvironmentSpec(python=">=3.11", pypi=("requests<3", "rich"))
    assert not spec.needs_conda


@cases("before", ["", "#!/usr/bin/env python3\n", '"""Text."""\n\n', "\n\n# x\n"])
@cases("after", ["", "\n# comment\n", "import os\n", "# more\n# comment\n"])
def test_what_stands_around_it_is_of_no_account(before: str, after: str) -> None:
    assert content(before + BLOCK + after) == content(BLOCK)


def test_other_line_ends_and_a_byte_order_mark(tmp_path: Path) -> None:
    for name, data in (
        ("dos.py", BLOCK.replace("\n", "\r\n").encode()),
        ("mac.py", BLOCK.replace("\n", "\r").encode()),
        ("bom.py", b"\xef\xbb\xbf" + BLOCK.encode()),
        ("cookie.py", b"# -*- coding: latin-1 -*-\n# \xe4\n" + BLOCK.encode("latin-1")),
    ):
        (tmp_path / name).write_bytes(data)
        spec = EnvironmentSpec.from_file(tmp_path / name)
        assert spec.pypi == ("requests<3", "rich")


def test_the_last_closing_line_of_the_comment_ends_it() -> None:
    """The example of the specification: the content itself has such lines."""
    text = (
        '# /// some-toml\n# embedded-csharp = """\n# /// <summary>\n# /// text\n# ///\n'
        "# /// </summary>\n"
        '# public class MyClass { }\n# """\n# ///\n'
    )
    assert content(text) is None
    found = content(text.replace("some-toml", "script"))
    assert found is not None
    assert found.count("\n") == 7
    assert found.endswith('"""\n')


def test_an_empty_comment_line_is_an_empty_line() -> None:
    assert content("# /// script\n# a = 1\n#\n# b = 2\n# ///\n") == "a = 1\n\nb = 2\n"
    assert content("# /// script\n# ///\n") == "\n"
    assert content("# /// script\n# ///") == "\n"


def test_blocks_of_other_types_are_passed_over() -> None:
    assert content("# /// other\n# x\n# ///\n") is None
    assert content("# /// other\n# x\n# ///\n\n" + BLOCK) == content(BLOCK)
    assert content("# /// other\n# not closed\n\n" + BLOCK) == content(BLOCK)
    inner = "# /// other\n# # /// script\n# ///\n\n"
    assert content(inner + BLOCK) == content(BLOCK)


def test_it_asks_for_nothing(folder: Folder) -> None:
    assert folder.read("x.py", "# /// script\n# ///\n") == EnvironmentSpec()
    assert folder.read("x.py", "# /// script\n# dependencies = []\n# ///\n") == EnvironmentSpec()


# ---------------------------------------------------------------------------------- what it asks


def test_conda_packages_as_pixi_reads_them(folder: Folder) -> None:
    spec = folder.read(
        "x.py",
        f"""
        # /// script
        # requires-python = ">=3.11"
        # dependencies = ["httpx"]
        #
        # [tool.pixi.workspace]
        # channels = ["conda-forge", "bioconda"]
        # channel-priority = "strict"
        #
        # [tool.pixi.dependencies]
        # gdal = "*"
        # samtools = {{ version = ">=1.19", channel = "bioconda" }}
        #
        # [tool.pixi.pypi-dependencies]
        # internal = {{ version = ">=2", index = "https://pypi.example.com/simple" }}
        #
        # [tool.pixi.target.{subdir()}.dependencies]
        # libblas = "3.9.*"
        # ///
        """,
    )
    assert spec.python == ">=3.11"
    assert spec.conda == ("gdal", "bioconda::samtools >=1.19", "libblas 3.9.*")
    assert spec.pypi == ("internal>=2", "httpx")
    assert spec.channels == ("conda-forge", "bioconda")
    assert spec.channel_priority == "strict"
    assert spec.options.sources == {"internal": "https://pypi.example.com/simple"}
    assert spec.needs_conda


def test_python_among_the_conda_packages_wins(folder: Folder) -> None:
    spec = folder.read(
        "x.py",
        """
        # /// script
        # requires-python = ">=3.11"
        # [tool.pixi.dependencies]
        # python = "3.9.*"
        # ///
        """,
    )
    assert spec.python == "==3.9.*"
    assert not spec.needs_conda


def test_what_uv_reads(folder: Folder) -> None:
    (folder.path / "tools").mkdir()
    spec = folder.read(
        "x.py",
        """
        # /// script
        # dependencies = ["torch", "Tool[gui]", "http_x", "plain<2"]
        # [tool.uv]
        # exclude-newer = "2023-10-16T00:00:00Z"
        # prerelease = "allow"
        # resolution = "lowest-direct"
        # constraint-dependencies = ["numpy<2"]
        # override-dependencies = ["scipy==1.*"]
        # no-build = true
        # link-mode = "copy"
        # [[tool.uv.index]]
        # name = "cpu"
        # url = "https://download.example.org/cpu"
        # explicit = true
        # [[tool.uv.index]]
        # url = "https://mirror.example.org/simple"
        # default = true
        # [[tool.uv.index]]
        # url = "https://more.example.org/simple"
        # [tool.uv.sources]
        # torch = [
        #   { index = "cpu", marker = "sys_platform == 'nowhere'" },
        #   { index = "cpu" },
        # ]
        # tool = { path = "tools", editable = true }
        # http-x = { git = "https://example.org/http.git", rev = "abc", subdirectory = "py" }
        # ///
        """,
    )
    assert spec.pypi == (
        "torch", "http_x @ git+https://example.org/http.git@abc#subdirectory=py", "plain<2"
    )  # fmt: skip
    assert spec.editable == (f"{folder.path / 'tools'}[gui]",)
    assert spec.exclude_newer == "2023-10-16T00:00:00Z"
    assert spec.strategy == "lowest-direct"
    options = spec.options
    assert options.sources == {"torch": "https://download.example.org/cpu"}
    assert options.index_url == "https://mirror.example.org/simple"
    assert options.extra_index_urls == ("https://more.example.org/simple",)
    assert options.constraints == ("numpy<2",)
    assert options.overrides == ("scipy==1.*",)
    assert options.prereleases
    assert options.only_binary == (":all:",)


def test_another_place_of_the_file_is_the_same_environment(folder: Folder) -> None:
    one = folder.read("a/x.py", BLOCK)
    other = folder.read("b/y.py", f"# elsewhere\n{BLOCK}\nx = 1\n")
    assert one.digest() == other.digest()
    assert folder.read("a/x.py", BLOCK.replace("rich", "rich>1")).digest() != one.digest()


# ------------------------------------------------------------------------------------ what is wrong

OF_A = "# dependencies = ['a']\n# [tool.uv.sources]\n# a = { "
WRONG: list[tuple[str, int, str, str]] = [
    ("# dependencies = 'numpy'", 2, "is a string, not an array", '["numpy"]'),
    ("# dependencies = [1]", 2, "holds a number", "in quotes"),
    ("# dependencies = [\n#  'a',\n#  'b<<1',\n# ]", 4, "'b<<1', which is no", "'numpy'"),
    ("# requires-python = 3.11", 2, "is a number, not a string", '"3.11"'),
    ("# requires-python = '3.x'", 2, "no set of versions", ""),
    ("# dependancies = []", 2, "no part of a script's metadata", "'dependencies'"),
    ("# a = 1\n# b = [", 3, "no TOML", "toml.io"),
    ("# a = 1\n# a = 2", 3, "no TOML", ""),
    ("# [tool.pixi]\n# depend = 1", 3, "is not read from a script", ""),
    ("# [tool.pixi.feature.x]", 2, "is not read from a script", ""),
    ("# [tool.pixi.workspace]\n# channels = 'x'", 3, "not an array of channels", "conda-forge"),
    ("# [tool.pixi.workspace]\n# platforms = ['zos-z']", 3, "this machine is", subdir()),
    ("# [tool.pixi.workspace]\n# channel-priority = 'x'", 3, "is 'x'", "'strict'"),
    ("# [tool.pixi.dependencies]\n# gdal = 3", 3, "is a number, not a table", ""),
    ("# [tool.pixi.dependencies]\n# gdal = { path = 'x' }", 3, "built from its source", ""),
    ("# [tool.pixi.dependencies]\n# gdal = { when = 'x' }", 3, "repodata v3", ""),
    ("# [tool.pixi.dependencies]\n# gdal = { versio = '3' }", 3, "not known", "'version'"),
    ("# [tool.pixi.dependencies]\n# '?' = '3'", 3, "no conda package", ""),
    ("# [tool.pixi.activation]\n# scripts = ['a.sh']", 3, "not run", "activate=['. a.sh']"),
    ("# [tool.pixi.activation.env]\n# A = '$B/c'", 3, "refers to another variable", "worker_env"),
    ("# [tool.uv]\n# dependency-metadata = [{}]", 3, "cannot be honoured", ""),
    ("# [tool.uv]\n# exclude-newr = 'x'", 3, "not known", "'exclude-newer'"),
    ("# [tool.uv]\n# resolution = 'x'", 3, "is 'x'", "'lowest'"),
    (f"{OF_A}index = 'x' }}", 4, "which is not there", "[[tool.uv.index]]"),
    (f"{OF_A}workspace = true }}", 4, "of a workspace, and there is none", "path"),
    (f"{OF_A}subdirectory = 'x' }}", 4, "has none of index", "path"),
    (f"{OF_A}path = 'none' }}", 4, "does not exist", "relative to"),
    (f"{OF_A}git = 'https://x', rev = '1', tag = '2' }}", 4, "rev and tag", "one"),
    (f"{OF_A}url = 'https://x', git = 'https://x' }}", 4, "git and url", "one"),
    (f"{OF_A}path = '.', marker = 'extra == \"x\"' }}", 4, "not chosen yet", "sys_platform"),
    (f"{OF_A}path = '.', marker = 'nothing' }}", 4, "no marker", "sys_platform"),
]  # fmt: skip


@cases(("lines", "line", "reason", "remedy"), WRONG)
def test_what_is_malformed(folder: Folder, lines: str, line: int, reason: str, remedy: str) -> None:
    text = f"# /// script\n{lines}\n# ///\n"
    error = folder.fault("x.py", text)
    assert reason in error.reason
    assert remedy in f"{error.remedy} {error.reason}"
    assert error.line == line
    shifted = folder.fault("x.py", f'#!/usr/bin/env python\n"""Text."""\n\n{text}')
    assert shifted.line == line + 3


def test_two_blocks(folder: Folder) -> None:
    error = folder.fault("x.py", f"{BLOCK}\nx = 1\n{BLOCK}")
    assert error.line == 10
    assert "line 1" in error.reason


def test_a_block_that_is_not_closed(folder: Folder) -> None:
    error = folder.fault("x.py", "import os\n# /// script\n# a = 1\n\n# ///\n")
    assert error.line == 2
    assert "not closed" in error.reason


@cases("line", ["#/// script", "# ///script", " # /// script", "# /// script "])
def test_a_line_that_almost_begins_a_block(folder: Folder, line: str) -> None:
    error = folder.fault("x.py", f"\nimport os\n{line}\n# dependencies = []\n# ///\n")
    assert error.line == 2
    assert "exactly '# /// script'" in error.remedy


def test_a_file_in_another_encoding(folder: Folder) -> None:
    file = folder.path / "x.py"
    file.write_bytes(b"# 1\n# \xff\n")
    with pytest.raises(SpecError, match="no text in utf-8") as caught:
        EnvironmentSpec.from_file(file)
    assert caught.value.line is not None
    assert "UTF-8" in caught.value.remedy


def test_choices_that_a_script_does_not_have(folder: Folder) -> None:
    for wanted in ({"groups": ["a"]}, {"extras": ["a"]}, {"environment": "a"}):
        assert "a script has no" in folder.fault("x.py", BLOCK, **wanted).reason


# ---------------------------------------------------------------------------------------- no block


def test_without_a_block_one_is_suggested(folder: Folder) -> None:
    (folder.path / "beside.py").write_text("")
    (folder.path / "package").mkdir()
    error = folder.fault(
        "x.py",
        """
        import os, sys
        import numpy as np, scipy.ndimage
        from skimage.io import imread
        from . import sibling
        import beside, package
        from wetlands_executor import current_task

        def late():
            import cv2
            from PIL import Image
        """,
    )
    assert error.line is None
    assert "PEP 723" in error.remedy
    suggested = [line for line in error.remedy.splitlines() if line.startswith("#")]
    assert suggested[2] == (
        '# dependencies = ["numpy", "opencv-python-headless", "pillow", "scikit-image", "scipy"]'
    )
    spec = folder.read("y.py", "\n".join(suggested) + "\n")
    assert "numpy" in spec.pypi
    assert spec.python is not None


@cases("text", ["", "def (:\n", "x = 1\n", "\0", "import os\n"])
def test_a_suggestion_is_a_block_whatever_the_file_is(text: str) -> None:
    suggested = imported.suggest(source(text))
    assert content(f"{suggested}\n") is not None
    assert "dependencies = []" in suggested
