# leaves folders behind that nobody may open
import os

os.makedirs("a/b/c", exist_ok=True)
os.chmod("a/b", 0)
os.chmod("a", 0)
