"""`python -m infermeter_exporters`: the command `infermeter`."""

import sys

from infermeter_exporters.cli import main

sys.exit(main())
