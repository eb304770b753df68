"""distlock: a fenced lease and an exactly-once pipeline on Redis or Valkey.

`python app_start.py` (or `distlock`) is the application; `distlock.Message` is what a handler's
function receives.
"""

__version__ = "0.1.0"
