"""What conda's and mamba's settings files say of environments, read without a YAML library.

Owns the search path of ``.condarc`` and ``.mambarc`` and the little of YAML that a list of folders
and a switch need: block lists, flow lists, one string, quotes and comments. Anything it does not
understand counts as not being there; nothing here raises.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

from wetlands_executor.environment import _platform

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# conda calls the setting by both names.
_KEY: Final = re.compile(
    r"""(?P<quote>["']?)(?:envs_dirs|envs_path)(?P=quote)[ \t]*:(?:[ \t]+(?P<rest>.*))?$"""
)
_UPPER: Final = re.compile(
    r"""(?P<quote>["']?)envvars_force_uppercase(?P=quote)[ \t]*:[ \t]+(?P<rest>.+)$"""
)
_FALSE: Final = frozenset({"false", "no", "off", "n", "0"})
_ITEM: Final = re.compile(r"[ \t]*-(?:[ \t]+(?P<rest>.*))?$")
_ESCAPES: Final = {
    "n": "\n",
    "t": "\t",
    "r": "\r",
    "0": "\0",
    "a": "\a",
    "b": "\b",
    "e": "\x1b",
    "f": "\f",
    "v": "\v",
    "_": "\xa0",
}
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})


def expand(path: str) -> str:
    """Expand ``~`` and ``$VAR`` in a folder's name, as conda does, and make it absolute."""
    return os.path.abspath(os.path.expanduser(os.path.expandvars(path)))


def settings_files(roots: Iterable[str]) -> list[str]:
    """Return the settings files that exist, the most important first.

    The order is mamba's (libmamba/src/api/configuration.cpp), from its end: ``$MAMBARC``, the
    user's ``.mambarc``, and then conda's (conda/base/constants.py, ``SEARCH_PATH``): ``$CONDARC``,
    the active prefix, the user's home, ``~/.conda``, ``~/.config/conda``, the root prefixes, the
    machine. Conda itself does not read mamba's.

    Args:
        roots: root prefixes of conda installations.
    """
    home = os.path.expanduser("~")
    settings = os.environ.get("XDG_CONFIG_HOME", "")
    config = os.path.join(home, ".config")
    folders = [*_platform.system_condarcs(), *roots]
    files: list[str] = []
    for folder in folders:
        files += [*_files_in(folder, "conda"), os.path.join(folder, ".mambarc")]
    for folder in (
        *([os.path.join(settings, "conda")] if settings else ()),
        os.path.join(config, "conda"),
        os.path.join(home, ".conda"),
    ):
        files += _files_in(folder, "conda")
    files.append(os.path.join(home, ".condarc"))
    active = os.environ.get("CONDA_PREFIX", "")
    if active:
        files += _files_in(active, "conda")
    if os.environ.get("CONDARC"):
        files.append(expand(os.environ["CONDARC"]))
    for folder in (os.path.join(settings or config, "mamba"), os.path.join(home, ".mamba")):
        files += _files_in(folder, "mamba")
    files.append(os.path.join(home, ".mambarc"))
    if active:
        files.append(os.path.join(active, ".mambarc"))
    if os.environ.get("MAMBARC"):
        files.append(expand(os.environ["MAMBARC"]))
    return list(dict.fromkeys(file for file in reversed(files) if os.path.isfile(file)))


def _files_in(folder: str, manager: str) -> list[str]:
    files = [os.path.join(folder, f".{manager}rc"), os.path.join(folder, f"{manager}rc")]
    more = os.path.join(folder, f"{manager}rc.d")
    try:
        files += sorted(
            os.path.join(more, name)
            for name in os.listdir(more)
            if name.endswith((".yml", ".yaml"))
        )
    except OSError:  # no such folder, or not ours to read
        pass
    return files


def forces_upper_case(prefix: str) -> bool:
    """Return what ``envvars_force_uppercase`` says.

    True unless a settings file, the most important first, says otherwise.

    Args:
        prefix: of the environment that is activated; its own settings count, as they would after
            ``conda activate``.
    """
    value = os.environ.get("CONDA_ENVVARS_FORCE_UPPERCASE", "")
    if value:
        return value.strip().lower() not in _FALSE
    roots = [
        os.environ.get("MAMBA_ROOT_PREFIX", ""),
        os.path.dirname(os.path.dirname(os.environ.get("CONDA_EXE", ""))),
    ]
    for file in [*_files_in(prefix, "conda"), *settings_files(filter(None, roots))]:
        for line in _text_of(file).splitlines():
            match = _UPPER.match(line)
            if match is not None:
                return _scalar(match["rest"].strip()).lower() not in _FALSE
    return True


def envs_dirs(file: str) -> list[str]:
    """Return the folders of environments that one settings file names, expanded.

    None if it cannot be read.
    """
    return [expand(folder) for folder in parse_envs_dirs(_text_of(file))]


def _text_of(file: str) -> str:
    try:
        with open(file, encoding="utf-8-sig", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


def parse_envs_dirs(text: str) -> list[str]:
    """Return the values of the top-level key ``envs_dirs`` of a YAML text, as they are written."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        match = _KEY.match(line)
        if match is None:
            continue
        rest = (match["rest"] or "").strip()
        if rest.startswith("["):
            return [
                value
                for value in _flow("\n".join([rest[1:], *lines[number + 1 :]]))
                if value not in _NULLS
            ]
        if rest and not rest.startswith("#"):
            return [value for value in _scalar(rest).split(os.pathsep) if value not in _NULLS]
        return [value for value in _block(lines[number + 1 :]) if value not in _NULLS]
    return []


def _block(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _ITEM.match(line)
        if match is None:
            return
        yield _scalar((match["rest"] or "").strip())


def _flow(text: str) -> Iterator[str]:
    """Yield the values up to the ``]`` that closes the list."""
    position, value, seen = 0, "", False
    while position < len(text):
        character = text[position]
        if character in "\"'" and not value:
            value, position = _quoted(text, position)
            seen = True
        elif character == "#" and (position == 0 or text[position - 1].isspace()):
            end = text.find("\n", position)
            position = len(text) if end < 0 else end
        elif character in ",]":
            if seen or value.strip():
                yield value if seen else value.strip()
            if character == "]":
                return
            position, value, seen = position + 1, "", False
        else:
            if not seen:
                value = (value + character) if not character.isspace() or value else value
            position += 1


def _scalar(text: str) -> str:
    """Return the value of a string that stands alone on its line.

    Quoted, or plain up to a comment.
    """
    if text[:1] in ("'", '"'):
        return _quoted(text, 0)[0]
    if text.startswith("#"):
        return ""
    return re.split(r"[ \t]#", text, maxsplit=1)[0].strip()


def _quoted(text: str, start: int) -> tuple[str, int]:
    """Return the string that begins with the quote at ``start``, and the position behind it."""
    quote, position = text[start], start + 1
    value: list[str] = []
    while position < len(text):
        character = text[position]
        if character == quote:
            if quote == "'" and text[position + 1 : position + 2] == "'":
                position += 1
            else:
                return "".join(value), position + 1
        elif character == "\\" and quote == '"':
            escape = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|(.))", re.DOTALL).match(
                text, position
            )
            if escape is None:
                return "".join(value), len(text)
            code = escape[1] or escape[2]
            value.append(chr(int(code, 16)) if code else _ESCAPES.get(escape[3], escape[3]))
            position = escape.end()
            continue
        value.append(character)
        position += 1
    return "".join(value), position
