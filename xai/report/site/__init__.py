"""The site: pages over everything that runs have written, which sort, filter and switch in the browser."""
