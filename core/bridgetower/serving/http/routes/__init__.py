"""The routes of the HTTP server: the fields that they take (`schemas`), and what they answer. None prints or logs."""
