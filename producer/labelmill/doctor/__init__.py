"""`labelmill doctor`: checks of every dependency, with a remedy for every fault.

`examination.py` calls, in order, `broker.py`, `database.py`, `work.py` (what the database says of the work), `disk.py`
and `fleet.py` (what workers answer: only they have access to Mistral). Each group of checks has a time-out.
"""

from labelmill.doctor.checks import Check, Status
from labelmill.doctor.examination import examine, exit_code_of

__all__ = ["Check", "Status", "examine", "exit_code_of"]
