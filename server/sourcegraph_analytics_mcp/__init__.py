"""Sourcegraph Analytics for assistants: tokens, exports and answers over the Model Context Protocol."""
