"""Fixtures for all tests."""

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# child processes of tests find the packages of this checkout, whatever is installed
os.environ["PYTHONPATH"] = str(ROOT / "src")
os.environ.setdefault("PYTHONIOENCODING", "utf-8")
# texts for tests lie beside the project on some machines; nothing needs them
if (beside := ROOT.parent / "shared" / "data").is_dir():
    os.environ.setdefault("GPT2_DATA", str(beside))


@pytest.fixture(scope="session")
def root() -> Path:
    """The course's root."""
    return ROOT


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """A copy of the course that a test may write to, every skeleton untouched.

    Without the bundled model: link or copy `src/gpt2/bundled` where a test needs it.
    """
    copy = tmp_path / "course"
    copy.mkdir()
    skip = shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info", "bundled", "*.svg")
    for name in ("src", "problems", "solutions"):
        shutil.copytree(ROOT / name, copy / name, ignore=skip)
    for name in ("pyproject.toml", "conftest.py"):
        shutil.copy(ROOT / name, copy / name)
    return copy
