"""Pure decisions: what is read in which blocks, and what that costs in memory."""
