"""The result of a case, the journal, saved runs, leaderboards. Imports neither pytest nor torch."""
