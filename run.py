"""The one entry point: `python run.py --help` explains itself."""

import sys

from xai.entry import main

if __name__ == "__main__":
    sys.exit(main())
