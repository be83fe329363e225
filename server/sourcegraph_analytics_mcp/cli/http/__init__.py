"""Serving over HTTP: who may call, what a connection may cost, and the server that listens."""
