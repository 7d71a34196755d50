"""What every command shares: output, prompts, times, exit codes, settings, shutdown."""
