"""What the tests of maps call. Imported by workers."""

import logging
import os
import time


def square(value):
    return value * value


def same(value):
    return value


def mixed(value):
    kind = value % 7
    if kind == 0:
        return None
    if kind == 1:
        return "x" * value
    if kind == 2:
        return {"value": [value]}
    if kind == 3 and value % 5 == 0:
        return b"y" * 200000
    if kind == 4:
        return complex(value)
    return value


def mark_or_die(value, mark, crashing):
    with open(mark, "a", encoding="ascii") as file:
        file.write("x")
    if value == crashing:
        os._exit(3)
    return value


def mark_and_spin(value, mark):
    with open(mark, "a", encoding="ascii") as file:
        file.write("x")
    end = time.perf_counter() + 0.0002
    while time.perf_counter() < end:
        pass
    return value


def fail_at(value, failing):
    if value == failing:
        raise ValueError(str(value))
    return value


def note_and_wait(path, seconds):
    from wetlands_executor import current_task

    with open(path, "a", encoding="ascii") as file:
        file.write("x")
    end = time.monotonic() + seconds
    while time.monotonic() < end and not current_task().cancel_requested:
        time.sleep(0.001)


def cancel_at(value, cancelled):
    from wetlands_executor import current_task

    if value == cancelled:
        current_task().cancel()
    return value


def print_and_return(value):
    print("value", value)
    return value


def log_value(value):
    logging.getLogger("tests.parts").info("value %d", value)


def fork_and_return(value):
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
    return value


def close_stdout_at(value, closing):
    if value == closing:
        os.close(1)
    else:
        print("value", value)
    return value


def pause(seconds):
    time.sleep(seconds)
