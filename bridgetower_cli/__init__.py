"""`bt`, the command line of `bridgetower`: the only code that prints, and the only code that exits."""
