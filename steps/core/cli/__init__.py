"""The command line: tasks and their options, one run of them, its locks and its history."""
