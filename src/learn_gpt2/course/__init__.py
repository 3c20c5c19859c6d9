"""A learner's folder: making, updating, backups, progress, doctor."""
