"""distlock: a fenced lease and an exactly-once pipeline on Redis or Valkey.

`python app_start.py` (or `distlock`) is the application; `distlock.Message` is what a handler's
function receives.
"""

from .message import Message

__version__ = "0.1.0"
__all__ = ["Message", "__version__"]
