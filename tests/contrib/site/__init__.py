"""A Django project for the tests: settings, one app, its jobs, its views."""
