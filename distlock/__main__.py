"""`python -m distlock` is the program."""

from .cli import main

main()
