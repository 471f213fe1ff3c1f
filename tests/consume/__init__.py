"""What docs/consume.md shows, run: consumers of the summaries, in `consumers/`."""
