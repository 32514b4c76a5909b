"""What the exercises share: training runs and their store, statistics, pages, mathematics."""
