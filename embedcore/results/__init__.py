"""What was measured: the result of a case, the journal, saved runs, leaderboards. Neither pytest nor torch."""
