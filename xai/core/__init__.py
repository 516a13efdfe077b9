"""What everything else stands on: the store, work in blocks, processes, files, settings, the training loop."""
