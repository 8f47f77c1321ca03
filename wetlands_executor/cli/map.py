"""``wetlands-executor map``: one function, many items."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, cast

from wetlands_executor.cli.errors import CommandError
from wetlands_executor.cli.mapping.halt import halt_of
from wetlands_executor.cli.values import json_object, seconds, whole_number
from wetlands_executor.cli.words import ENV_AND_TARGET_HELP, parse_words
from wetlands_executor.cli.worker_options import add_worker_options

if TYPE_CHECKING:
    from queue import SimpleQueue

    from wetlands_executor import CondaEnvExecutor
    from wetlands_executor.cli.mapping.items import Item, Reading
    from wetlands_executor.cli.mapping.joblog import Finished, JobLog
    from wetlands_executor.cli.mapping.loop import Loop, Rules
    from wetlands_executor.cli.mapping.output import Output
    from wetlands_executor.cli.mapping.show import Screen
    from wetlands_executor.cli.target import Target

HELP = "call a function with each of many items, in parallel, with a log and resume"
DESCRIPTION = (
    "Calls a function with each item, in as many workers as there are processors, and prints\n"
    "one line of JSON for each as it is done. Items are texts (file names, for example), read as\n"
    "they are needed. What the function prints goes to standard error."
)
USAGE = "wetlands-executor map [OPTIONS] [ENV] TARGET (ITEM ... | --from FILE | -)"
EPILOG = """\
examples:
  wetlands-executor map cellpose segment.py:segment 'scans/**/*.tif' > results.jsonl
  find scans -name '*.tif' -print0 | wetlands-executor map segment.py:segment -0 -
  wetlands-executor map segment.py:segment --from list.txt --joblog run.log --results out.jsonl
  wetlands-executor map segment.py:segment --from list.txt --joblog run.log --results out.jsonl \\
      --resume                                    # goes on after Ctrl-C, a crash or kill -9
  wetlands-executor map stats fit.py:fit --csv --header --from table.csv --retries 2 --timeout 60
  wetlands-executor map cellpose segment.py:segment -j 2 \\
      --env-var 'CUDA_VISIBLE_DEVICES={slot}' --initializer segment.py:load scans/*.tif

exit codes: 0 all items are done, 1 to 100 so many have failed, 101 more have, 130 interrupted,
141 the reader of the output went away, 255 wrong arguments or no worker could be started"""
#: As in GNU parallel, whose codes below count failures.
USAGE_CODE: Final = 255


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "words",
        nargs="*",
        metavar="[ENV] TARGET [ITEM ...]",
        help=f"{ENV_AND_TARGET_HELP}. ITEM: a text, a pattern of file names in quotes, or - for "
        f"the lines of standard input. After -- every word is an item",
    )
    _add_input(parser)
    _add_running(parser)
    _add_output(parser)


def _add_input(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("items")
    group.add_argument(
        "--from",
        dest="files",
        action="append",
        default=[],
        metavar="FILE",
        help="a file with one item on each line; - for standard input",
    )
    group.add_argument(
        "-0", "--null", action="store_true", help="items end with NUL, as find -print0 writes them"
    )
    form = group.add_mutually_exclusive_group()
    form.add_argument(
        "-C", "--colsep", metavar="REGEXP", help="what separates the arguments of an item"
    )
    form.add_argument("--csv", action="store_true", help="items are rows of CSV, one argument each")
    form.add_argument(
        "--json",
        action="store_true",
        help="items are JSON: a list holds arguments, an object keyword arguments",
    )
    group.add_argument(
        "--header",
        action="store_true",
        help="the first row names the arguments (with --csv or --colsep)",
    )
    group.add_argument(
        "--kwargs", type=json_object, metavar="JSON", help="keyword arguments of every call"
    )
    group.add_argument(
        "--shuf", action="store_true", help="in random order, for which all are read first"
    )


def _add_running(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("running")
    group.add_argument(
        "-j",
        "--jobs",
        type=whole_number(1),
        metavar="N",
        help="number of workers (default: the number of processors)",
    )
    group.add_argument(
        "--timeout", type=seconds, metavar="S", help="seconds that one call may take"
    )
    group.add_argument(
        "--retries",
        type=whole_number(0),
        default=0,
        metavar="N",
        help="how often a call that failed is made again (default: %(default)s)",
    )
    group.add_argument(
        "--halt",
        type=halt_of,
        metavar="WHEN",
        help="never (the default); soon,fail=N or soon,fail=N%%: after so many failures begin no "
        "more; now,fail=N: kill what runs, too. A percentage counts from three failures on",
    )
    group.add_argument(
        "--env-var",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a variable of each worker; {slot} in it is the worker's number from 0, {%%} that "
        "from 1; may be given several times",
    )
    add_worker_options(group)
    group.add_argument(
        "--share-preload",
        action="store_true",
        help="import the preload once and fork the workers (Linux)",
    )
    group.add_argument(
        "--dry-run", action="store_true", help="print what would be called, and start nothing"
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument(
        "-k", "--keep-order", action="store_true", help="print results in the order of the items"
    )
    group.add_argument(
        "--results", metavar="FILE", help="write the lines of JSON to a file instead"
    )
    group.add_argument(
        "--joblog",
        metavar="FILE",
        help="a line for each item that is done, in the columns of GNU parallel",
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help="leave out the items that are in the joblog, and go on with it",
    )
    group.add_argument(
        "--resume-failed",
        action="store_true",
        help="the same, but run those that have failed once more",
    )
    group.add_argument(
        "--errors",
        metavar="FILE",
        help="where the full texts of failures go (default: JOBLOG.errors, else a temporary file)",
    )
    group.add_argument(
        "--quiet", action="store_true", help="show no progress and no summary, only failures"
    )


def parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments; options may stand between the items."""
    found = parse_words(parser, argv)
    if (found.resume or found.resume_failed) and found.joblog is None:
        parser.error("--resume needs the --joblog of the run that is to go on")
    if found.header and not (found.csv or found.colsep):
        parser.error("--header needs --csv or --colsep")
    if found.null and found.csv:
        parser.error("--null and --csv exclude each other: rows of CSV end with lines")
    return found


def run(arguments: argparse.Namespace) -> int:
    """Call the function with all items; return the exit code."""
    try:
        return _run(arguments)
    except CommandError as error:
        raise CommandError(str(error), USAGE_CODE) from error
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CommandError(f"cannot go on: {error}", USAGE_CODE) from error


def _run(arguments: argparse.Namespace) -> int:
    from wetlands_executor.cli.mapping.joblog import JobLog
    from wetlands_executor.cli.target import take_target

    env, target, words = take_target(arguments.words)
    reading = _reading(arguments, words)
    reading.check()
    _check_files(arguments, target, reading)
    again = arguments.resume or arguments.resume_failed
    if arguments.dry_run:
        return _show(arguments, target, reading)
    joblog = None
    if arguments.joblog is not None:
        joblog = JobLog(arguments.joblog, resume=again, failed_again=arguments.resume_failed)
    out, sys.stdout = sys.stdout, sys.stderr  # what functions print is no result
    try:
        return _map(arguments, env, target, reading, joblog, out.fileno())
    finally:
        sys.stdout = out
        if joblog is not None:
            joblog.close()


def _check_files(arguments: argparse.Namespace, target: Target, reading: Reading) -> None:
    import os

    from wetlands_executor.cli import workers
    from wetlands_executor.cli.files import check_files

    written = [
        (option, path)
        for option, path in (
            ("--results", arguments.results),
            ("--joblog", arguments.joblog),
            ("--errors", _errors_file(arguments)),
        )
        if path is not None
    ]
    read = [("--from", path) for path in arguments.files if path != "-"]
    read += workers.files_of(target, arguments.initializer)
    read += [("item", word) for word in reading.words]
    names = {os.path.basename(path) for _, path in written}
    read += [("item", text) for text in reading.listed(names)]
    check_files(read, written)


def _errors_file(arguments: argparse.Namespace) -> str | None:
    """Return where the full texts of failures go; None is a temporary file."""
    import os

    joblog = arguments.joblog
    if arguments.errors is not None or joblog is None:
        return cast("str | None", arguments.errors)
    # nothing stands beside a device or a pipe
    return f"{joblog}.errors" if os.path.isfile(joblog) or not os.path.exists(joblog) else None


def _reading(arguments: argparse.Namespace, words: Sequence[str]) -> Reading:
    import re

    from wetlands_executor.cli.mapping.items import Reading, expanded

    if not words and not arguments.files:
        raise CommandError(
            "which items? Give them, or --from FILE, or - for the lines of standard input"
        )
    if arguments.colsep is not None:
        try:
            re.compile(arguments.colsep)
        except re.error as error:
            raise CommandError(
                f"--colsep {arguments.colsep!r} is no regular expression: {error}"
            ) from error
    return Reading(
        words=words if arguments.json else expanded(words),
        files=arguments.files,
        null=arguments.null,
        colsep=arguments.colsep,
        csv=arguments.csv,
        header=arguments.header,
        json=arguments.json,
        shuffle=arguments.shuf,
        kwargs=arguments.kwargs or {},
    )


def _show(arguments: argparse.Namespace, target: Target, reading: Reading) -> int:
    """Print what would be called; what is finished is left out if a run would be resumed."""
    import os

    from wetlands_executor.cli.mapping.joblog import JobLog
    from wetlands_executor.cli.mapping.loop import Rules

    rules = Rules(target.text, 1)
    finished = None
    if (arguments.resume or arguments.resume_failed) and os.path.exists(arguments.joblog):
        log = JobLog(arguments.joblog, resume=True, failed_again=arguments.resume_failed)
        finished = log.finished
        log.close()
    for item in reading.items():
        command = rules.command(item)
        if finished is None or not finished.take(command):
            sys.stdout.buffer.write(command.encode("utf-8", "surrogateescape") + b"\n")
    return 0


def _map(
    arguments: argparse.Namespace,
    env: str,
    target: Target,
    reading: Reading,
    joblog: JobLog | None,
    descriptor: int,
) -> int:
    """Open what a run needs, run it, and say how it went."""
    import os
    from functools import partial

    from wetlands_executor.cli import workers
    from wetlands_executor.cli.environment import creation_lines
    from wetlands_executor.cli.mapping.joblog import write_all
    from wetlands_executor.cli.mapping.output import FailureTexts, Output, results_file
    from wetlands_executor.cli.mapping.show import Screen

    again = arguments.resume or arguments.resume_failed
    count = reading.count()
    rules = _rules(arguments, target, count)
    if arguments.results is not None:
        logged = joblog.finished.seqs if joblog is not None and again else None
        descriptor = results_file(arguments.results, logged)
    texts = FailureTexts(_errors_file(arguments), append=again)
    options = {
        "max_workers": rules.jobs,
        "worker_env": workers.variables_of(arguments.env_var),
        "share_preload": arguments.share_preload,
    }
    try:
        with (
            Screen(count, texts, quiet=arguments.quiet) as screen,
            workers.open_executor(env, target, arguments, **options) as executor,
        ):
            workers.start(executor, creation_lines(screen.tell), USAGE_CODE)
            screen.attach(executor)
            write: Callable[[bytes], object] = partial(write_all, descriptor)
            if not arguments.quiet and os.isatty(descriptor) and os.isatty(2):
                write = screen.results  # one terminal: between the bars they would be overwritten
            output = Output(write, joblog, screen, keep_order=arguments.keep_order)
            finished = joblog.finished if joblog is not None and again else None
            return _run_loop(executor, rules, reading, finished, output, screen)
    finally:
        texts.close()


def _rules(arguments: argparse.Namespace, target: Target, count: int | None) -> Rules:
    """Return how items are called; there are no more workers than items."""
    import os

    from wetlands_executor.cli.mapping.loop import Rules

    jobs = arguments.jobs or os.cpu_count() or 1
    return Rules(
        target.text,
        jobs if count is None else max(1, min(jobs, count)),
        timeout=arguments.timeout,
        retries=arguments.retries,
        halt=arguments.halt,
        keep_order=arguments.keep_order,
    )


def _run_loop(
    executor: CondaEnvExecutor,
    rules: Rules,
    reading: Reading,
    finished: Finished | None,
    output: Output,
    screen: Screen,
) -> int:
    """Call all items that have not finished; return the exit code."""
    from queue import SimpleQueue

    from wetlands_executor.cli.mapping.loop import Loop
    from wetlands_executor.cli.mapping.reader import Reader

    def is_wanted(item: Item) -> bool:
        return finished is None or not finished.take(rules.command(item))

    inbox: SimpleQueue[Any] = SimpleQueue()
    reader = Reader(reading, inbox, is_wanted)
    loop = Loop(executor, rules, reader, output, inbox, screen.tell)
    with _signals_into(inbox, output):
        loop.run()
    screen.summarize(loop, output, reader.skipped)
    return _code_of(loop, output)


def _code_of(loop: Loop, output: Output) -> int:
    """Return the exit code of a run.

    Raises:
        CommandError: it could not go on.
    """
    from wetlands_executor.cli import workers

    if loop.fatal is not None:
        if isinstance(loop.fatal, CommandError):
            raise loop.fatal
        raise CommandError(workers.start_failure(loop.fatal)) from loop.fatal
    if loop.interrupted:
        raise KeyboardInterrupt
    return min(output.failed, 101)


@contextmanager
def _signals_into(inbox: SimpleQueue[Any], output: Output) -> Iterator[None]:
    """Let SIGINT and SIGTERM be events of the inbox meanwhile."""
    from wetlands_executor.cli.mapping.loop import Signalled

    count = 0

    def note(*_: object) -> None:
        nonlocal count
        count += 1
        # a stalled reader of the results may keep the main thread in a write for ever
        if count > 2 or (count == 2 and output.is_writing):
            raise KeyboardInterrupt
        inbox.put(Signalled(count))

    # one that is ignored, by nohup for example, stays so
    caught = [
        number
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) is not signal.SIG_IGN
    ]
    before = [(number, signal.signal(number, note)) for number in caught]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
