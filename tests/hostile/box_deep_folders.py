# leaves folders in folders behind
import os

try:
    for _ in range(1600):
        os.mkdir("d" * 20)
        os.chdir("d" * 20)
except OSError:
    pass
