"""Progress on the terminal: a bar a stage with the time left; where stderr is no terminal, as in a notebook, a line a stage."""

from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text


class Times(ProgressColumn):
    """Seconds that have passed, and those that are left where that is known."""

    def render(self, task: Task) -> Text:
        left = "" if task.finished or task.time_remaining is None else f", {timedelta(seconds=int(task.time_remaining))} left"
        return Text(f"{timedelta(seconds=int(task.finished_time or task.elapsed or 0))} elapsed{left}")


class Display:
    """A context manager, and the `progress(stage, done, total, note)` that the long jobs call."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bars = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(overflow="fold")), BarColumn(10), MofNCompleteColumn(),
            Times(table_column=Column(no_wrap=True)), TextColumn("{task.fields[note]}", markup=False, table_column=Column(overflow="fold")),
            console=console, disable=not console.is_terminal,
        )  # fmt: skip
        self.stage, self.done, self.note = "", 0, ""
        self.task: TaskID | None = None

    def __enter__(self) -> "Display":
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def __call__(self, stage: str, done: int, total: int, note: str) -> None:
        if self.task is None or stage != self.stage or done < self.done:  # the next stage, or the next round of the same
            self._finish()
            self.task = self.bars.add_task(stage, total=total or None, note=note)
            if not self.console.is_terminal:
                self.console.print(Text(f"{stage}{': ' + note if note else ''}"), soft_wrap=True)
        self.stage, self.done = stage, done
        self.bars.update(self.task, completed=done, total=total or None, note=note)

    def _finish(self) -> None:
        """A stage that stopped early, or did not know how much there was, is full when the next begins."""
        if self.task is not None:
            self.bars.update(self.task, total=self.done, completed=self.done)
