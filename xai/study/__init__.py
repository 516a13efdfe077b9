"""Cases, maps, scores and the frame: every number that a table, a figure or a page shows is computed here."""
