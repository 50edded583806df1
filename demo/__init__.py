"""`python -m demo`: two vision services measured by infermeter, a real Prometheus beside it, and a live table.

Read `face_detection.py` first: it shows how little infermeter asks of a service. `object_detection.py` shows the rest.
"""


class DemoError(Exception):
    """Why the demo cannot go on, and what to do about it: one sentence for the person who started it."""
