"""Everything that is done with hits besides listing them: a page, pictures on the terminal, files copied or opened.

`options` declares the options and checks them before a search; `following` does what they want, with one file for each
thing.
"""
