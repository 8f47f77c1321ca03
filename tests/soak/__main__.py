"""The program: ``python -m tests.soak --seconds 60 --seed 7``.

The run is a row of rounds. A round makes its executors, lets several threads (drivers) work them
with ingredients drawn at random, ends the executors, and looks what is left. The seed decides what
each driver does in which order; the times are the machine's. The first round warms
up: what it leaves is the measure for the rest. Prints the seed first. Exit code 0, or 1 with what
did not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import logging
import random
import sys
import tempfile
import threading
import time
import traceback
from typing import Any

from tests.soak import calls, data, harm, host
from tests.soak.counts import Counts, growth, keep_memory_comparable
from tests.soak.ledger import LIMIT, Kitchen, Ledger, Violation
from tests.support import dispositions, interpreters, leaks
from wetlands_executor import CondaEnvExecutor

INGREDIENTS = {**calls.INGREDIENTS, **data.INGREDIENTS, **harm.INGREDIENTS, **host.INGREDIENTS}
#: Of an ingredient, how often it is drawn, beside 1 for the others: these cost seconds.
WEIGHTS = {"interrupted_host": 0.15, "killed_host": 0.15, "vandals": 0.3, "fast_results": 2.0}
#: Seconds beyond its time at which a run is given up, with the stacks of all threads.
MARGIN = 240.0


def executors(stack: contextlib.ExitStack, rng: random.Random) -> dict[str, Any]:
    """Make the executors of a round; they end with the stack."""
    others = [found for found in interpreters.find() if found.version[:2] != sys.version_info[:2]]
    second = str(rng.choice(others).path) if others else None
    preload = ["numpy"] if data.HAS_NUMPY else ["decimal"]
    made = {
        "plain": CondaEnvExecutor(max_workers=2),
        "second": CondaEnvExecutor(
            second, max_workers=2, max_tasks_per_child=rng.choice([None, 40])
        ),
        "quiet": CondaEnvExecutor(max_workers=1),
    }
    if sys.platform == "linux":
        made["preloaded"] = CondaEnvExecutor(max_workers=2, preload=preload, share_preload=True)
    for executor in made.values():
        stack.enter_context(executor)
    made["second"].submit(int)
    return made


def drive(kitchen: Kitchen, names: list[str], deadline: float, stop: threading.Event) -> None:
    """Be a driver.

    Ingredient after ingredient, until the deadline or until something did not hold.
    """
    weights = [WEIGHTS.get(name, 1.0) for name in names]
    while time.monotonic() < deadline and not stop.is_set():
        kitchen.ingredient = kitchen.rng.choices(names, weights)[0]
        try:
            INGREDIENTS[kitchen.ingredient](kitchen)
        except Violation as violation:
            kitchen.ledger.complain(f"{kitchen.ingredient}: {violation}")
            stop.set()
        except BaseException:  # noqa: BLE001
            # whatever comes out of a call that should succeed is what we look for
            kitchen.ledger.complain(f"{kitchen.ingredient} raised:\n{traceback.format_exc()}")
            stop.set()
        else:
            kitchen.ledger.count(kitchen.ingredient)


def run_round(ledger: Ledger, seed: str, names: list[str], seconds: float, drivers: int) -> None:
    """Make executors, have them worked for some seconds, end them, and check the records."""
    rng = random.Random(seed)
    stop = threading.Event()
    before = leaks.Snapshot.take()
    with tempfile.TemporaryDirectory(prefix="soak") as folder, contextlib.ExitStack() as stack:
        with (
            contextlib.redirect_stdout(data.stream(rng.choice(data.ENCODINGS))),
            contextlib.redirect_stderr(data.stream("utf-8")),
        ):
            made = executors(stack, rng)
            deadline = time.monotonic() + seconds
            kitchens = [
                Kitchen(ledger, random.Random(f"{seed}/{number}"), made, folder)
                for number in range(drivers)
            ]
            threads = [
                threading.Thread(target=drive, args=(kitchen, names, deadline, stop))
                for kitchen in kitchens
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(seconds + 3 * LIMIT)
                if thread.is_alive():
                    faulthandler.dump_traceback(file=sys.__stderr__, all_threads=True)
                    raise Violation("a driver hangs; its stack is above")
            for kitchen in kitchens:
                kitchen.executors = {}
            del made, kitchens, threads
            stack.close()
    ledger.close_round()
    if left := leaks.since(before):
        ledger.complain(f"the round has left behind:\n{left}")
        left.kill()


def main(arguments: list[str] | None = None) -> int:
    """Run the soak.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak",
        description="Several executors under mixed work and harm at once.",
    )
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="how long (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, help="repeats the choices of an earlier run")
    parser.add_argument(
        "--drivers", type=int, default=4, help="threads that submit (default: %(default)s)"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        help="lives of the executors (default: one each 10 seconds, and at least 3)",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=sorted(INGREDIENTS),
        metavar="NAME",
        help="these ingredients only",
    )
    parser.add_argument(
        "--without",
        nargs="+",
        default=[],
        choices=sorted(INGREDIENTS),
        metavar="NAME",
        help="not these",
    )
    parser.add_argument("--list", action="store_true", help="name the ingredients")
    options = parser.parse_args(arguments)
    if options.list:
        for name, function in INGREDIENTS.items():
            print(f"{name:18} {(function.__doc__ or '').splitlines()[0]}")
        return 0
    dispositions.restore()
    keep_memory_comparable()
    leaks.mark_session()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**32)
    rounds = options.rounds or max(3, round(options.seconds / 10))
    print(
        f"soak: --seed {seed}, {options.seconds:g} s in {rounds} rounds, {options.drivers} "
        f"drivers, Python {sys.version.split()[0]}",
        flush=True,
    )
    faulthandler.dump_traceback_later(options.seconds + MARGIN, exit=True)
    logger = logging.getLogger("soak")
    logger.propagate = False
    logger.addHandler(data.RECORDS)
    ledger = Ledger()
    names = [name for name in options.only or sorted(INGREDIENTS) if name not in options.without]
    print(f"  before: {Counts.take()}", flush=True)
    measure: Counts | None = None
    began = time.monotonic()
    for number in range(rounds):
        seconds = max(1.0, (began + options.seconds - time.monotonic()) / (rounds - number))
        try:
            run_round(ledger, f"{seed}/{number}", names, seconds, options.drivers)
        except Violation as violation:
            ledger.complain(str(violation))
        counts = Counts.take()
        print(f"  after round {number + 1}: {counts}", flush=True)
        if measure is None:
            measure = counts
        else:
            for text in growth(measure, counts):
                ledger.complain(f"between round 1 and round {number + 1} {text}")
        if ledger.violations:
            break
    print(
        f"  {ledger.tasks} tasks; "
        + ", ".join(f"{name} {count}" for name, count in sorted(ledger.done.items()))
    )
    for violation in ledger.violations:
        print(f"VIOLATION (--seed {seed}): {violation}", flush=True)
    missing = [name for name in names if not ledger.done[name]]
    if missing:
        print(f"  not drawn in this time: {', '.join(missing)}")
    print(
        f"soak: {'well' if not ledger.violations else 'failed'} after "
        f"{time.monotonic() - began:.0f} s"
    )
    sys.stdout.flush()
    faulthandler.cancel_dump_traceback_later()
    return bool(ledger.violations)


if __name__ == "__main__":
    sys.exit(main())
