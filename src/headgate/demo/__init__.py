"""What `headgate demo` shows: bundled traffic and the run that replays it."""
