"""Who we are to upstream: the credentials, where secrets are kept, making and revoking access tokens."""
