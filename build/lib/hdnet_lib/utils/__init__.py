"""Small things that every other part may use, and that use no other part."""
