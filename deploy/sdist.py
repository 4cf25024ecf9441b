"""A checkout -> its source distribution: all of the source, and not what is installed alone. `setup.cfg` names it.

By itself setuptools takes what the wheel is made of. The README there leads to the handbook, the fault matrix and the
bench, and its second command needs the tests.
"""

from setuptools.command.sdist import sdist

FOLDERS = ("proxy", "translators", "config", "tests", "deploy", ".ci")
FILES = (".dockerignore", ".gitignore")


class Sdist(sdist):
    """The command of setuptools, with what stands in and beside the packages and is not installed."""

    def make_distribution(self) -> None:
        """Add it before the archive is written."""
        for folder in FOLDERS:
            self.filelist.graft(folder)
        self.filelist.extend(FILES)
        self.filelist.global_exclude("*.py[cod]")
        super().make_distribution()
