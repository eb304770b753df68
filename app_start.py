"""Start one copy of the application: `python app_start.py -h` says what it can do.

This file is read by Pythons that are too old for all others, so that they can say so.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036
    sys.exit(
        "app_start.py: this is Python %d.%d, and 3.11 or later is needed: name another one, such "  # noqa: UP031
        "as python3.11 app_start.py" % sys.version_info[:2]
    )

from distlock.__main__ import start

if __name__ == "__main__":
    start()
