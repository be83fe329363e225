"""The Analytics API as it is: typed calls, one HTTP client, one retry table."""
