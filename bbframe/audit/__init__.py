"""What spoils comparisons in a data set: copies, leaks, likely wrong labels, outliers, objects that are too small."""
