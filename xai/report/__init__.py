"""What a person sees of a frame: tables, claims, figures, pages."""
