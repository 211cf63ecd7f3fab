"""One module for each command or group; the object to load has the name of its module."""
