"""The retrieved images of a leaderboard's models."""
