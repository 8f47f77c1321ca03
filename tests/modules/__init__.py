"""Where the user's own modules lie, and whether workers find them there.

Real programs, started as people start them.
"""
