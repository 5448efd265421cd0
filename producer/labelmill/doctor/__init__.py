"""`labelmill doctor`: what the rest depends on, looked at piece by piece, and the remedy where something is wrong.

`examination.py` calls, in order, `broker.py`, `database.py`, `work.py` (what the database says of the work), `disk.py`
and `fleet.py` (what workers answer: only they may speak to Mistral). Each look has a time-out of its own.
"""

from labelmill.doctor.checks import Check, Status
from labelmill.doctor.examination import examine, exit_code_of

__all__ = ["Check", "Status", "examine", "exit_code_of"]
