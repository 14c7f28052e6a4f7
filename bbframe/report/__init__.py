"""Tables, charts and pictures of what a run or a sweep found."""
