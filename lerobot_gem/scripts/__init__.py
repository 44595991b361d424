"""One thin `main` for each console command."""
