//! The revision-guided checkers of etcd over a history in columns.
