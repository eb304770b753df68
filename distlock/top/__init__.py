"""`distlock top`: a pipeline as it is now, drawn again and again.

`history` makes rates and events of one look (see `distlock/look.py`) after another, `frame` draws
them as text of any size, and `screen` shows that until it is told to end.
"""

from .history import History
from .screen import Top

__all__ = ["History", "Top"]
