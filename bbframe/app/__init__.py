"""The application: configurations composed by Hydra, the console command, sweeps."""
