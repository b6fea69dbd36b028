"""Control of a running trainer: one JSON object a line, over a Unix socket or through files in the run directory."""
