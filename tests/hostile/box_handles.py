# reads what others have open
import os

for process in (os.getppid(), 1):
    try:
        for handle in os.listdir(f"/proc/{process}/fd"):
            os.open(f"/proc/{process}/fd/{handle}", os.O_RDWR)
            raise ValueError("BOX OPEN: another's handles")
    except OSError:
        pass
