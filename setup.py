"""The settings are in pyproject.toml. This adds what the package reads at run time and the checkout keeps at its top
level: a wheel has it in `merhan/resources` (see `merhan/files.py`)."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithResources(build_py):
    """`build_py`, and a copy of `configs/` and `hub_card/` in `merhan/resources`."""

    def run(self):
        super().run()
        if not self.editable_mode:
            for name in ("configs", "hub_card"):
                target = Path(self.build_lib, "merhan", "resources", name)
                shutil.copytree(name, target, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithResources})
