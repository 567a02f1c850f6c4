"""Parts of the commands that ask an index: their options, and how they show hits."""
