"""The one entry point: `python run.py --help` explains itself."""

import sys

from xai.cli import main

if __name__ == "__main__":
    sys.exit(main())
