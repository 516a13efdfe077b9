"""Classifiers as artifacts: trained here, published, or brought by the user; and what is fine-tuned from them."""
