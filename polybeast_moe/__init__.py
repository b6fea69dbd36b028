"""High-throughput training of graph-attention mixture-of-experts agents on real NetHack. Importing it costs no torch."""
