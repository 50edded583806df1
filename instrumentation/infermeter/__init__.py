"""infermeter makes AI services observable in Prometheus.

import infermeter

@infermeter.track(model="yolov8m", detections="auto")
def detect(frame):
    return net(frame)

infermeter.serve(8002)
"""

from infermeter.call import Call, current
from infermeter.cost import CostModel
from infermeter.errors import ConfigError
from infermeter.recorder import Recorder
from infermeter.results import Detections
from infermeter.server import Server
from infermeter.track import Track
from infermeter.version import __version__

_default = Recorder()
track = _default.track
configure = _default.configure
serve = _default.serve
asgi_app = _default.asgi_app
wsgi_app = _default.wsgi_app
register = _default.register

__all__ = [
    "Call",
    "ConfigError",
    "CostModel",
    "Detections",
    "Recorder",
    "Server",
    "Track",
    "__version__",
    "asgi_app",
    "configure",
    "current",
    "register",
    "serve",
    "track",
    "wsgi_app",
]
