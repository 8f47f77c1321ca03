"""A Qt window that shows the progress of a call in another environment, and can cancel it.

``TaskSignals`` is all that Qt needs: a QObject whose signals are fed by ``task.listen``. It knows
QtCore only; the window below it is one way to use it.

Run it with ``python qt_progress.py [environment]``. It needs PySide6-Essentials.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from PySide6.QtCore import QObject, Signal

from wetlands_executor import CondaEnvExecutor, Task, TaskEvent, TaskEventType

#: What runs in a worker.
SLOW = f"{Path(__file__).with_name('slow.py')}:count"


class TaskSignals(QObject):
    """Signals of tasks, emitted in the thread in which this object lives.

    Give ``watch`` any number of tasks. The signals carry the task first.
    """

    started = Signal(object)
    progressed = Signal(object, str, float)  # task, message, 0 to 1 (-1: unknown)
    output = Signal(object, object)  # task, dict of what is new
    finished = Signal(object)  # task; however it ended

    # Callback and event: from the executor's thread to this object's.
    _happened = Signal(object, object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        # A method of a QObject: Qt queues the call to the thread of that object. A plain function
        # would run in the emitting thread.
        self._happened.connect(self._call)

    def watch(self, task: Task[Any]) -> Task[Any]:
        """Emit the signals of this task from now on; return it."""
        return task.listen(self._emit, dispatch=self._happened.emit)

    def _call(self, callback: Any, event: TaskEvent) -> None:
        callback(event)

    def _emit(self, event: TaskEvent) -> None:
        if event.type is TaskEventType.STARTED:
            self.started.emit(event.task)
        elif event.type is TaskEventType.UPDATE:
            fraction = (
                event.current / event.maximum
                if event.current is not None and event.maximum
                else -1.0
            )
            self.progressed.emit(event.task, event.message or "", min(fraction, 1.0))
            if event.outputs:
                self.output.emit(event.task, dict(event.outputs))
        else:
            self.finished.emit(event.task)


def make_window(executor: CondaEnvExecutor, steps: int = 100, pause: float = 0.05) -> Any:
    """Return the window; the caller shows it.

    Widgets are imported here, so that ``TaskSignals`` can be used without them.
    """
    from PySide6.QtWidgets import QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

    class Window(QWidget):
        """A progress bar, a line of text, a button that starts and cancels."""

        def __init__(self) -> None:
            super().__init__()
            self.setWindowTitle("wetlands_executor")
            self.task: Task[int] | None = None
            self.bar = QProgressBar()
            self.bar.setRange(0, 100)
            self.bar.setValue(0)
            self.label = QLabel("ready")
            self.button = QPushButton("Start")
            self.button.clicked.connect(self.on_button)
            layout = QVBoxLayout(self)
            for widget in (self.bar, self.label, self.button):
                layout.addWidget(widget)
            self.signals = TaskSignals(self)
            self.signals.progressed.connect(self.on_progress)
            self.signals.finished.connect(self.on_finished)

        def on_button(self) -> None:
            """Start, or ask to stop. Neither waits for the worker."""
            if self.task is None:
                self.button.setText("Cancel")
                self.task = self.signals.watch(executor.submit(SLOW, steps, pause))
            else:
                self.button.setEnabled(False)
                self.task.cancel()

        def on_progress(self, _task: Task[int], message: str, fraction: float) -> None:
            """Show how far it is."""
            self.label.setText(message)
            self.bar.setValue(round(100 * fraction))

        def on_finished(self, task: Task[int]) -> None:
            """Say how it ended."""
            self.label.setText(task.error or task.status.value)
            self.task = None
            self.button.setText("Start")
            self.button.setEnabled(True)

        def closeEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
            """Let nothing run on when the window is gone."""
            if self.task is not None:
                self.task.remove_listener(self.signals._emit)
                self.task.cancel()
            super().closeEvent(event)

    return Window()


def main(environment: str | None = None) -> int:
    """Show the window until it is closed."""
    from PySide6.QtWidgets import QApplication

    application = QApplication(sys.argv[:1])
    with CondaEnvExecutor(environment, max_workers=1, cancel_grace=5) as executor:
        window = make_window(executor)
        window.show()
        return application.exec()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
