"""Walking the plan: what is due, how wide, what if it fails."""
