"""What a report means: which data can be exchanged, what is wrong or slow, and the remedy for each.

Pure functions of the report.
"""

from __future__ import annotations

from typing import Any

#: What ``packages[name]["exchange"]`` says -> in words.
EXCHANGES = {
    "all": "everything",
    "most": "arrays of every dtype, scalars, random generators; not StringDType",
    "none": "nothing: use arrays or builtin types instead",
    "here only": "nothing: it is missing in the environment",
    "there only": "nothing: it is missing here",
    "neither": "it is on neither side",
}

#: The oldest Python of a worker.
OLDEST = (3, 8)
#: Seconds; slower than this is worth a word.
SLOW_START, SLOW_ACTIVATION = 2.0, 1.0
#: Bytes.
LITTLE_MEMORY, LITTLE_SHM = 1 << 30, 128 << 20
#: Descriptors; a worker costs the host about ten.
FEW_FILES = 256


def exchange(package: str, here: str | None, there: str | None) -> str:
    """Return which data of a package can travel between two versions: a key of ``EXCHANGES``."""
    if here is None or there is None:
        return "neither" if here == there else "there only" if here is None else "here only"
    if _major(here) == _major(there):
        return "all"
    return "most" if package == "numpy" else "none"


def problems(report: dict[str, Any]) -> list[dict[str, str]]:
    """Return what should be known about a report.

    ``level`` ("error", "warning" or "note"), ``what``, ``remedy``.
    """
    found: list[dict[str, str]] = []

    def add(level: str, what: str, remedy: str) -> None:
        found.append({"level": level, "what": what, "remedy": remedy})

    _interpreter(report, add)
    _failure(report, add)
    _times(report, add)
    _packages(report, add)
    _machine(report, add)
    return sorted(found, key=lambda each: ("error", "warning", "note").index(each["level"]))


def _major(version: str) -> str:
    return version.partition(".")[0]


def _version(report: dict[str, Any]) -> tuple[int, ...]:
    return tuple(int(part) for part in report["interpreter"]["version"].split(".")[:2])


def _interpreter(report: dict[str, Any], add: Any) -> None:
    interpreter, worker = report["interpreter"], report["worker"]
    if interpreter is None:
        return
    if _version(report) < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        how = {
            "conda": f"conda install -p {report['environment']['prefix']} 'python>={wanted}'",
            "pixi": f"pixi add 'python>={wanted}'",
        }
        remedy = how.get(
            report["environment"]["kind"],
            f"make the environment anew with Python {wanted} or newer",
        )
        add(
            "error",
            f"Python {interpreter['version']} is too old: a worker needs {wanted} or newer",
            remedy,
        )
    if interpreter["implementation"] != "CPython":
        add(
            "warning",
            f"{interpreter['implementation']} has never been tested as a worker",
            "prefer CPython",
        )
    if report["code"] is not None and not report["code"]["same_bytecode"]:
        here, there = report["host"]["version"], interpreter["version"]
        what = (
            f"this is Python {here}, the environment has {there}: lambdas and functions of "
            f"scripts cannot travel as bytecode, only as source"
        )
        add(
            "note",
            what,
            'use functions of modules, or "file.py:function", where speed or exactness matters',
        )
    if worker is not None and worker["user_site"]:
        what = (
            "the environment sees packages of the user's own site-packages, which may hide its own"
        )
        add("warning", what, 'worker_env={"PYTHONNOUSERSITE": "1"}')
    if worker is not None and worker["bits"] == 32:
        add(
            "warning",
            "a 32-bit interpreter: arrays of more than about 1 GB do not fit",
            "use a 64-bit one",
        )


def _failure(report: dict[str, Any], add: Any) -> None:
    failure = report["failure"]
    if failure is None or (report["interpreter"] is not None and _version(report) < OLDEST):
        return  # that it is too old has been said
    remedies = {
        "activation": "correct the script that the message names, or leave activation out: "
        "CondaEnvExecutor(..., activate=False)",
        "interpreter": "make the environment anew, or give the path of another interpreter",
        "start": "read the last lines above; sitecustomize and .pth files run before a worker, "
        "and its folder must be readable",
    }
    add(
        "error",
        f"no worker can be started ({failure['step']}): {failure['message']}",
        remedies[failure["step"]],
    )


