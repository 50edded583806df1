"""infermeter makes AI services observable in Prometheus.

import infermeter

@infermeter.track(model="yolov8m", detections="auto")
def detect(frame):
    return net(frame)

infermeter.serve(8002)
"""

from infermeter.cache import Cache
from infermeter.call import Call, current
from infermeter.cost import CostModel
from infermeter.errors import ConfigError
from infermeter.load import Load
from infermeter.queue import Queue
from infermeter.recorder import Recorder
from infermeter.results import Detections
from infermeter.server import Server
from infermeter.track import Track
from infermeter.version import __version__

_default = Recorder()
track = _default.track
load = _default.load
queue = _default.queue
cache = _default.cache
model_info = _default.model_info
model_memory = _default.model_memory
model_accuracy = _default.model_accuracy
configure = _default.configure
instrument = _default.instrument
uninstrument = _default.uninstrument
watch = _default.watch
serve = _default.serve
asgi_app = _default.asgi_app
wsgi_app = _default.wsgi_app
asgi_middleware = _default.asgi_middleware
wsgi_middleware = _default.wsgi_middleware
register = _default.register
write_textfile = _default.write_textfile
push = _default.push

__all__ = [
    "Cache",
    "Call",
    "ConfigError",
    "CostModel",
    "Detections",
    "Load",
    "Queue",
    "Recorder",
    "Server",
    "Track",
    "__version__",
    "asgi_app",
    "asgi_middleware",
    "cache",
    "configure",
    "current",
    "instrument",
    "load",
    "model_accuracy",
    "model_info",
    "model_memory",
    "push",
    "queue",
    "register",
    "serve",
    "track",
    "uninstrument",
    "watch",
    "write_textfile",
    "wsgi_app",
    "wsgi_middleware",
]
