"""Imported first by the server from which workers are forked: Ctrl-C ends it at once, without a traceback.

The server imports the rest for seconds, and its workers begin with what is set here, until they catch signals.
"""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # held back since the server was started