def _times(report: dict[str, Any], add: Any) -> None:
    activation, start = report["activation"], report["start"]
    if activation is not None and activation["seconds"] > SLOW_ACTIVATION:
        what = f"activation takes {activation['seconds']:.1f} s, once per executor"
        add("warning", what, "look at the scripts in etc/conda/activate.d, or use activate=False")
    if start is not None and start["seconds"] > SLOW_START:
        what = f"the first result takes {start['seconds']:.1f} s"
        add(
            "warning",
            what,
            "a slow disk, or .pth files that import packages at start: look into "
            "the environment's site-packages; launch() early",
        )


def _packages(report: dict[str, Any], add: Any) -> None:
    for name in ("numpy", "pandas"):
        package = report["packages"].get(name)
        if package is None:
            continue
        if package["error"]:
            add(
                "warning",
                f"{name} {package['there']} of the environment cannot be imported: "
                f"{package['error']}",
                f"install {name} anew there",
            )
        exchanged, here, there = package["exchange"], package["here"], package["there"]
        if exchanged == "here only":
            add(
                "note",
                f"{name} is here ({here}) but not in the environment: its objects cannot "
                f"be arguments",
                f"install {name} there",
            )
        elif exchanged == "there only":
            add(
                "note",
                f"{name} is in the environment ({there}) but not here: its objects cannot "
                f"be results",
                f"install {name} here",
            )
        elif exchanged == "most":
            add(
                "note",
                f"{name} is {here} here and {there} there: {EXCHANGES['most']}",
                "nothing, unless StringDType is used",
            )
        elif exchanged == "none":
            remedy = (
                "install the same major version on both sides, or send frame.to_dict(), arrays or "
                "a file"
            )
            add(
                "warning",
                f"{name} is {here} here and {there} there: its frames cannot travel",
                remedy,
            )
    own = report["packages"].get("wetlands_executor")
    if own is not None and own["there"] and own["here"] != own["there"]:
        what = (
            f"the environment has a wetlands_executor of its own ({own['there']}, here "
            f"{own['here']}), which tasks import there"
        )
        add("note", what, "remove it there: nothing of it is needed")


def _machine(report: dict[str, Any], add: Any) -> None:
    memory, limits, mechanisms = report["memory"], report["limits"], report["mechanisms"]
    left = memory["available"]
    if memory["cgroup_limit"] is not None:
        left = min(left, memory["cgroup_limit"] - (memory["cgroup_used"] or 0))
    if left < LITTLE_MEMORY:
        add(
            "warning",
            f"only {size(left)} of memory are free",
            "fewer workers, smaller arrays, or a higher limit of the container",
        )
    if memory["shm_free"] is not None and memory["shm_free"] < LITTLE_SHM:
        what = (
            f"only {size(memory['shm_free'])} are free in /dev/shm, which multiprocessing inside "
            f"tasks may need"
        )
        add(
            "warning",
            what,
            "docker run --shm-size=1g (this library's own shared memory does not live there)",
        )
    if not memory["memfd"] and report["host"]["platform"].startswith("Linux"):
        add(
            "warning",
            "no unnamed shared memory (memfd_create): large arrays go through pipes",
            "a kernel from 3.17 on, a sandbox that allows it",
        )
    if memory["address_space_limit"] is not None:
        add(
            "warning",
            f"processes may map {size(memory['address_space_limit'])} at most (ulimit -v)",
            "ulimit -v unlimited",
        )
    if limits["open_files"] is not None and limits["open_files"] < FEW_FILES:
        add(
            "warning",
            f"only {limits['open_files']} descriptors: a worker takes about ten of them here",
            "ulimit -n 4096",
        )
    if report["host"]["platform"].startswith("Linux") and not all(mechanisms.values()):
        missing = ", ".join(name for name, there in mechanisms.items() if not there)
        add(
            "note",
            f"the slower ways are used: no {missing}",
            "Linux 5.3 or newer, /proc mounted, WETLANDS_EXECUTOR_PLAIN not set",
        )


def size(number: float) -> str:
    """Return a number of bytes for people."""
    for unit in ("bytes", "KB", "MB"):
        if number < 1024:
            return f"{number:.0f} {unit}"
        number /= 1024
    return f"{number:.1f} GB"
