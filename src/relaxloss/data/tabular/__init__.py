"""Tables of a user's own: files, data frames, labels and columns."""
