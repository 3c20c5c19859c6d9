"""Grading a class: files are read, run in a box, judged outside of it, and reported on."""
