"""Where the user's own modules lie, and whether workers find them there: real programs, started as people start them."""
