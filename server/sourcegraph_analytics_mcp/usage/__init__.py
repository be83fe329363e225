"""What the data means: metrics, periods, questions."""
