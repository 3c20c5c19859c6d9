# prints without a line's end
import os

for _ in range(2000):
    os.write(1, b"x" * 1_000_000)
