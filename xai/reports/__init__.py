"""Tables, figures and pages; they read results and compute no metric of their own."""
