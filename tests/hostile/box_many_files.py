# makes files until somebody stops it
import os

try:
    for i in range(200_000):
        os.close(os.open(f"f{i}", os.O_CREAT | os.O_WRONLY))
except OSError:
    pass
