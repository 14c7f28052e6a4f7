"""What turns a backbone's maps into predictions."""
