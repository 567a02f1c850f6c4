"""The limits of requests that HTTP and MCP have in common, and the form of an id."""

LONGEST_TEXT = 10_000  # characters
MOST_PICTURES = 100
MOST_TEXTS = 100
MOST_ASKED = 10  # texts of a search, and those that must not be true: each is verified with every candidate
MOST_PAIRS = 1_000
MOST_DEPTH = 1_000

ID = "^[0-9a-f]{64}$"

# Files of the index that are read together: at most so many for their pixels, and as many that are sent or made small.
FILES_TOGETHER = 8
