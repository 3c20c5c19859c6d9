# waits for better times
import time

time.sleep(3600)
