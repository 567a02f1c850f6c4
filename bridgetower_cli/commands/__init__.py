"""The commands: each reads its options, calls the library (imported inside, so that help stays fast), and prints."""
