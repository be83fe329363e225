"""The prompts this server offers, one Markdown file each; a file dropped in is offered."""
