"""`python -m demo`: a vision service measured by infermeter, a real Prometheus beside it, and a live table.

Read `face_detection.py` first: it is the service, and shows how little infermeter asks of one.
"""


class DemoError(Exception):
    """Why the demo cannot go on, and what to do about it: one sentence for the person who started it."""
