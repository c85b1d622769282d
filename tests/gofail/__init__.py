"""For maintainers: the table of etcd's gofail sites made from its source, and the survey of which of them a load reaches."""
