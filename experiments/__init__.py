"""Questions asked of several implementations at once."""
