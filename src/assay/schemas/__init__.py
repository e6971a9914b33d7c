"""What the API takes and gives: inputs refuse what they do not know, outputs say all they have."""
