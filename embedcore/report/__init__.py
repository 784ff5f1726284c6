"""Reports by what they show: leaderboards, galleries, comparisons, histories; and the report folder."""
