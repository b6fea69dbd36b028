"""High-throughput training of graph-attention mixture-of-experts agents on real NetHack. Imports no torch."""
