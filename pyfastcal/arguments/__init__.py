"""What a caller may give, and what is said where it does not fit."""
