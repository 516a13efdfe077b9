"""The classifiers to be explained, each able to answer with patches removed, and the files they live in."""
