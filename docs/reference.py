"""Make the API reference of the docstrings, in build/reference: `python docs/reference.py`.

It needs pdoc (`pip install -e '.[docs]'`). What is made is not committed.
"""

from __future__ import annotations

from pathlib import Path

import distlock

FOLDER = Path(__file__).parents[1] / "build" / "reference"


def load() -> None:
    """Have every public name stand in the package: some are imported only when asked for."""
    for name in distlock.__all__:
        setattr(distlock, name, getattr(distlock, name))


if __name__ == "__main__":
    import pdoc

    load()
    pdoc.render.configure(docformat="google")
    pdoc.pdoc("distlock", r"!distlock\..*", output_directory=FOLDER)
    print(FOLDER / "distlock.html")
