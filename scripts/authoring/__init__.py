"""An author's tools: samples, replays, trials, guesses."""
