"""What the Hub gives: its client, a checkpoint's files, strict loading, preprocessing."""
