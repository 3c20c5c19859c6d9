# makes the kernel's more interesting calls
import ctypes

libc = ctypes.CDLL(None, use_errno=True)
for name, number in {"io_uring_setup": 425, "userfaultfd": 323, "bpf": 321, "perf": 298}.items():
    if libc.syscall(number, 0, 0, 0, 0, 0) >= 0 or ctypes.get_errno() != 1:
        raise ValueError(f"BOX OPEN: {name}")
