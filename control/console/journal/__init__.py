"""The pages of the journal: who changed what, from what, to what, and whether that is what was sealed."""
