"""The one entry point: `python run.py --help` explains itself."""

import signal
import sys

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C before there is anything to stop

from xai.cli import main

if __name__ == "__main__":
    sys.exit(main())
