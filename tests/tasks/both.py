"""Which tests of tasks run over ``InProcessExecutor`` too.

The rest of their files is about what only processes have (their death, signals, pids, what cannot
be pickled, SIGINT of a terminal), or about sleeping in C, where no thread can be interrupted;
``docs/in-process.md`` has the table of the differences.
"""

from __future__ import annotations

#: By file, parts of the names of the tests that are about processes.
ONLY_PROCESSES = {
    "test_async": (),
    "test_cancel": (
        "inbox", "children", "sigint", "kill_ends", "kill_leaves", "ctrl_c", "system_exit",
        "late_interrupt", "grace_interrupts", "returns_at_the_interrupt", "escalate_twice",
        "does_not_hit_the_next", "races_with_the_end_and", "is_not_retried", "goes_on_after",
        "option_comes_before",
    ),
    "test_dependencies": (
        "script", "pickling", "unpickled", "nested", "foreign_kind", "kill_workers", "gone",
        "dropped_executor", "objects_in_the_chain", "killing_the_dependant",
    ),
    "test_ends": (
        "after_the_timeout", "does_not_look", "says_why_it_killed", "all_workers", "killed_task",
        "raises_why", "signal", "second_cancellation", "interrupts_what",
    ),
    "test_events": ("delays_no_other", "took_it", "hosts", "flood", "was_running_already"),
    "test_floods": (),
    "test_logging": (
        "under_its_own", "attributed", "cannot_be_pickled", "of_a_thread", "every_version",
        "initializer_may", "handler_that_raises", "half_a_line", "crash",
    ),
    "test_options": (
        "keeps_the_pool_alive", "script", "map_applies", "timeout_of_a_call", "take_an_option",
    ),
    "test_overview": (
        "crashes", "before_pickling", "get_failed_and_clear", "made_last", "the_error_callback",
        "workers", "queue_depth", "processors", "memory",
    ),
    "test_priorities": ("background",),
    "test_task": (
        "kill_workers", "interrupted_by_nothing", "names_are_derived", "unstarted_task_keeps",
    ),
}  # fmt: skip
#: Files of which only these tests run over both.
ONLY_THESE = {
    "test_handle": (
        "many_calls_deep", "by_value", "update_keeps", "zero_and", "set_progress", "both_forms",
        "before_the_task_has_ended", "all_outputs_are_there", "should_stop", "inputs_id",
        "do_not_name", "name_in_the_worker", "of_a_method", "no_numbers", "last_report",
        "never_mixed", "inherits_nothing", "becomes_one",
    ),
    "test_injection": ("what_the_caller", "missing_other", "lambdas_and"),
    "test_limits": ("lifted_and_replaced", "has_to_be_positive", "cancelled_is_forgotten"),
    "test_owners": ("next_attempt",),
    "test_retries": (
        "not_tried_again_by_default", "test_retry_on[", "something_else", "logged_and_means_no",
        "counts_once", "id_stays", "same_id",
    ),
}  # fmt: skip
#: What gives a test its executor.
FIXTURES = {"make", "single", "executor"}


def runs_in_process(file: str, name: str) -> bool:
    """Return True if a test of a file runs over both kinds."""
    if file in ONLY_THESE:
        return any(part in name + "[" for part in ONLY_THESE[file])
    return file in ONLY_PROCESSES and not any(part in name for part in ONLY_PROCESSES[file])
