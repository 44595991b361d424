"""What `lerobot-eval` found, counted: intervals, pairs, tables. Knows neither policies nor the simulator."""
