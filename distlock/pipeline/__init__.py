"""The pipeline: one elected generator, any number of handlers, every message stored exactly once.

A message goes queue → temp → store, or → errors. Who moves it:

- `generator` publishes to the queue, under the lease;
- `handler` claims a hand from the queue into its temp and settles it: stored, failed, given back;
- `job` keeps the record of what is to be done;
- `records` reads the numbers and the errors, `verify` proves that nothing is lost or stored twice.

Each move is one script in `distlock/lua`; the files here say when it is sent and what its answer
means.
"""

from ..message import Message
from .generator import Generator, Publish, Published
from .handler import Hand, Handler, Outcome, Rest
from .job import Job, Jobs
from .records import ErrorRecord, InHand, Records, Status
from .report import report, text_of
from .verify import Verdict, Verifier

__all__ = [
    "ErrorRecord",
    "Generator",
    "Hand",
    "Handler",
    "InHand",
    "Job",
    "Jobs",
    "Message",
    "Outcome",
    "Publish",
    "Published",
    "Records",
    "Rest",
    "Status",
    "Verdict",
    "Verifier",
    "report",
    "text_of",
]
