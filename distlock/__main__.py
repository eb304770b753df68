"""`python -m distlock` is the program. What is missing to start it is said in one line."""

import sys


def start() -> None:
    """Run the program."""
    try:
        from .cli import main
    except ModuleNotFoundError as error:
        from .errors import not_installed

        sys.exit("distlock: " + not_installed(error))
    main()


if __name__ == "__main__":
    start()
