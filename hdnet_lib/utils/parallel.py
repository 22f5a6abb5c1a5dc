"""Work on many files, in several processes or threads."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from tqdm import tqdm

Job = TypeVar("Job")
Result = TypeVar("Result")


def parallel(
    function: Callable[[Job], Result], jobs: Sequence[Job], description: str, unit: str, workers: int | None = None
) -> Iterator[Result]:
    """Yield ``function(job)`` in the order of the jobs, with a progress bar; only some hundred are ever under way.

    Raises:
        ValueError: a worker process was ended from outside, or ``workers`` is below 1.
    """
    workers = (os.cpu_count() or 1) if workers is None else workers
    if workers < 1:
        raise ValueError(f"one process is the least, not {workers}.")
    with tqdm(total=len(jobs), desc=description, unit=unit) as bar:
        if workers == 1:
            for job in jobs:
                yield function(job)
                bar.update()
            return
        with ProcessPoolExecutor(workers, _context(), _follow_the_parent) as executor:
            try:
                for start in range(0, len(jobs), 64 * workers):
                    for result in executor.map(function, jobs[start : start + 64 * workers]):
                        yield result
                        bar.update()
            except BrokenProcessPool:
                raise ValueError(
                    f"{description}: a worker process was ended from outside, perhaps for want of memory: use fewer "
                    '(--workers). Or a script called this without `if __name__ == "__main__":`, which workers need.'
                ) from None
            finally:
                executor.shutdown(cancel_futures=True)


def bounded_map(
    executor: Executor, function: Callable[[Job], Result], jobs: Iterable[Job], most: int
) -> Iterator[Result]:
    """``map`` in order, with at most ``most`` jobs under way."""
    waiting = deque()
    for job in jobs:
        waiting.append(executor.submit(function, job))
        if len(waiting) >= most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _context() -> multiprocessing.context.BaseContext:
    """How workers start: not as forks of this process, whose threads may hold a lock that the fork would wait for."""
    if "forkserver" not in multiprocessing.get_all_start_methods():  # on Windows
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hdnet_lib"])  # PyTorch is imported once, not in each worker
    return context


def _follow_the_parent() -> None:
    """Leave interrupts to the parent process, and end when it is gone, however it ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
