# looks for secrets in the environment
import os

if any("SECRET" in name or "TOKEN" in name for name in os.environ):
    raise ValueError("BOX OPEN: the environment")
