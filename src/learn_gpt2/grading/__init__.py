"""Grading a class: what was handed in, examining it, and reporting on it."""
