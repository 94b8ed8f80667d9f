"""Command line: parsing, directories, signals, exit codes, help."""
