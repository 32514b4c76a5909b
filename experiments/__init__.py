"""Programs that compare the implementations."""
