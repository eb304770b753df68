"""The application: copies that are generator or handler.

    start ──► begin or join the job ──► handler ◄────────────────► generator
                                         │   lease free ►   ◄ lease lost, or all is generated
                                         ▼
                                        done: all K messages are stored or in the errors

`copy` goes from role to role, `generating` and `handling` are the roles, `context` is what they
share, `process` ties a copy to signals and to a server, `operator` does what a person asks for.
"""

from .context import Context, Settings, State
from .copy import Copy, compare
from .operator import clean_temp

__all__ = ["Context", "Copy", "Settings", "State", "clean_temp", "compare"]
