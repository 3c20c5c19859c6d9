"""The build: pyproject.toml says everything, but how the wheel gets the course's files."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "src"))

from learn_gpt2.course import layout  # noqa: E402 - which files these are, it knows

PACKED = Path("learn_gpt2") / layout.CARRIED


class BuildPy(build_py):
    """Puts problems/, solutions/ and the like into the package `learn_gpt2`, as `course_files/`."""

    def run(self) -> None:
        """Copy them again, so that nothing stays of an earlier build."""
        super().run()
        if self.editable_mode:  # a checkout has them beside src/
            return
        shutil.rmtree(Path(self.build_lib, PACKED), ignore_errors=True)
        for target, source in self._course().items():
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)

    def _course(self) -> dict[str, str]:
        """Where each file goes → where it is."""
        found = {}
        for path in layout.outside(ROOT):
            name = path.relative_to(ROOT)
            found[str(Path(self.build_lib, PACKED, name))] = str(name)
        return found

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """The files built."""
        return [*super().get_outputs(include_bytecode), *self._course()]

    def get_output_mapping(self) -> dict[str, str]:
        """The files built → their sources."""
        return {**super().get_output_mapping(), **self._course()}

    def get_source_files(self) -> list[str]:
        """What a source distribution holds."""
        return [*super().get_source_files(), *self._course().values()]


setup(cmdclass={"build_py": BuildPy})
