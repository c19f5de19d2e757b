"""What stands below all: errors, files, digests, words for the user and for a shell."""
