"""What Assay does, whoever asks for it: commands, routes and tasks call these."""
