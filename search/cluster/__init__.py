"""Workers on a cluster: one Ray actor each. Needs the extra ``ray``."""
