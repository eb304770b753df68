"""Start one copy of the application: `python app_start.py -h` says what it can do."""

from distlock.cli import main

if __name__ == "__main__":
    main()
