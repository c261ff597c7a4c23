"""Tags the wheel: no extension module for one Python, but libraries for both systems on x86-64."""

from __future__ import annotations

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel


class Binary(Distribution):
    """A distribution that is not pure Python, though setuptools builds none of its libraries."""

    def has_ext_modules(self) -> bool:
        return True


class Wheel(bdist_wheel):
    """A wheel for any Python 3 on x86-64 Linux and Windows."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", "manylinux_2_17_x86_64.win_amd64"


setup(distclass=Binary, cmdclass={"bdist_wheel": Wheel})
