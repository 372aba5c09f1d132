"""A proof as a page that judges itself in any browser."""
