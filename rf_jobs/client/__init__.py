"""What an application uses: the manager, the builder, the process's default queue."""
