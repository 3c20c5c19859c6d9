# takes hold of the process above it
import ctypes
import os

if ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0:
    raise ValueError("BOX OPEN: ptrace")
