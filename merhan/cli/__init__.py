"""The command-line programs. Modules here import the rest of the package only when a command runs, so that `--help`
answers at once."""
