# keeps memory in the system's shared segments
import ctypes

if ctypes.CDLL(None).shmget(0, 1 << 20, 0o1600) >= 0:
    raise ValueError("BOX OPEN: shmget")
