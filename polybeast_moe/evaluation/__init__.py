"""What a run is judged by: reports made from its own files."""
