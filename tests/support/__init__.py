"""What tests share: a real upstream on a socket, a scripted one that misbehaves, a client for the real server."""
