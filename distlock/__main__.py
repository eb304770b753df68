"""`python -m distlock` is the program. What is missing to start it is said in one line.

This file, and what it imports at first, is read by Pythons that are too old for all others.
"""

import os
import sys


def start() -> None:
    """Run the program."""
    program = os.path.basename(sys.argv[0]).replace("__main__.py", "python -m distlock")
    if sys.version_info < (3, 11):  # noqa: UP036
        this = "%d.%d" % sys.version_info[:2]  # noqa: UP031
        sys.exit(program + ": Python 3.11 or later is needed, and this is " + this)
    try:
        from .cli import main
    except ModuleNotFoundError as error:
        from .errors import not_installed

        sys.exit(program + ": " + not_installed(error))
    main()


if __name__ == "__main__":
    start()
