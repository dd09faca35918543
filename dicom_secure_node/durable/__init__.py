"""What survives a crash: atomic files with their directory entries, and queues with replay."""
