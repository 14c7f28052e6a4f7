"""Many runs: their jobs, and one table over them."""
