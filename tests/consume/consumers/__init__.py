"""Programs that read summaries, as docs/consume.md shows them; nothing of the tests is imported here."""
