"""Work on many files in several processes."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from tqdm import tqdm

Job, Result = TypeVar("Job"), TypeVar("Result")


def parallel(
    function: Callable[[Job], Result], jobs: Sequence[Job], description: str, unit: str, workers: int | None = None
) -> Iterator[Result]:
    """Yield ``function(job)`` in the order of the jobs, with a progress bar; only some hundred are ever under way.

    Raises:
        ValueError: a worker process was ended from outside.
    """
    workers = workers or os.cpu_count() or 1
    with tqdm(total=len(jobs), desc=description, unit=unit) as bar:
        if workers == 1:
            for job in jobs:
                yield function(job)
                bar.update()
            return
        with ProcessPoolExecutor(workers, initializer=_leave_interrupts_to_the_parent) as executor:
            try:
                for start in range(0, len(jobs), 64 * workers):
                    for result in executor.map(function, jobs[start : start + 64 * workers]):
                        yield result
                        bar.update()
            except BrokenProcessPool:
                raise ValueError(
                    f"{description}: a worker process was ended from outside, perhaps for want of memory; use fewer "
                    "(--workers)."
                ) from None


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
