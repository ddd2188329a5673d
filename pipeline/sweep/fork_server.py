"""The server that forks workers imports this module first, so that Ctrl-C ends it at once and without a traceback.

Importing the rest takes the server seconds. Its workers inherit these settings until they handle signals themselves.
"""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # blocked when the server started
