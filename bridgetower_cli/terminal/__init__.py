"""Tables fitted to a terminal, and sequences that some terminals understand besides text: links, and pictures."""
