"""The console script `xai`, which is `python run.py`: Ctrl-C ends it in silence before there is anything to stop."""

import signal


def main() -> int:
    """Run the command line; what takes its time to import is imported once Ctrl-C does no harm."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as nohup has it
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from xai.cli import main as run

    return run()
