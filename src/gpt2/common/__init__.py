"""Small things that all wings use: bounded JSON, locks, files of others."""
