"""What an assistant sees: tools, resources, prompts, completions."""
