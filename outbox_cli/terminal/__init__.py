"""Code that all commands share: output, prompts, times, exit codes, settings, shutdown."""
