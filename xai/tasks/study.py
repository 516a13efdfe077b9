"""`task=study`: rows by metrics, as a paper has them, shown as tables, claims, figures and a page."""
