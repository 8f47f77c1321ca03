"""Solve for, fetch and install conda packages with py-rattler; run in a process of its own.

So it can be ended at any moment, and its log is a file like that of any other package manager. The
file that its only argument names holds what is wanted, as JSON; what it writes are lines of JSON:
``{"step": [phase, message, current, maximum]}`` and at last ``{"finished": true}``.

Imports nothing of this package: it is run by its path.
"""

from __future__ import annotations

import asyncio
import glob
import json
import os
import re
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any


def say(**told: Any) -> None:
    """Write a line of JSON."""
    print(json.dumps(told), flush=True)


class Reporter:
    """Tells progress; the methods are those of ``rattler.InstallerReporter``."""

    def __init__(self) -> None:
        self._total = 0.0
        self._done = 0.0
        self._names: dict[int, str] = {}
        self._bytes: dict[int, tuple[float, float]] = {}

    def on_transaction_start(self, total_operations: int) -> None:
        """Take the number of packages."""
        self._total = float(total_operations)
        say(step=["installing", f"{total_operations} packages", 0.0, self._total])

    def on_populate_cache_start(self, operation: int, package_name: str) -> int:
        """Take the name of a package."""
        self._names[operation] = package_name
        return operation

    def on_download_start(self, cache_entry: int) -> int:
        """Name a download by its package."""
        return cache_entry

    def on_download_progress(self, download_idx: int, progress: int, total: int | None) -> None:
        """Tell how many bytes have come, of all downloads."""
        self._bytes[download_idx] = float(progress), float(total or progress)
        current = sum(done for done, _ in self._bytes.values())
        maximum = sum(whole for _, whole in self._bytes.values())
        say(step=["fetching", self._names.get(download_idx, "packages"), current, maximum])

    def on_link_complete(self, index: int) -> None:  # noqa: ARG002
        """Count a package."""
        self._done += 1
        say(step=["installing", f"{int(self._total)} packages", self._done, self._total])

    def __getattr__(self, name: str) -> Any:
        """Take every other call."""
        if name.startswith("on_"):
            return lambda *_: 0
        raise AttributeError(name)


def newest(text: str | None) -> datetime | timedelta | None:
    """Return what ``exclude_newer`` stands for."""
    if text is None:
        return None
    words = re.fullmatch(r"(?i)P?(\d+)\s*(d|days?|w|weeks?)", text.strip())
    if words is not None:
        days = int(words[1]) * (7 if words[2].lower().startswith("w") else 1)
        return timedelta(days=days)
    found = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    return found if found.tzinfo is not None else found.replace(tzinfo=timezone.utc)


def fetched_folder(url: str, folder: Path) -> Path | None:
    """Return the folder of a package that was fetched before; None if it was not."""
    stem = re.sub(r"\.(conda|tar\.bz2)$", "", url.rsplit("/", 1)[-1])
    found = sorted(folder.glob(f"{glob.escape(stem)}*/info/index.json"))
    names = [each.parents[1] for each in found]
    return next((each for each in names if re.fullmatch(r"(-.*)?", each.name[len(stem) :])), None)


def fetched_record(url: str, folder: Path) -> Any:
    """Return the record of a package of a lock that was fetched before."""
    import rattler

    found = fetched_folder(url, folder)
    if found is None:
        raise ValueError(f"offline: {url} was not fetched before")
    record = rattler.PackageRecord.from_index_json(found / "info" / "index.json")
    channel, _, file = url.rsplit("/", 2)
    return rattler.RepoDataRecord(record, file, url, channel)


async def solve(wanted: dict[str, Any], packages: Path) -> Any:
    """Return the records of the packages that are to be installed.

    Args:
        wanted: see above.
        packages: folder of those that were fetched before.
    """
    import rattler

    offline, explicit = wanted["offline"], wanted["explicit"]
    config = rattler.SourceConfig(
        cache_action="force-cache-only" if offline else "cache-or-fetch",
        # Shards are asked for whatever the cache action is (0.28).
        sharded_enabled=not offline,
    )
    gateway = rattler.Gateway(cache_dir=packages.parent / "repodata", default_config=config)
    detected = rattler.VirtualPackage.detect()
    if not explicit:
        priority = rattler.ChannelPriority
        return await rattler.solve(
            wanted["channels"],
            wanted["specs"],
            gateway=gateway,
            virtual_packages=detected,
            constraints=wanted["constraints"] or None,
            strategy=wanted["strategy"] or "highest",
            exclude_newer=newest(wanted["exclude_newer"]),
            channel_priority=(
                priority.Disabled if wanted["priority"] == "disabled" else priority.Strict
            ),
        )
    lines = [line.partition("#") for line in explicit]
    hashes = {url: digest.removeprefix("sha256:").lower() for url, _, digest in lines}
    if offline and not all(url.startswith("file:") for url in hashes):
        # A solve for URLs fetches what it does not know.
        records = [fetched_record(url, packages) for url in hashes]
    else:
        records = await rattler.solve([], list(hashes), gateway=gateway, virtual_packages=detected)
    for record in records:
        digest = hashes[record.url]
        if len(digest) == 64:
            record.sha256 = bytes.fromhex(digest)
        elif len(digest) == 32:
            record.md5 = bytes.fromhex(digest)
    return records


async def install(wanted: dict[str, Any]) -> None:
    """Do what is wanted."""
    import rattler

    packages = Path(wanted["cache"]) / "pkgs"
    say(step=["solving", "the conda packages", None, None])
    records = await solve(wanted, packages)
    say(step=["solving", f"{len(records)} packages found", None, None])
    for url in (str(record.url) for record in records if wanted["offline"]):
        if not url.startswith("file:") and fetched_folder(url, packages) is None:
            raise ValueError(f"offline: {url} was not fetched before")
    # 0.28 takes the inner objects only.
    specs = [getattr(each, "_match_spec", each) for each in map(rattler.MatchSpec, wanted["specs"])]
    await rattler.install(
        records,
        target_prefix=wanted["prefix"],
        cache_dir=packages,
        show_progress=False,
        reporter=Reporter(),
        requested_specs=specs or None,
    )
    say(finished=True)


def main() -> None:
    """Read what is wanted and do it."""
    wanted = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    sys.path.extend(wanted["sys_path"])
    code = 0
    try:
        asyncio.run(install(wanted))
    except Exception as error:  # noqa: BLE001 - it is told, whatever it is
        print(f"{type(error).__name__}: {error}", flush=True)
        code = 1
    # Its threads may call the reporter while the interpreter is taken down, and crash there (0.28).
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
