"""A time limit on code that we did not write: the learner's file may loop for ever."""

from __future__ import annotations

import ctypes
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class TimeLimit(BaseException):
    """Raised inside code that ran too long; no Exception, so `except Exception` can't eat it."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeLimit inside the block once it has run for `seconds`, and again until it gives in.

    In the main thread of a system with interval timers a signal does it, which also interrupts
    sleeping and waiting. Elsewhere a second thread asks the interpreter to raise it at the next
    Python instruction. A single call into compiled code is waited for in both cases.
    """
    if hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread():
        with _by_signal(seconds):
            yield
    else:
        with _by_thread(seconds):
            yield


@contextmanager
def _by_signal(seconds: float) -> Iterator[None]:
    def raise_it(signum, frame):
        raise TimeLimit

    before = signal.signal(signal.SIGALRM, raise_it)
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.2)
    try:
        yield
    finally:
        # the timer repeats: one may still arrive between here and the next line
        while True:
            try:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, before)
                break
            except TimeLimit:
                continue


@contextmanager
def _by_thread(seconds: float) -> Iterator[None]:
    target = threading.get_ident()
    done = threading.Event()
    lock = threading.Lock()

    def watch():
        wait = seconds
        while not done.wait(wait):
            with lock:
                if not done.is_set():
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(
                        ctypes.c_ulong(target), ctypes.py_object(TimeLimit)
                    )
            wait = 0.2

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        with lock:
            done.set()
        # take back an exception that was asked for and not raised yet
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(target), None)
        watcher.join(1.0)


def describe_platform() -> str:
    """How limits are kept here, for `learn doctor`."""
    kept = "signals" if hasattr(signal, "setitimer") else "a watcher thread"
    return f"time limits by {kept} ({sys.platform})"
