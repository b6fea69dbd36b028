"""What a run tells about itself: metrics rows, sinks that keep them, the live console, the process's resources."""
