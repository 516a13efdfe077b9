"""What `import xai` offers to whoever has a classifier and pictures; `xai` itself hands these names on when asked."""
