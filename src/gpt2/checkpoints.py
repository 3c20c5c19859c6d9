"""Checkpoints in Hugging Face's layout: files in, tensors out (and back)."""

from contextlib import contextmanager


def open_checkpoint(model_name, **options):
    raise NotImplementedError


@contextmanager
def skip_init():
    yield
