"""What we keep: downloads, the store on disk, and the engine that reads it."""
