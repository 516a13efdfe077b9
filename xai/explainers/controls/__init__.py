"""Maps that know less than an explanation should: what every explainer has to beat."""
