"""STOMP 1.2 over an asyncio transport of our own, with stomp.py's protocol layer.

stomp.py looks up the machine's host names when it is imported, which can hang where DNS does; this switches
it off before any module of the package imports stomp.
"""

import os

os.environ.setdefault("STOMP_SKIP_HOSTNAME_SCAN", "1")
