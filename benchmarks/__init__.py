"""rf-jobs beside its peers: what is measured, how and how fairly stands in README.md."""
