"""Start one copy of the application: `python app_start.py -h` says what it can do."""

from distlock.__main__ import start

if __name__ == "__main__":
    start()
