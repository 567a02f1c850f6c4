"""Sequences that some terminals understand besides text: links, and pictures."""
