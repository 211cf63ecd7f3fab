"""The vocabulary: plain types that import nothing of ours but each other."""
