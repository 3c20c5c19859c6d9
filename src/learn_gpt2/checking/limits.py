"""A time limit on code that we did not write: the learner's file may loop forever."""

from __future__ import annotations

import ctypes
import signal
import sys
import threading
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE = 3
BUSY = 0.6  # of the time allowed: whoever used that much of the processor has had its chance


class TimeLimit(BaseException):
    """Raised inside code that ran too long; no Exception, so `except Exception` can't eat it."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeLimit inside the block once it has run for `seconds`, and again until it gives in.

    In the main thread of a system with interval timers a signal does it, which also interrupts
    sleeping and waiting. Code that had little of the processor in that time gets up to PATIENCE
    times as long. Elsewhere a second thread asks the interpreter to raise it at the next
    Python instruction. A single call into compiled code is waited for in both cases. Whoever stands
    in a debugger may take as long as they like: then there is no limit for the rest of the block.
    """
    if hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread():
        with _by_signal(seconds):
            yield
    else:
        with _by_thread(seconds):
            yield


@contextmanager
def _by_signal(seconds: float) -> Iterator[None]:
    started, used = time.monotonic(), time.process_time()

    def raise_it(signum, frame):
        if in_debugger(frame):
            signal.setitimer(signal.ITIMER_REAL, 0)
            return
        # on a machine that is busy with other things, code that does not loop takes longer, too
        waited = time.monotonic() - started
        if waited < PATIENCE * seconds and time.process_time() - used < BUSY * seconds:
            return
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
            if in_debugger(sys._current_frames().get(target)):
                return
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


def in_debugger(frame: types.FrameType | None) -> bool:
    """Whether a debugger stands in this frame or above it, or traces one of them."""
    monitoring = getattr(sys, "monitoring", None)  # how debuggers watch since Python 3.12
    if monitoring is not None and monitoring.get_tool(monitoring.DEBUGGER_ID):
        return True
    while frame is not None:
        if frame.f_trace is not None or frame.f_globals.get("__name__") in ("bdb", "pdb"):
            return True
        frame = frame.f_back
    return False


def describe_platform() -> str:
    """How limits are kept here, for `learn doctor`."""
    kept = "signals" if hasattr(signal, "setitimer") else "a watcher thread"
    return f"time limits by {kept} ({sys.platform})"
